"""The work of one step and the time that it takes at given rates.

A step takes as long as its matrix products (or the reading of their weights, where that is slower), its attention, and its elementwise
traffic, one after the other as eager PyTorch runs them; never less than Python needs to launch it; then the optimizer.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures.text_part import text_part
from advisor.speed.card import Rates
from advisor.speed.constants import bounds
from advisor.speed.flops import attention_flops, product_flops
from advisor.speed.shape import Shape, shape_of
from advisor.speed.traffic import Traffic, step_traffic
from advisor.values import ModelSpec, Plan


class Work(NamedTuple):
    """What one optimizer step asks of one card."""

    product_flops: float
    attention_flops: float
    traffic: Traffic
    layer_passes: int
    """Layers that Python launches: of every micro-batch."""
    shape: Shape


class Factors(NamedTuple):
    """A multiple of the time, and the row of speed.json that it is from."""

    low: float = 1.0
    high: float = 1.0
    row: str = ""


def counted(model: ModelSpec, plan: Plan) -> ModelSpec | None:
    """The model whose operations are those of the plan's step: `model`, or the decoder of text inside where a step is of text alone; None
    where they are not counted."""
    return None if model.tables is None and plan.images_per_row else text_part(model)


def said_of_part(model: ModelSpec) -> str:
    """What a source adds where not the whole model is counted."""
    return "" if model.tables is not None else "; the text part's operations alone are counted"


def work_of(model: ModelSpec, plan: Plan) -> Work:
    shape = shape_of(model, plan.target_modules)
    traffic = step_traffic(shape, model, plan)
    return Work(product_flops(model, plan), attention_flops(model, plan), traffic, shape.layers * plan.grad_accum_steps, shape)


def compute_s(work: Work, rates: Rates, launch_s_per_layer: float, scale: float = 1.0) -> float:
    """Seconds of one step on one card, before DoRA and the exchange with other cards, on a card that takes `scale` times as long.

    A slow card does not slow Python down: `launch_s_per_layer` is not scaled.
    """
    traffic = work.traffic
    products_s = max(work.product_flops / rates.product_flop_per_s, traffic.weights_bytes / rates.peak_bytes_per_s)
    passes_s = (
        products_s
        + work.attention_flops / rates.attention_flop_per_s
        + traffic.stream_bytes / rates.stream_bytes_per_s
        + traffic.dequantised_weights / rates.dequantised_per_s
    )
    return max(scale * passes_s, work.layer_passes * launch_s_per_layer) + scale * traffic.optimizer_bytes / rates.optimizer_bytes_per_s


def launch_times_s() -> tuple[float, float, float]:
    """Seconds that Python needs to launch a layer of a micro-batch, whatever the card: fast, usual and slow."""
    ends, usual = bounds("host_s_per_layer"), bounds("usual_host_s_per_layer")
    return ends.low, usual.low, ends.high


def dora_factors(plan: Plan, shape: Shape) -> Factors:
    """DoRA over LoRA as published: by the share of the blocks' weights that is wrapped."""
    if not plan.method.is_dora:
        return Factors()
    name = "dora_few" if shape.wrapped_weights <= shape.stored_weights * bounds("dora_few_share").high else "dora_many"
    return Factors(bounds(name).low, bounds(name).high, name)
