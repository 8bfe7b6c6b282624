"""Times from rates that were achieved on the card itself: what a micro-batch asks for, and how long that takes there."""

from __future__ import annotations

from typing import NamedTuple

from advisor.speed.flops import head_token_flops, step_flops
from advisor.speed.shape import shape_of
from advisor.speed.traffic import step_traffic
from advisor.values import ModelSpec, Plan
from advisor.values.card import StepRates

MARGIN_SHARE = 0.25
"""How far a time may lie from what the rates say, at least: the bar that benchmarks/calibrated_times.py holds them to."""


class MicroWork(NamedTuple):
    """What one micro-batch asks of one card, and the optimizer's step once."""

    block_flops: float
    """Of the layers; their elementwise operations take time in proportion."""
    head_flops: float
    """Of the output head, and the loss with it: few products, much traffic, so at a rate of its own."""
    passes: float
    """What costs the same however many tokens there are: layers that are launched; with a quantised base or DoRA weights that are
    dequantised or normed instead."""
    optimizer_bytes: float

    @property
    def flops(self) -> float:
        return self.block_flops + self.head_flops


def micro_work(model: ModelSpec, plan: Plan) -> MicroWork:
    micro = plan.model_copy(update={"grad_accum_steps": 1})
    shape = shape_of(model, plan.target_modules)
    traffic = step_traffic(shape, model, micro)
    passes = float(shape.layers)
    if plan.method.is_quantized:
        passes = traffic.dequantised_weights
    elif plan.method.is_dora:
        passes = float(shape.wrapped_weights)
    head_flops = head_token_flops(shape, plan) * plan.micro_batch_size * plan.seq_len_tokens
    return MicroWork(step_flops(model, micro) - head_flops, head_flops, passes, traffic.optimizer_bytes)


def micro_seconds(work: MicroWork, rates: StepRates) -> float:
    """Forward and backward of one micro-batch."""
    return work.block_flops * rates.s_per_block_flop + work.head_flops * rates.s_per_head_flop + work.passes * rates.s_per_pass


def step_seconds(model: ModelSpec, plan: Plan, rates: StepRates) -> float:
    """One optimizer step with all of its micro-batches."""
    work = micro_work(model, plan)
    return plan.grad_accum_steps * micro_seconds(work, rates) + work.optimizer_bytes * rates.s_per_optimizer_byte
