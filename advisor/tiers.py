"""Declare which fields of a plan each tier reads, and refuse a plan that sets any other.

Every field of `Plan` stands in the table of every tier exactly once: it is read, or it is proved to leave the tier's answer alone, or
its values that the tier does not read are refused with the reason. So a tier never answers another question than the one asked.
tests/test_tiers.py walks every field through every tier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from advisor.errors import UnsupportedError
from advisor.values import Head, Mixers, Plan, Quantization, Sharding, Shift, Stack


class Tier(str, Enum):
    """The ways to answer for a plan."""

    ESTIMATE = "estimate"
    """Memory in closed form."""
    TRACE = "trace"
    """Memory by a dry run of the installed libraries."""
    TAPE = "recording"
    """Memory from what such a run recorded."""
    CALIBRATE = "calibrate"
    """A short training on the hardware at hand."""
    SPEED = "speed"
    """Time of a step."""


Reason = Callable[[Plan], str]
"""Why a value is not read, in words that follow the name of the tier; empty where it is read."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a tier does with each field of a plan."""

    reads: frozenset[str]
    neutral: Mapping[str, str]
    """Field → why it changes nothing that the tier answers."""
    limits: Mapping[str, Reason]
    """Field → why this value of it is not read."""
    said: Mapping[str, Reason] = field(default_factory=dict)
    """Field → what is to be said beside the answer: the field is read as something near it."""


SHAPE = ("micro_batch_size", "seq_len_tokens", "grad_accum_steps")
ADAPTER = ("method", "rank", "target_modules", "lora_dropout", "adapter_dtype")
WEIGHTS = ("base_dtype", "autocast", "autocast_dtype", "quantization", "double_quant", "kbit_prepare", "quantized_experts")
LOOP = ("optimizer", "gradient_checkpointing", "attention", "padding", "kv_cache_in_outputs", "loss", "stack")
IMAGES = ("images_per_row", "image_size_pixels")
CARDS = ("n_gpus", "sharding")
SHARED = ("shard_group", "reshard_after_forward", "sync_each_batch", "offload", "deepspeed")
ENGINE = ("masters", "use_reentrant")
ON_THE_HOST = {"loads_on_rank_0": "who reads the weights decides the host's memory, not the card's"}
SCALE = dict.fromkeys(("alpha", "use_rslora"), "a factor on the adapter's output: no tensor of its own")
NO_MIXERS = "no type with a closed form has such layers"


def _unless(name: str, meaning: str, *read: object) -> Reason:
    """A limit: values of the field `name` other than `read` are refused as `meaning`."""
    return lambda plan: "" if getattr(plan, name) in read else meaning


def _unplayed_engine(plan: Plan) -> str:
    if plan.sharding.is_zero:
        return "does not run DeepSpeed; advise estimate prices it"
    return "does not know what several cards share: say --shard" if plan.n_gpus > 1 and plan.sharding is Sharding.NONE else ""


def _unrecorded_engine(plan: Plan) -> str:
    if plan.sharding.is_zero:
        return "does not run DeepSpeed, and nothing else prices it for this model; --shard fsdp shares as much"
    return _unplayed_engine(plan)


def _loop_of_another(plan: Plan) -> str:
    if plan.stack in (Stack.HF, Stack.TRL, Stack.PLAIN):
        return ""
    return f"runs the steps of transformers and peft in place of {plan.stack.value}'s own"


def _packed_layers(plan: Plan) -> str:
    packed = plan.quantization in (Quantization.AWQ, Quantization.GPTQ)
    return "does not run GPT-QModel's layers; advise estimate prices them" if packed else ""


_HEADS = (None, Head.LM)


def _images(meaning: str) -> dict[str, Reason]:
    """Limits of a tier that knows text alone."""
    return {"images_per_row": _unless("images_per_row", meaning, 0), "image_size_pixels": _unless("image_size_pixels", meaning, None)}


def _losses_of_embeddings(plan: Plan) -> str:
    """The objectives of embeddings (contrastive, distillation) hold pairs of sequences at once."""
    return (
        "knows no loss of an embedding; say the head that is trained: lm, mlm, classification or tokens"
        if plan.head is Head.EMBEDDING
        else ""
    )


def _unmoved(plan: Plan) -> str:
    if plan.offloads_optimizer or plan.offloads_params:
        return "moves no states or weights to the host; advise estimate prices it"
    return "moves activations to the host on one card alone" if plan.offload and plan.n_gpus > 1 else ""


_UNPLAYED: dict[str, Reason] = {
    "shard_group": lambda plan: "" if plan.shard_group is None or plan.sharding is Sharding.FSDP2 else "does not run FSDP1 with replicas",
    "reshard_after_forward": lambda plan: (
        "" if plan.reshard_after_forward or plan.sharding is Sharding.FSDP2 else "does not run FSDP1's units whole between passes"
    ),
    "offload": _unmoved,
}

_RUN = Fields(
    reads=frozenset((*SHAPE, *IMAGES, *ADAPTER, *WEIGHTS, *LOOP, *ENGINE, "n_gpus", "labels", "eval_micro_batch_size", "mixers"))
    - {"stack", "quantization", "quantized_experts"}
    | {"sync_each_batch"},
    neutral={**SCALE, **ON_THE_HOST, "deepspeed": "read under ZeRO alone, which is not played"},
    limits={
        "sharding": _unplayed_engine,
        **_UNPLAYED,
        "quantization": _packed_layers,
        "quantized_experts": _unless("quantized_experts", "does not run quantised stacked experts", False),
        "head": _losses_of_embeddings,
        "shift": _unless("shift", "runs the loss of the installed transformers", Shift.LABELS),
    },
    said={"stack": _loop_of_another},
)
"""What a dry run does with them."""

FIELDS: Mapping[Tier, Fields] = {
    Tier.ESTIMATE: Fields(
        reads=frozenset((*SHAPE, *ADAPTER, *WEIGHTS, *LOOP, *CARDS, *SHARED, *ENGINE, "labels", "shift", "eval_micro_batch_size")),
        neutral={**SCALE, **ON_THE_HOST, "mixers": NO_MIXERS},
        limits={
            "head": _losses_of_embeddings,
            **_images("prices text alone; advise trace runs images"),
        },
    ),
    Tier.TRACE: _RUN,
    Tier.TAPE: Fields(
        reads=_RUN.reads,
        neutral=_RUN.neutral,
        limits={**_RUN.limits, "sharding": _unrecorded_engine},
        said=_RUN.said,
    ),
    Tier.CALIBRATE: Fields(
        reads=frozenset((*SHAPE, *ADAPTER, *WEIGHTS, *LOOP, *CARDS, *SCALE, "use_reentrant"))
        - {"stack", "quantization", "quantized_experts"},
        neutral={**ON_THE_HOST},
        limits={
            "quantization": _packed_layers,
            "quantized_experts": _unless("quantized_experts", "does not run quantised stacked experts", False),
            "head": _unless("head", "runs a language model only", *_HEADS),
            "labels": _unless("labels", "runs a language model only", 2),
            "shift": _unless("shift", "runs the loss of the installed transformers", Shift.LABELS),
            "eval_micro_batch_size": _unless("eval_micro_batch_size", "does not run evaluation", None),
            "mixers": _unless("mixers", "runs what is installed", Mixers.INSTALLED),
            **_images("runs text alone"),
            "masters": _unless("masters", "does not run with fp32 masters of a sharding engine", Plan().masters),
            **{name: _unless(name, "runs engines with their defaults", getattr(Plan(), name)) for name in SHARED},
        },
        said={"stack": _loop_of_another},
    ),
    Tier.SPEED: Fields(
        reads=frozenset((*SHAPE, *ADAPTER, *WEIGHTS, *LOOP, *CARDS, *SHARED, "use_reentrant"))
        - {"deepspeed", "stack", "kv_cache_in_outputs", "padding", "quantization", "double_quant", "lora_dropout"},
        neutral={
            **SCALE,
            "mixers": NO_MIXERS,
            "quantization": "all kinds are expanded at one published rate",
            "double_quant": "the scales are under 2 % of the bytes read",
            "stack": "the loop's own time is inside the range",
            "kv_cache_in_outputs": "the cache is held, not computed anew",
            "padding": "tokens are those that the card computes, padding among them",
            "lora_dropout": "one elementwise operation a module, inside the range",
            "shift": "one copy of the logits, inside the range",
            "eval_micro_batch_size": "the time is that of a training step",
            "masters": "the optimizer's traffic is inside the range",
            **ON_THE_HOST,
            "deepspeed": "how large the pieces of an exchange are is inside the range",
        },
        limits={
            **_images("counts the operations of text alone"),
            "head": _unless("head", "counts the head of a language model only", *_HEADS),
            "labels": _unless("labels", "counts the head of a language model only", 2),
        },
    ),
}


def refuse_unread(tier: Tier, plan: Plan) -> None:
    """Raise UnsupportedError, one line, where `plan` sets a field to a value that `tier` does not read."""
    for name, reason in FIELDS[tier].limits.items():
        why = reason(plan)
        if why:
            shown = getattr(plan, name)
            words = ",".join(getattr(each, "value", str(each)) for each in (shown if isinstance(shown, tuple) else (shown,)))
            raise UnsupportedError(f"{name} {words}: {tier.value} {why}")


def said_beside(tier: Tier, plan: Plan) -> tuple[str, ...]:
    """What the tier reads as something near it, one line each."""
    return tuple(f"{name}: {tier.value} {why}" for name, reason in FIELDS[tier].said.items() if (why := reason(plan)))
