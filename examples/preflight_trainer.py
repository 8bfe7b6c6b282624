"""A whole training with transformers' Trainer that is checked before its first step, and laid beside its measured peak after the last.

It runs on a processor in seconds; on yours, put your model and data in. Needs the extra `torch`.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import tiny
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from advisor import AdvisorCallback, DoesNotFitError

ADAPTER = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def train(folder: str, **asked: Any) -> None:
    """Train a few steps, as if on the card that is `asked` about: leave it out where the card is at hand."""
    check = AdvisorCallback(on_misfit="raise", **asked)
    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=2, max_steps=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    try:
        trainer = Trainer(model=get_peft_model(tiny.model(), ADAPTER), args=arguments, train_dataset=tiny.examples(), callbacks=[check])
        trainer.train()
    except DoesNotFitError as error:
        print(f"stopped before the first step: {error}")
        return
    assert check.report is not None
    print(f"trained {trainer.state.global_step} steps; before the first: {check.report.fit.value if check.report.fit else 'no card'}")


def main(folder: str) -> None:
    train(folder, gpu="8GiB")
    train(folder, gpu="1GiB", seq_len=100_000)  # as if the longest sequence were that long


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(*(sys.argv[1:] or [made]))
