"""How each framework spells what a finding's hint names as an option of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module

from advisor.stacks.emit import MODULES
from advisor.stacks.known import defaults_of
from advisor.values.plan import Plan
from advisor.values.vocabulary import Stack

_TRAINER = {
    "batch-size": "per_device_train_batch_size: {}",
    "grad-accum": "gradient_accumulation_steps: {}",
    "optimizer": "optim: {}",
}
_SPELLINGS: Mapping[Stack, Mapping[str, str]] = {
    Stack.HF: {
        **_TRAINER,
        "seq-len": "cut or pack to {} tokens",
        "rank": "r={}",
        "alpha": "lora_alpha={}",
        "target-modules": "target_modules={}",
        "no-kbit-prepare": "leaving the call out",
        "attention": "attn_implementation={}",
        "precision": "dtype={}",
        "loss": "use_liger_kernel for a fused loss; {}",
        "method": "{}",
    },
    Stack.TRL: {
        **_TRAINER,
        "seq-len": "max_length: {}",
        "rank": "lora_r: {}",
        "alpha": "lora_alpha: {}",
        "target-modules": "lora_target_modules: {}",
        "no-kbit-prepare": "trl 0.26 or later, which does not call it,",
        "attention": "attn_implementation: {}",
        "precision": "dtype: {}",
    },
    Stack.AXOLOTL: {
        "batch-size": "micro_batch_size: {}",
        "grad-accum": "gradient_accumulation_steps: {}",
        "optimizer": "optimizer: {}",
        "seq-len": "sequence_len: {}",
        "rank": "lora_r: {}",
        "alpha": "lora_alpha: {}",
        "target-modules": "lora_target_linear: true, or lora_target_modules: {}",
        "attention": "attn_implementation: {}",
        "precision": "{}: true",
    },
    Stack.LLAMAFACTORY: {
        **_TRAINER,
        "seq-len": "cutoff_len: {}",
        "rank": "lora_rank: {}",
        "alpha": "lora_alpha: {}",
        "target-modules": "lora_target: {}",
        "attention": "flash_attn: {}",
        "precision": "{}: true",
    },
    Stack.MS_SWIFT: {
        **_TRAINER,
        "seq-len": "max_length: {}",
        "rank": "lora_rank: {}",
        "alpha": "lora_alpha: {}",
        "target-modules": "target_modules: {}",
        "attention": "attn_impl: {}",
        "precision": "torch_dtype: {}",
    },
    Stack.TORCHTUNE: {
        "batch-size": "batch_size: {}",
        "grad-accum": "gradient_accumulation_steps: {}",
        "seq-len": "tokenizer.max_seq_len: {}",
        "rank": "model.lora_rank: {}",
        "alpha": "model.lora_alpha: {}",
        "precision": "dtype: {}",
    },
}
_WORDS = {"flash": "flash_attention_2"}
_OPTION = re.compile(r"--([a-z][a-z-]*)(?: ((?!--)[\w.,-]*\w))?")


def spelled(stack: Stack, hint: str) -> str:
    """The hint with the options that the framework has a setting for in its own words."""
    spellings = _SPELLINGS.get(stack, {})

    def in_its_words(found: re.Match[str]) -> str:
        known = spellings.get(found[1])
        if known is None:
            return found[0]
        value = found[2] or ""
        return known.format(_WORDS.get(value, value)) if "{}" in known else known + (f" {value}" if value else "")

    return _OPTION.sub(in_its_words, hint)


def changed_settings(before: Plan, after: Plan) -> tuple[str, ...]:
    """Settings of the framework that turn the one plan into the other; none for frameworks whose files are not written."""
    module = MODULES.get(before.stack)
    if module is None:
        return ()
    write, defaults = import_module(f"advisor.stacks.{module}").write, defaults_of(before.stack)
    lines = [tuple(write(plan, "", "0", defaults)) for plan in (before, after)]
    return tuple(line for line in lines[1] if line not in lines[0])
