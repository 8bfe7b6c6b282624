"""The work of one step and the time that it takes at given rates.

A step takes as long as its matrix products at the card's peak (or the reading of their weights, where that is slower), and then its
elementwise traffic at the card's bandwidth, one after the other as eager PyTorch runs them.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.speed.card import Rates
from advisor.speed.constants import bounds
from advisor.speed.flops import step_flops
from advisor.speed.shape import Shape, shape_of
from advisor.speed.traffic import Traffic, step_traffic
from advisor.values import Method, ModelSpec, Plan, Sharding

FSDP_OVERHEAD_TOKENS = 8192
"""Tokens of the micro-batch that `fsdp_overhead` in speed.json was measured at."""


class Work(NamedTuple):
    """What one optimizer step asks of one card."""

    flops: float
    traffic: Traffic
    shape: Shape


class Factors(NamedTuple):
    """A multiple of the time, and the row of speed.json that it is from."""

    low: float = 1.0
    high: float = 1.0
    row: str = ""


def work_of(model: ModelSpec, plan: Plan) -> Work:
    shape = shape_of(model, plan.target_modules)
    return Work(step_flops(model, plan), step_traffic(shape, model, plan), shape)


def device_s(work: Work, rates: Rates) -> float:
    """Seconds of one step on one card, before DoRA, launch times and the other cards."""
    traffic = work.traffic
    products_s = max(work.flops / rates.flop_per_s, traffic.weights_bytes / rates.bytes_per_s)
    return products_s + traffic.stream_bytes / rates.bytes_per_s + traffic.dequantised_weights / rates.dequantised_per_s


def launch_s(work: Work, plan: Plan, *, slow: bool) -> float:
    """Seconds that Python needs to launch a step, whatever the card."""
    host = bounds("host_s_per_layer")
    return work.shape.layers * plan.grad_accum_steps * (host.high if slow else host.low)


def dora_factors(plan: Plan, shape: Shape) -> Factors:
    """DoRA over LoRA as published: by the share of the blocks' weights that is wrapped."""
    if not plan.method.is_dora:
        return Factors()
    name = "dora_few" if shape.wrapped_weights <= shape.stored_weights * bounds("dora_few_share").high else "dora_many"
    return Factors(bounds(name).low, bounds(name).high, name)


def exchange_factors(plan: Plan) -> Factors:
    """What the exchange between cards adds. The shards of a micro-batch are gathered once, however many tokens it has."""
    if plan.sharding is Sharding.NONE:
        return Factors()
    if plan.sharding is Sharding.DDP and plan.method is not Method.FULL:
        row = bounds("ddp_adapter_overhead")
        return Factors(1 + row.low, 1 + row.high, "ddp_adapter_overhead")
    row = bounds("fsdp_overhead")
    scale = FSDP_OVERHEAD_TOKENS / (plan.micro_batch_size * plan.seq_len_tokens)
    return Factors(1 + row.low * scale, 1 + row.high * scale, "fsdp_overhead")
