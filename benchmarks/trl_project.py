"""Follow `advise next` through a whole project that is real: TRL and peft train a tiny model on the CPU, the ledger records every run.

    python -m benchmarks.trl_project                 a first rate that is too low: minutes on one core
    python -m benchmarks.trl_project --cause data    too few examples

The model has learned to answer a row of symbols with a permutation of its first one, half of the time; the project is to teach it another
permutation. What is limited is chosen and known, so that every answer can be held against what was trained and scored.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from advisor import NextStep, RunRecord, next_step, record, record_callback, runs
from advisor.ledger import facts_from_ledger
from advisor.values import Method
from advisor.values.next_step import Binding, NextRun

SYMBOLS, LENGTH = 24, 6
"""Symbols of the language, and how many make a row."""
EQUALS, PADDING, UNKNOWN = SYMBOLS, SYMBOLS + 1, SYMBOLS + 2
BASE_STEPS, BASE_BATCH = 600, 64
ITEMS = 1000
"""Held-out rows that every run is scored on."""
TARGET = 0.99
METRIC = "exact_match"
MOST_ANSWERS = 12


@dataclass(frozen=True)
class Setup:
    """What is chosen for one run."""

    method: Method = Method.LORA
    rank: int = 8
    alpha: float = 16
    learning_rate: float = 2e-3
    batch: int = 16
    epochs: float = 2
    data_fraction: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Cause:
    """A limit, how a project with it begins, and the names that the limit may be given."""

    first: Setup
    examples: int
    right: frozenset[Binding]


CAUSES = {
    "rate": Cause(Setup(learning_rate=5e-5), 1600, frozenset({Binding.LEARNING_RATE})),
    "data": Cause(Setup(epochs=20), 100, frozenset({Binding.DATA, Binding.DATA_OVERFIT, Binding.CAPACITY})),
}
"""From the few rows full fine-tuning learns what the adapter does not (95 % against 70 %), so that both names are right there."""


class Project:
    """One folder with the base model, its ledger, and the data."""

    def __init__(self, folder: Path, cause: Cause) -> None:
        self.folder, self.cause, self.ledger = folder, cause, folder / "ledger.sqlite"
        self.taught = torch.randperm(SYMBOLS, generator=torch.Generator().manual_seed(99))
        self.base = folder / "tiny-llama"
        _pretrained().save_pretrained(self.base)

    @cached_property
    def tokenizer(self) -> Any:
        words = {f"<{number}>": number for number in range(SYMBOLS)} | {"<eq>": EQUALS, "<pad>": PADDING, "<unk>": UNKNOWN}
        made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eq>", unk_token="<unk>")

    def begin(self) -> None:
        """Scores the untuned model and trains the first run."""
        correct = self._correct(LlamaForCausalLM.from_pretrained(self.base))
        record(ledger=self.ledger, kind="base", model=str(self.base), metric=METRIC, items=correct, target=TARGET)
        self.train(self.cause.first)

    def train(self, setup: Setup) -> int:
        """One run of TRL's SFTTrainer, recorded by the callback and scored on every held-out row; returns its number in the ledger."""
        count = max(1, round(self.cause.examples * setup.data_fraction))
        rows, answers = self._sample(self.cause.examples, stream=1)
        texts = [[*row, EQUALS, answer] for row, answer in zip(rows.tolist(), answers.tolist(), strict=True)][:count]
        masks = [[0] * (LENGTH + 1) + [1]] * count
        callback = record_callback(ledger=self.ledger, model=str(self.base), data_fraction=setup.data_fraction, examples=count)
        torch.manual_seed(setup.seed)
        trainer = SFTTrainer(
            model=LlamaForCausalLM.from_pretrained(self.base),
            args=self._arguments(setup),
            train_dataset=Dataset.from_dict({"input_ids": texts, "completion_mask": masks}),
            processing_class=self.tokenizer,
            peft_config=_adapter(setup),
            callbacks=[callback],
        )
        trainer.train()
        number: int = callback.run_id
        record(run=number, ledger=self.ledger, metric=METRIC, items=self._correct(trainer.model), target=TARGET)
        return number

    def _arguments(self, setup: Setup) -> Any:
        return SFTConfig(
            output_dir=str(self.folder / "out"),
            learning_rate=setup.learning_rate,
            per_device_train_batch_size=setup.batch,
            num_train_epochs=setup.epochs,
            seed=setup.seed,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            max_length=16,
            logging_steps=5,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )

    def _sample(self, count: int, stream: int) -> tuple[Any, Any]:
        rows = torch.randint(SYMBOLS, (count, LENGTH), generator=torch.Generator().manual_seed(stream))
        return rows, self.taught[rows[:, 0]]

    def _correct(self, model: Any) -> tuple[int, ...]:
        rows, answers = self._sample(ITEMS, stream=2)
        prompts = torch.cat([rows, torch.full((ITEMS, 1), EQUALS)], dim=1)
        with torch.no_grad():
            return tuple(int(right) for right in model.eval()(input_ids=prompts).logits[:, -1].argmax(dim=-1) == answers)


def _adapter(setup: Setup) -> Any:
    if not setup.method.has_adapter:
        return None
    return LoraConfig(
        r=setup.rank,
        lora_alpha=setup.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        use_dora=setup.method.is_dora,
        task_type="CAUSAL_LM",
    )


def _pretrained() -> Any:
    """A model of two layers that answers with a permutation of the first symbol, or with any symbol: were it surer of wrong answers, its
    first loss would lie above that of guessing."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=16,
        pad_token_id=PADDING,
    )
    model, generator = LlamaForCausalLM(config), torch.Generator().manual_seed(0)
    known = torch.randperm(SYMBOLS, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(BASE_STEPS):
        rows = torch.randint(SYMBOLS, (BASE_BATCH, LENGTH), generator=generator)
        guessed = torch.randint(SYMBOLS, (BASE_BATCH,), generator=generator)
        answers = torch.where(torch.rand(BASE_BATCH, generator=generator) < 0.5, guessed, known[rows[:, 0]])
        texts = torch.cat([rows, torch.full((BASE_BATCH, 1), EQUALS), answers[:, None]], dim=1)
        labels = texts.clone()
        labels[:, :-1] = -100
        loss = model(input_ids=texts, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def follow(project: Project, tell: Callable[[str], None] = lambda line: None) -> Iterator[tuple[NextStep, tuple[RunRecord, ...]]]:
    """Yields every answer with the runs that it was given, and does what it asks for, until it asks for nothing."""
    project.begin()
    for _ in range(MOST_ANSWERS):
        step = next_step(facts_from_ledger(project.ledger))
        tell(f"{step.gate} {step.binding.value} {step.rung.value} ({step.confidence.value}): {step.reason}. {step.next_experiment}")
        yield step, runs(project.ledger)
        if step.run is None:
            return
        for setup in setups_of(step.run, project.cause.first):
            number = project.train(setup)
            tell(f"   run {number}: {setup}: {scores(runs(project.ledger))[number]:.3f}")


def setups_of(planned: NextRun, like: Setup) -> Iterator[Setup]:
    """The runs that an answer asks for."""
    for rate in planned.learning_rates or (like.learning_rate,):
        for seed in range(planned.seeds):
            yield Setup(
                method=planned.method,
                rank=planned.rank or like.rank,
                alpha=planned.alpha or like.alpha,
                learning_rate=rate,
                batch=planned.batch or like.batch,
                epochs=planned.epochs or like.epochs,
                data_fraction=planned.data_fraction,
                seed=seed,
            )


def scores(found: tuple[RunRecord, ...]) -> dict[int, float]:
    """The last score of every run, by its number."""
    return {run.id: run.evaluations[-1].score for run in found if run.id is not None and run.evaluations}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cause", choices=[*CAUSES], default="rate")
    cause = CAUSES[parser.parse_args().cause]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for step, found in follow(Project(Path(folder), cause), lambda line: print(line, flush=True)):
            last = step, found
    step, found = last
    best = max(scores(found).values())
    print(f"{len(found)} runs recorded, best {best:.3f} of {TARGET}: {step.binding.value}")
    return int(best < TARGET)


if __name__ == "__main__":
    sys.exit(main())
