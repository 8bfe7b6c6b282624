"""What a run's README.md says: hyperparameters and losses as transformers' Trainer writes them, metrics of the model index.

(transformers 5.23, modelcard.py TrainingSummary.to_model_card; TRL's own cards carry neither hyperparameters nor losses.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.bounded import read_text
from advisor.ledger.build import run_from
from advisor.ledger.trainer_state import is_score
from advisor.values.evidence import LossPoint
from advisor.values.run import Evaluation, RunRecord
from advisor.yaml_files import front_matter

FILE = "README.md"
LARGEST_CARD_BYTES = 4_000_000
"""Judgement: cards are a few kB; one that logs every step of a long training reaches some hundred."""
# The card's word: (the record's field, how the text becomes a value).
_HYPERPARAMETERS: dict[str, tuple[str, type]] = {
    "learning_rate": ("learning_rate", float),
    "train_batch_size": ("batch_size", int),
    "gradient_accumulation_steps": ("grad_accum", int),
    "total_train_batch_size": ("effective_batch", int),
    "num_devices": ("gpus", int),
    "num_epochs": ("epochs", float),
    "training_steps": ("steps", int),
    "lr_scheduler_type": ("lr_schedule", str),
    "seed": ("seed", int),
}
_LINE = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)
_SCHEDULE = re.compile(r"^(?:SchedulerType\.)?(\w+)$")
_VERSION = re.compile(r"^- (PEFT|Transformers|Pytorch|TRL|Datasets|Tokenizers):? ([\w.+]+)\s*$", re.MULTILINE | re.IGNORECASE)
_FOUR_BIT = re.compile(r"^- load_in_4bit: True$", re.MULTILINE)
_QUANT_TYPE = re.compile(r"^- bnb_4bit_quant_type: (nf4|fp4)$", re.MULTILINE)


def from_model_card(path: Path) -> RunRecord:
    """What the card tells; nothing where it is a card of another kind."""
    text = read_text(path, LARGEST_CARD_BYTES)
    versions = {name.lower().replace("pytorch", "torch"): version for name, version in _VERSION.findall(text)}
    fields: dict[str, Any] = {"source": str(path), "versions": versions}
    for word, value in _LINE.findall(text):
        if word in _HYPERPARAMETERS:
            field, kind = _HYPERPARAMETERS[word]
            fields[field] = _parsed(value.strip(), kind)
    if _FOUR_BIT.search(text):  # peft's cards of 2023 list the quantisation of the base
        kind_of_four = _QUANT_TYPE.search(text)
        fields["quantization"] = kind_of_four.group(1) if kind_of_four else None
    curves = _curves(text)
    fields |= {"train_losses": curves[0], "eval_losses": curves[1]}
    fields["evaluations"], problem = _index(text, path)
    fields["notes"] = (problem,) if problem else ()
    return run_from(fields, f"{path}: ")


def _parsed(text: str, kind: type) -> Any:
    if kind is str:
        match = _SCHEDULE.match(text)
        return match.group(1).lower() if match else None
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _curves(text: str) -> tuple[tuple[LossPoint, ...], tuple[LossPoint, ...]]:
    """Training and validation loss by step, from the card's table of results; before the first log it says "No log"."""
    train: list[LossPoint] = []
    validation: list[LossPoint] = []
    for row in _rows(text):
        step = _parsed(row.get("Step", ""), float)
        if step is None or step < 0:
            continue
        for points, loss in ((train, row.get("Training Loss", "")), (validation, row.get("Validation Loss", ""))):
            value = math.nan if loss.lower() == "nan" else _parsed(loss, float)
            if value is not None:
                points.append(LossPoint(step=step, loss=value))
    return tuple(train), tuple(validation)


def _rows(text: str) -> Iterator[dict[str, str]]:
    """Rows of the table whose header names the step and the validation loss."""
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            header = []
        elif "Step" in cells and "Validation Loss" in cells:
            header = cells
        elif header and len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))


def _index(text: str, path: Path) -> tuple[tuple[Evaluation, ...], str]:
    """Metrics of the card's model index, and what was wrong with it."""
    try:
        metadata = front_matter(text, path.name) or {}
        results = [result for model in metadata.get("model-index") or () for result in model.get("results") or ()]
        metrics = [metric for result in results for metric in result.get("metrics") or ()]
        pairs = [(str(metric.get("type") or metric.get("name") or ""), metric.get("value")) for metric in metrics]
    except Exception as error:  # the YAML parser's errors, and whatever stands where a list should
        return (), f"the metadata of {path.name} cannot be read ({type(error).__name__}) and was left out"
    scores = [(name, float(value)) for name, value in pairs if isinstance(value, (int, float)) and math.isfinite(value)]
    return tuple(Evaluation(metric=name, score=score) for name, score in scores if is_score(name.lower())), ""
