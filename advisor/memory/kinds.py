"""Name the kind of a plan: what decides how far a prediction of its memory may be off, in words.

Kinds were chosen by what the errors show (`python -m advisor.accuracy` prints them): a share of all bytes that the allocator holds
scatters less than a share of what moves within a step, and differs by the loop, by checkpointing, by the method, by the base's type and
by eager attention. Rank, shape, optimizer and the fused attention kernels carry no such signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.values import Attention, GpuSpec, Head, Loss, ModelKind, ModelSpec, Plan, Quantization, Sharding, Stack


class Kind(NamedTuple):
    """Facets of a plan; empty where there is nothing to say. Those of `BOUNDARIES` are of no use to each other's errors."""

    cards: str
    maker: str
    code: str
    """Whose model code runs: transformers' modules under every stack but torchtune."""
    family: str
    head: str
    loss: str
    extras: str
    """Dropout, reentrant checkpointing, evaluation, images."""
    base: str
    """Storage of the base that no card has run; 16 and 4 bit have been."""
    weights: str
    method: str
    checkpointing: str
    kernel: str
    loop: str
    outputs: str
    """Of a loop of one's own: a plan says one that keeps them until the next step has made its own; some measured runs did not."""
    loading: str

    def words(self, names: tuple[str, ...]) -> str:
        """The named facets that say something, for people."""
        return ", ".join(value for name in names if (value := getattr(self, name)))


BOUNDARIES = ("cards", "maker", "code", "family", "head", "loss", "extras", "base")
"""Facets that no error crosses: another value of one of them is another kind of run."""
NEEDED = (*BOUNDARIES, "checkpointing", "loading")
"""Facets of which some run must have been, though errors of others may speak beside it."""

ONE_CARD = "one card"
FREED, KEPT = "outputs go with the step", "outputs stay"
IN_THREADS = "4-bit weights loaded in threads"

_CARDS = {
    Sharding.NONE: "several cards that nothing joins",
    Sharding.DDP: ONE_CARD,
    Sharding.FSDP1: "FSDP1",
    Sharding.FSDP2: "FSDP2",
    Sharding.ZERO1: "ZeRO-1",
    Sharding.ZERO2: "ZeRO-2",
    Sharding.ZERO3: "ZeRO-3",
}
"""A replica of DDP runs the very step of one card: same tensors, same kernels, same allocator. What it adds is counted and not estimated,
so that it is no cause of an error of its own: buckets as large as the gradients, and the flat copies of loading, with which the closed
form lies within 0.4 % of 24 dry runs (`python benchmarks/sharded_grid.py --report 200`), and these within 1 % of real processes
(tests/test_real_cards.py). The communicator is outside the allocator and has a margin of its own (`memory.runtime`)."""
_FOUR_BIT = "4-bit base"
_RUN = (Quantization.NF4, Quantization.FP4)
"""Storages of the base that measured runs had: fp4 is nf4 with another code table."""


def kind_of(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, versions: Mapping[str, str] | None = None) -> Kind:
    """The kind of `plan` for `model` on `gpu` (an unknown card is taken for an NVIDIA one) under the libraries `versions`, by default
    the newest."""
    return Kind(
        cards=ONE_CARD if plan.n_gpus == 1 and not plan.sharding.is_zero else _CARDS[plan.sharding],
        maker=gpu.vendor if gpu is not None and gpu.vendor not in ("", "any", "NVIDIA") else "",
        code="torchtune's modules" if plan.stack is Stack.TORCHTUNE else "",
        family=_family(model),
        head=_head(model, plan),
        loss="" if plan.loss is Loss.FULL else f"{plan.loss.value} loss",
        extras=_extras(plan),
        base="" if plan.quantization is None or plan.quantization in _RUN else f"{plan.quantization.value} base",
        weights="16-bit base" if plan.quantization is None else _FOUR_BIT,
        method="DoRA" if plan.method.is_dora else "LoRA" if plan.method.has_adapter else "full fine-tuning",
        checkpointing="checkpointing" if plan.gradient_checkpointing else "no checkpointing",
        kernel="eager attention" if plan.attention is Attention.EAGER else "",
        loop="a loop of one's own" if plan.stack is Stack.PLAIN else "the Trainer's loop",
        outputs=KEPT if plan.stack is Stack.PLAIN else "",
        loading=IN_THREADS if _loads_in_threads(plan, versions) else "",
    )


def _family(model: ModelSpec) -> str:
    if model.kind is ModelKind.ENCODER:
        return "encoder"
    if model.tables is None:
        return "type without tables"
    return "mixture of experts" if any(block.mlp.kind == "moe" for block in model.shape.blocks) else ""


def _head(model: ModelSpec, plan: Plan) -> str:
    own = Head.CLASSIFICATION if model.kind is ModelKind.ENCODER else Head.LM
    head = plan.head or own
    return "" if head is Head.LM else f"{head.value} head"


def _extras(plan: Plan) -> str:
    said = (
        "dropout" if plan.lora_dropout and plan.method.has_adapter else "",
        "reentrant checkpointing" if plan.reentrant else "",
        "evaluation" if plan.eval_micro_batch_size else "",
        "images" if plan.images_per_row else "",
    )
    return ", ".join(word for word in said if word)


def _loads_in_threads(plan: Plan, versions: Mapping[str, str] | None) -> bool:
    """transformers 5.0 reads weights in threads ahead of quantising them (core_model_loading.py, spawn_materialize), so that what
    loading leaves cached differs from run to run; later releases load such models one by one."""
    return plan.quantization is not None and (versions or {}).get("transformers", "").startswith("5.0.")
