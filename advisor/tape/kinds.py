"""What of a plan decides how its step is recorded, and what is a formula in the recording or changes nothing in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from advisor.values import Plan

DIGITS = 24
"""Of a digest in hexadecimal."""

FORMULA = ("micro_batch_size", "seq_len_tokens")
"""Sizes of a tape are formulas in these."""

NEUTRAL: Mapping[str, str] = {
    "alpha": "a factor on the adapter's output: no tensor of its own",
    "use_rslora": "the same factor, otherwise",
    "offload": "moved by sharding engines only",
    "deepspeed": "settings of an engine of several cards",
    "loads_on_rank_0": "one process loads",
}
"""Fields that change no event of a recording, and why."""


def _adapter(plan: Plan) -> bool:
    return plan.method.has_adapter


def _quantized(plan: Plan) -> bool:
    return plan.quantization is not None


def _checkpointed(plan: Plan) -> bool:
    return plan.gradient_checkpointing


def _sharded(plan: Plan) -> bool:
    return plan.sharding.is_fsdp


CARDS = ("n_gpus", "sharding", "masters", "shard_group", "reshard_after_forward", "sync_each_batch")
"""What a recording of one of several cards is of."""

ONLY_WITH: Mapping[str, Callable[[Plan], bool]] = {
    "rank": _adapter,
    "target_modules": _adapter,
    "adapter_dtype": _adapter,
    "lora_dropout": _adapter,
    "double_quant": _quantized,
    "quantized_experts": _quantized,
    "kbit_prepare": _quantized,
    "use_reentrant": _checkpointed,
    "autocast_dtype": lambda plan: plan.autocast or plan.quantization is not None,
    **dict.fromkeys(CARDS, _sharded),
}
"""Fields that decide nothing unless something else is chosen. Of the engines of several cards FSDP alone records otherwise than one card:
a replica of DDP runs its step, with buckets beside it (`memory.replicas`)."""

FOLDED: Mapping[str, Callable[[Plan], Any]] = {
    "grad_accum_steps": lambda plan: min(plan.grad_accum_steps, 3 if plan.sharding.is_fsdp else 2),
    "lora_dropout": lambda plan: 0.1 if plan.lora_dropout else 0.0,
}
"""Fields of which several values are recorded alike: of an accumulation the second micro-step is like every later one, but for the last
of several cards, which reduces; and a dropout's mask is as large for every share."""

DECIDES = (
    "method",
    "images_per_row",
    "image_size_pixels",
    "base_dtype",
    "autocast",
    "quantization",
    "optimizer",
    "gradient_checkpointing",
    "attention",
    "mixers",
    "padding",
    "kv_cache_in_outputs",
    "head",
    "labels",
    "loss",
    "shift",
    "eval_micro_batch_size",
    "stack",
)
"""Fields of which every value is recorded for itself."""

ADDED = ("images_per_row", "image_size_pixels", *CARDS)
"""Fields that plans got after tapes had names: at their defaults they are left out of a name, so that a tape keeps its own."""


def kind_of(plan: Plan) -> Plan:
    """The plan that stands for all that are recorded alike: what is a formula or decides nothing takes its default."""
    left_out = {*FORMULA, *NEUTRAL, *(name for name, decides in ONLY_WITH.items() if not decides(plan))}
    same = {name: Plan.model_fields[name].default for name in left_out}
    folded = {name: fold(plan) for name, fold in FOLDED.items() if name not in left_out}
    return plan.model_copy(update={**same, **folded})


def digest_of(kind: Plan, has_flash: bool) -> str:
    """Name of a kind of plan on cards with, or without, torch's flash kernel: what decides in words, as a digest."""
    unsaid = {name for name in ADDED if getattr(kind, name) == Plan.model_fields[name].default}
    said = kind.model_dump(mode="json", exclude=set(FORMULA) | set(NEUTRAL) | unsaid)
    return sha256(json.dumps({**said, "has_flash": has_flash}, sort_keys=True).encode()).hexdigest()[:DIGITS]
