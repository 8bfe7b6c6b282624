"""Which shapes to run: the first layers of the model at two depths and two lengths, small enough that they surely fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.architectures.cut import first_layers
from advisor.errors import InvalidInputError
from advisor.memory import estimate_memory
from advisor.speed import step_flops
from advisor.units import format_share, format_size
from advisor.values import GpuSpec, ModelSpec, Plan

FREE_SHARE = 0.8
"""Share of the free memory that the upper end of a cut's estimate may take. Judgement: the rest is for others and for our own errors."""
DEPTHS = (2, 8)
"""Periods of the layer pattern. Judgement: the first and the last layer differ from those between, and times carried to thirty layers
from these lay within 25 % where those from (2, 4) did not (benchmarks/calibrated_times.py)."""
LONG_PERIOD_DEPTHS = (1, 2)
"""The same for patterns of several layers, whose periods are long enough."""
SHORTEST_TOKENS = 16
"""Below this a length says nothing of a longer one (judgement)."""
ACCUMULATED = 2
"""Micro-batches a step: as many as show that gradients are there through the next one."""
CPU_STEP_FLOP = 3e11
"""Largest optimizer step on a CPU: a few seconds on two cores (measured: 0.05 to 0.2 TFLOP/s in bf16)."""


class Cut(NamedTuple):
    """One shape: the model's first layers, and the plan with that shape's batch."""

    layers: int
    model: ModelSpec
    plan: Plan

    @property
    def shape(self) -> str:
        """ "4 layers, 1 × 512 tokens"."""
        plural = "s" if self.layers > 1 else ""
        return f"{self.layers} layer{plural}, {self.plan.micro_batch_size} × {self.plan.seq_len_tokens:,} tokens"


def choose(model: ModelSpec, plan: Plan, free_bytes: int, gpu: GpuSpec | None, on_cpu: bool) -> tuple[Cut, ...]:
    """Two depths at two lengths, deepest and longest first; fewer where the model is too shallow or the length too short.

    Raises InvalidInputError when not even the smallest shape surely fits into `free_bytes`.
    """
    short = plan.model_copy(update={"grad_accum_steps": min(plan.grad_accum_steps, ACCUMULATED)})
    for shallow, deep in _depths(model):
        deepest = first_layers(model, deep)
        for batch in _batches(short):
            fits = estimate_memory(deepest, batch, gpu).high_bytes <= free_bytes * FREE_SHARE
            if fits and not (on_cpu and _worth_shrinking(deepest, batch)):
                halved = batch.model_copy(update={"seq_len_tokens": max(batch.seq_len_tokens // 2, 1)})
                lengths = (batch, halved) if batch.seq_len_tokens > 1 else (batch,)
                depths = (deep, shallow) if deep != shallow else (deep,)
                return tuple(Cut(layers, first_layers(model, layers), shape) for layers in depths for shape in lengths)
    least = estimate_memory(first_layers(model, 1), _smallest(short), gpu).high_bytes
    raise InvalidInputError(
        f"{model.id}: even one layer may take {format_size(least)}, and {format_share(FREE_SHARE)} of the {format_size(free_bytes)} free "
        "now is less; free some memory, or choose a smaller model"
    )


def whole(model: ModelSpec, plan: Plan) -> tuple[Cut, ...]:
    """The plan's own micro-batch on the whole model."""
    return (Cut(model.layers, model, plan.model_copy(update={"grad_accum_steps": min(plan.grad_accum_steps, ACCUMULATED)})),)


def pattern(model: ModelSpec) -> tuple[int, int]:
    """(layers before the pattern begins, layers of one period): (0, 1) where all are equal."""
    kinds = [block.model_copy(update={"count": 1}) for block in model.shape.blocks for _ in range(block.count)]
    best = (len(kinds), 1)
    for period in range(1, len(kinds) + 1):
        start = len(kinds) - period
        while start > 0 and kinds[start - 1] == kinds[start - 1 + period]:
            start -= 1
        if start + period < sum(best):
            best = (start, period)
    return best


def _depths(model: ModelSpec) -> Iterator[tuple[int, int]]:
    """(shallow, deep) in layers, the wanted pair first, then ever smaller ones."""
    start, period = pattern(model)
    wanted = DEPTHS if period <= max(DEPTHS) // 2 else LONG_PERIOD_DEPTHS
    pairs = [(start + shallow * period, start + deep * period) for shallow, deep in (wanted, LONG_PERIOD_DEPTHS)]
    pairs += [(1, 2), (1, 1)]
    seen = set()
    for shallow, deep in pairs:
        pair = (min(shallow, model.layers), min(deep, model.layers))
        if pair not in seen:
            seen.add(pair)
            yield pair


def _batches(plan: Plan) -> Iterator[Plan]:
    """The plan's batch, then fewer sequences, then shorter ones."""
    yield plan
    while plan.micro_batch_size > 1:
        plan = plan.model_copy(update={"micro_batch_size": plan.micro_batch_size // 2})
        yield plan
    while plan.seq_len_tokens // 2 >= SHORTEST_TOKENS:
        plan = plan.model_copy(update={"seq_len_tokens": plan.seq_len_tokens // 2})
        yield plan


def _smallest(plan: Plan) -> Plan:
    *_, last = _batches(plan)
    return last


def _worth_shrinking(model: ModelSpec, plan: Plan) -> bool:
    """A step would take a CPU too long, and a smaller batch is to be had."""
    return step_flops(model, plan) > CPU_STEP_FLOP and plan.seq_len_tokens // 2 >= SHORTEST_TOKENS
