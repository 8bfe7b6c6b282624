"""What is noticed about a run beside the size of its step: dropout, evaluation, saving."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.configs.situation import Checked
from advisor.memory.host_memory import said_of_host
from advisor.stacks import stacked_targets
from advisor.stacks.rooms import setting_for
from advisor.units import format_size
from advisor.values import DType, Finding, Fit, Level, Masters, Method, Phase


def dora_dropout(c: Checked) -> Iterator[Finding]:
    """peft's fast path for DoRA runs only without dropout (fact D5)."""
    if not c.plan.method.is_dora or not c.plan.lora_dropout or not c.closed_form:
        return
    saved = c.saving(lora_dropout=0.0)
    yield Finding(
        id="dora-dropout",
        level=Level.WARNING,
        message=f"DoRA with dropout {c.plan.lora_dropout:g}: peft multiplies every base weight twice; without, {format_size(saved)} less",
        hint="set the adapter's dropout to 0",
        numbers={"lora_dropout": c.plan.lora_dropout, "saved_bytes": saved},
        evidence=("D5",),
    )


def experts_dropout(c: Checked) -> Iterator[Finding]:
    """peft stops at dropout on experts that are one stacked parameter (peft 0.21 tuners/lora/layer.py `ParamWrapper`)."""
    stacked = stacked_targets(c.model, c.plan.target_modules) if c.plan.method.has_adapter and c.plan.lora_dropout else ()
    if not stacked:
        return
    yield Finding(
        id="experts-dropout",
        level=Level.WARNING,
        message=f"peft refuses dropout {c.plan.lora_dropout:g} on stacked experts ({', '.join(stacked)}); transformers 5 stacks them",
        hint="set the adapter's dropout to 0",
        numbers={"lora_dropout": c.plan.lora_dropout},
    )


def evaluation_larger(c: Checked) -> Iterator[Finding]:
    """Evaluation is the highest phase, and does not fit for sure: its batch is the Trainer's 8 unless the file says another."""
    size = c.plan.eval_micro_batch_size
    peaks = {phase.phase: phase.allocated_bytes for phase in c.memory.phases}
    evaluated = peaks.pop(Phase.EVALUATION, 0)
    trained = max(peaks.values(), default=0)
    if size is None or evaluated <= trained or c.fit is Fit.FITS:
        return
    smaller = f"evaluate with batches of {min(size - 1, c.plan.micro_batch_size)}" if size > 1 else setting_for(c.plan.stack, "fused-loss")
    yield Finding(
        id="evaluation-larger",
        level=Level.INFO if c.fit is None else Level.WARNING,
        message=f"evaluation decides: batches of {size} take {format_size(evaluated)} allocated, training {format_size(trained)}",
        hint=f"{smaller}; metrics beside the loss (compute_metrics) would keep the logits of every batch on top",
        numbers={"eval_batch_size": size, "evaluation_bytes": evaluated, "training_bytes": trained},
    )


def host_loads(c: Checked) -> Iterator[Finding]:
    """Every process of a node loads a model of its own, where one setting makes it one. Judgement: worth a warning where that is more than
    all cards of the node hold."""
    host = c.memory.host
    if host is None or not (host.mends or host.lacks or host.training):
        return
    much = c.gpu is not None and host.load_bytes > host.processes * c.gpu.usable_bytes
    level = Level.ERROR if host.lacks else Level.WARNING if host.is_open or (host.mends and much) else Level.INFO
    hint = f"set {host.mends}: one process of each node reads the weights" if host.mends else ""
    numbers = {"load_bytes": host.load_bytes, "training_bytes": host.training_bytes, "processes": host.processes}
    yield Finding(id="host-memory", level=level, message=said_of_host(host), hint=hint, numbers=numbers)


def saved_whole(c: Checked) -> Iterator[Finding]:
    """Shards are gathered unit by unit, and put together on the host (accelerate 1.15 utils/dataclasses.py: FULL_STATE_DICT with
    offload_to_cpu; DeepSpeed runtime/engine.py `_zero3_consolidated_16bit_state_dict`)."""
    if c.plan.method is not Method.FULL or not c.plan.sharding.shards_weights:
        return
    size = c.model.params * (DType.FP32 if c.plan.masters is Masters.LIFTED else DType.BF16).size_bytes
    message = f"a whole checkpoint is put together in the first process's host memory: {format_size(size)} beside training"
    yield Finding(id="saved-whole", level=Level.INFO, message=message, hint="sharded checkpoints need none", numbers={"bytes": size})
