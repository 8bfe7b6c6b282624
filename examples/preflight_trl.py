"""The same check in TRL's SFTTrainer: before anything is loaded, and again before the first step.

It runs on a processor in seconds; on yours, put your model and data in. Needs the extra `torch`, and TRL.
"""

from __future__ import annotations

import sys
import tempfile

import tiny
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from advisor import AdvisorCallback, preflight

ADAPTER = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def main(folder: str) -> None:
    arguments = SFTConfig(
        output_dir=folder, per_device_train_batch_size=2, max_length=tiny.TOKENS, max_steps=2, bf16=False, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    report = preflight("llama-3.1-8b", arguments, ADAPTER, gpu="24GB")
    print(f"these settings with Llama-3.1-8B on 24 GB: {report.fit.value if report.fit else 'no card'}")

    check = AdvisorCallback(gpu="8GiB", on_misfit="raise")
    data = Dataset.from_list(tiny.examples())
    trainer = SFTTrainer(
        tiny.model(), arguments, train_dataset=data, processing_class=tiny.tokenizer(), peft_config=ADAPTER, callbacks=[check]
    )
    trainer.train()
    assert check.report is not None
    print(f"trained {trainer.state.global_step} steps; before the first: {check.report.fit.value if check.report.fit else 'no card'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(*(sys.argv[1:] or [made]))
