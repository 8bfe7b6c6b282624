"""Every tier says what it does with every field of a plan, and does it: a field moves the answer, is proved to leave it, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from advisor import hub
from advisor.devices import load_gpu
from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.speed import step_time
from advisor.tiers import FIELDS, Tier, refuse_unread, said_beside
from advisor.values import ModelSpec, Plan

MODEL = hub.load_model("llama-3.2-1b")
OTHER_MODELS = {"kv_cache_in_outputs": hub.load_model("pythia-1b"), "quantized_experts": hub.load_model("qwen3-30b-a3b")}
"""The first turns a part of each head by its rotary embedding, so that a cache of keys is a copy; the second has stacked experts."""
CARD = load_gpu("a100 80gb sxm")
TWO_RATES = CARD.model_copy(update={"fp16_flop_per_s": 2 * (CARD.bf16_flop_per_s or 0)})
"""A card that multiplies one 16-bit type faster than the other."""

LORA = {"method": "lora"}
QLORA = {"method": "qlora", "quantization": "nf4", "double_quant": False}
FULL = {"method": "full"}
KEEPING = {**LORA, "gradient_checkpointing": False, "loss": "fused"}
"""Nothing but the blocks decides the peak."""
FOUR = {"n_gpus": 4, "sharding": "ddp"}
SEEN = {**LORA, "images_per_row": 1, "image_size_pixels": (64, 64)}

CHANGES: dict[str, tuple[dict[str, object], object]] = {
    # field: the plan on which it matters, and another value of it
    "method": (LORA, "dora"),
    "rank": (LORA, 64),
    "alpha": (LORA, 128.0),
    "target_modules": (LORA, ("q_proj",)),
    "use_rslora": (LORA, True),
    "lora_dropout": (KEEPING, 0.1),
    "adapter_dtype": (LORA, "bf16"),
    "base_dtype": (LORA, "fp32"),
    "autocast": ({**LORA, "base_dtype": "fp32"}, True),
    "autocast_dtype": ({**KEEPING, "base_dtype": "bf16", "autocast": True, "attention": "eager"}, "fp16"),
    "quantization": (QLORA, "int8"),
    "double_quant": (QLORA, True),
    "kbit_prepare": (QLORA, True),
    "quantized_experts": (QLORA, True),
    "optimizer": (FULL, "adamw_torch_fused"),
    "micro_batch_size": (LORA, 2),
    "seq_len_tokens": (LORA, 4096),
    "grad_accum_steps": (FULL, 2),
    "images_per_row": (SEEN, 2),
    "image_size_pixels": (SEEN, (128, 128)),
    "gradient_checkpointing": (LORA, False),
    "use_reentrant": ({**QLORA, "n_gpus": 4, "sharding": "fsdp1", "loss": "fused", "micro_batch_size": 16}, True),
    "attention": (KEEPING, "eager"),
    "mixers": (LORA, "torch"),
    "padding": (KEEPING, True),
    "kv_cache_in_outputs": ({**KEEPING, "padding": True}, True),
    "head": (LORA, "classification"),
    "labels": ({**FULL, "head": "classification"}, 100_000),  # a weight matrix of hidden x labels
    "loss": (LORA, "fused"),
    "shift": (LORA, "logits"),
    "eval_micro_batch_size": (LORA, 8),
    "stack": (LORA, "plain"),
    "n_gpus": ({**FULL, "n_gpus": 2, "sharding": "fsdp2"}, 4),
    "sharding": ({**LORA, **FOUR}, "fsdp2"),
    "shard_group": ({**FULL, "n_gpus": 4, "sharding": "fsdp2"}, 2),
    "reshard_after_forward": ({**FULL, "n_gpus": 4, "sharding": "fsdp2"}, False),
    "sync_each_batch": ({**FULL, "n_gpus": 4, "sharding": "fsdp2", "grad_accum_steps": 2}, True),
    "offload": ({**FULL, "n_gpus": 4, "sharding": "fsdp2"}, ("optimizer", "params")),
    "deepspeed": ({**FULL, "n_gpus": 4, "sharding": "zero2", "masters": "copied"}, {"reduce_bucket_params": 1000}),
    "loads_on_rank_0": ({**FULL, "n_gpus": 4, "sharding": "fsdp2"}, True),
    "masters": ({**FULL, "n_gpus": 4, "sharding": "fsdp2", "autocast": True}, "lifted"),
}
ANSWERS: dict[Tier, Callable[[ModelSpec, Plan], object]] = {
    # The dry run is walked in tests/test_trace.py's own rows; here its table alone.
    Tier.ESTIMATE: lambda model, plan: estimate_memory(model, plan, CARD).phases,
    Tier.SPEED: lambda model, plan: step_time(model, plan, TWO_RATES).seconds_per_step,
}


@pytest.mark.parametrize("tier", Tier)
def test_every_field_stands_in_the_table_once(tier: Tier) -> None:
    table = FIELDS[tier]
    named = [*table.reads, *table.neutral, *table.limits, *table.said]
    assert sorted(named) == sorted(Plan.model_fields)


def test_every_field_is_walked() -> None:
    assert CHANGES.keys() == Plan.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("tier", ANSWERS, ids=lambda tier: tier.value)
def test_a_field_moves_the_answer_or_leaves_it_or_is_refused(tier: Tier, name: str) -> None:
    settings, other = CHANGES[name]
    first = Plan.model_validate(settings)
    changed = Plan.model_validate({**settings, name: other})
    table, answer = FIELDS[tier], partial(ANSWERS[tier], OTHER_MODELS.get(name, MODEL))
    if name in table.limits and table.limits[name](changed):
        with pytest.raises(UnsupportedError):
            answer(changed)
        return
    if any(reason(first) for reason in table.limits.values()):
        with pytest.raises(UnsupportedError):
            answer(first)
        return
    assert (answer(first) == answer(changed)) == (name in table.neutral), name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**FULL, "n_gpus": 4, "sharding": "zero3"}, "does not run DeepSpeed"),
        ({**LORA, "shift": "logits"}, "loss of the installed transformers"),
    ],
)
def test_the_dry_run_refuses_what_it_does_not_run(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        refuse_unread(Tier.TRACE, Plan.model_validate(settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sharding": "zero3"}, "does not run DeepSpeed.*--shard fsdp shares as much"),
        ({"sharding": "none"}, "say --shard"),
        ({"sharding": "fsdp2", "offload": ("optimizer", "params")}, "moves no states or weights to the host"),
        ({"sharding": "fsdp1", "reshard_after_forward": False}, "FSDP1"),
    ],
)
def test_a_recording_refuses_what_no_dry_run_runs(settings: dict[str, object], words: str) -> None:
    plan = Plan.model_validate({**FULL, "n_gpus": 4, **settings})
    with pytest.raises(UnsupportedError, match=words):
        refuse_unread(Tier.TAPE, plan)


@pytest.mark.parametrize("stack", ["torchtune", "axolotl", "llamafactory", "ms-swift"])
def test_the_dry_run_says_whose_steps_it_runs(stack: str) -> None:
    assert stack in said_beside(Tier.TRACE, Plan(stack=stack))[0]
    assert said_beside(Tier.TRACE, Plan(stack="hf")) == ()
