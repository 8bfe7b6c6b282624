"""A run from where it left its traces: a JSON file, a trainer_state.json, or the folder that a trainer wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advisor.bounded import children, exists, is_file, is_folder, named, place
from advisor.errors import AdvisorError, InvalidInputError
from advisor.json_files import read_json, read_object
from advisor.ledger import model_card, trainer_state
from advisor.ledger.build import preferring, run_from
from advisor.refusals import boundary
from advisor.values.evidence import AdapterFacts
from advisor.values.run import Evaluation, RunRecord
from advisor.values.vocabulary import Method

_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_RESULTS = ("all_results.json", "train_results.json", "eval_results.json")
"""As Trainer.save_metrics writes them (transformers 5.23, trainer_pt_utils.py)."""
_LATER = frozenset({"id", "schema_version"})
"""Of a run that was listed with --json: given anew when it is stored."""


def runs_from(source: str | Path, method: Method | None = None) -> tuple[RunRecord, ...]:
    """The runs that a file or a folder holds, with the method where it is known better than from there.

    Raises one line for what it cannot use; nothing is stored yet.
    """
    path = place(source)
    with boundary(named(path)):
        return (from_folder(path, method),) if is_folder(path) else _from_file(path, source)


def _from_file(path: Path, source: str | Path) -> tuple[RunRecord, ...]:
    if not exists(path):
        raise InvalidInputError(f"{source}: no such file or folder")
    if path.suffix in (".bin", ".pt", ".pth"):
        raise InvalidInputError(f"{path} is a pickle, which can run any code when it is opened; give the folder that it lies in")
    data = read_json(path)
    if isinstance(data, dict) and "log_history" in data:
        return (trainer_state.from_trainer_state(data, path),)
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise InvalidInputError(f"{path} holds an empty list")
    return tuple(_entry(path, number, entry, isinstance(data, list)) for number, entry in enumerate(entries))


def _entry(path: Path, number: int, entry: Any, listed: bool) -> RunRecord:
    where = f"{path}: {f'entry {number}: ' if listed else ''}"
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{where}a run is an object of fields, not a {type(entry).__name__}")
    if "global_step" in entry and "log_history" not in entry:
        raise InvalidInputError(f"{path} is no whole trainer state: it has no log_history")
    if not set(entry) - _LATER:
        raise InvalidInputError(f"{where}there is nothing in it")
    fields = {name: value for name, value in entry.items() if name not in _LATER}
    return run_from({"source": str(path), **fields}, where)


def from_folder(folder: Path, method: Method | None = None) -> RunRecord:
    """What the files of an output folder say together: the adapter's config first, then the trainer's state, results and card."""
    parts = [*_config_part(folder), *_state_part(folder), *_results_part(folder)]
    if is_file(folder / model_card.FILE):
        card = model_card.from_model_card(folder / model_card.FILE)
        if card.learning_rate is not None:  # as configured; the state has only what was logged
            parts = [part.model_copy(update={"learning_rate": None, "notes": ()}) if part.learning_rate else part for part in parts]
        parts.append(card)
    if method is not None or any(part.quantization for part in parts):
        parts = [part.model_copy(update={"method": method or _on_quantized(part.method)}) for part in parts]
    record = RunRecord(source=str(folder))
    for part in parts:
        if record.evaluations and part.evaluations:  # the same scores again
            record = _with_items(record, part.evaluations)
            part = part.model_copy(update={"evaluations": ()})
        record = preferring(record, part.model_copy(update={"source": ""}), str(folder))
    if record.method is None and not record.train_losses and not record.eval_losses and not record.evaluations:
        raise InvalidInputError(
            f"{folder} holds no trace of a run: no {_ADAPTER_CONFIG}, no {trainer_state.FILE} (also not in a checkpoint-N), no results"
        )
    if method is not None or record.quantization is not None or record.method is None:
        return record
    note = f"whether the base was quantised does not stand in the folder; if so, it is --method q{record.method.value}"
    return record.model_copy(update={"notes": (*record.notes, note)})


def _with_items(record: RunRecord, others: tuple[Evaluation, ...]) -> RunRecord:
    """Numbers of items from another file's account of the same scores, where they were not known."""
    known = {entry.metric: entry.n for entry in others if entry.n is not None}
    filled = (entry if entry.n else entry.model_copy(update={"n": known.get(entry.metric)}) for entry in record.evaluations)
    return record.model_copy(update={"evaluations": tuple(filled)})


def _on_quantized(method: Method | None) -> Method | None:
    return {Method.LORA: Method.QLORA, Method.DORA: Method.QDORA}.get(method, method) if method is not None else None


def _config_part(folder: Path) -> Iterator[RunRecord]:
    path = folder / _ADAPTER_CONFIG
    if not is_file(path):
        return
    config = read_object(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InvalidInputError(f"{path}: peft_type is {kind}; only LORA, with or without DoRA, is a method of the ladder")
    targets = config.get("target_modules")
    init = config.get("init_lora_weights", True)
    alpha = config.get("lora_alpha")
    yield run_from(
        {
            "method": "dora" if config.get("use_dora") else "lora",
            "rank": config.get("r"),
            "alpha": alpha,
            "target_modules": sorted(targets, key=str) if isinstance(targets, list) else [targets] if isinstance(targets, str) else None,
            "use_rslora": bool(config.get("use_rslora")),
            "init": init if isinstance(init, str) else None,
            "dropout": config.get("lora_dropout"),
            "model": config.get("base_model_name_or_path") or None,
            **_adapter_fields(folder),
        },
        f"{path}: ",
    )


def _adapter_fields(folder: Path) -> dict[str, Any]:
    """What the weights show. Where they cannot be read the run is recorded all the same, and a note says why."""
    if not is_file(folder / _ADAPTER_WEIGHTS):
        return {}
    from advisor.adapters import inspect_adapter
    from advisor.values.adapter import ModuleState

    try:
        report = inspect_adapter(folder)
    except AdvisorError as error:
        return {"notes": (f"the adapter was not inspected: {error}",)}
    untrained = tuple(module.name for module in report.in_state(ModuleState.UNTRAINED))
    return {
        "adapter_params": report.params,
        "adapter": AdapterFacts(rank=report.rank, energy_at_half=report.energy_at_half_rank, untrained_modules=untrained),
        "diverged": True if report.in_state(ModuleState.NOT_FINITE) else None,
    }


def _state_part(folder: Path) -> Iterator[RunRecord]:
    """The folder's state, or that of its last checkpoint."""
    path = folder / trainer_state.FILE
    if not is_file(path):
        found = {child: child.name.rpartition("-")[2] for child in children(folder) if _is_checkpoint(child)}
        numbered = {child: int(step) for child, step in found.items() if step.isdecimal()}
        states = [child / trainer_state.FILE for child in sorted(numbered, key=numbered.__getitem__)]
        if not states:
            return
        path = states[-1]
    yield trainer_state.from_trainer_state(read_object(path), path)


def _is_checkpoint(child: Path) -> bool:
    return child.name.startswith("checkpoint-") and is_file(child / trainer_state.FILE)


def _results_part(folder: Path) -> Iterator[RunRecord]:
    """Scores and numbers of items of the results files."""
    results: dict[str, Any] = {}
    for name in _RESULTS:
        if is_file(folder / name):
            results = {**read_object(folder / name), **results}
    if results:
        yield from _results_record(folder, results)


def _results_record(folder: Path, results: Mapping[str, Any]) -> Iterator[RunRecord]:
    samples = results.get("eval_samples")
    n = samples if isinstance(samples, int) and samples > 0 else trainer_state.items_of(results)
    scores = {
        name.removeprefix("eval_"): float(value)
        for name, value in results.items()
        if name.startswith("eval_") and name != "eval_samples" and isinstance(value, (int, float)) and math.isfinite(value)
    }
    examples = results.get("train_samples")
    scores = {name: score for name, score in scores.items() if trainer_state.is_score(name)}
    yield run_from(
        {
            "examples": examples if isinstance(examples, int) and examples > 0 else None,
            "evaluations": tuple(Evaluation(metric=name, score=score, n=n) for name, score in scores.items()),
        },
        f"{folder}: ",
    )
