"""Step time of a method as a multiple of LoRA's, for the same tokens on the same card."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.speed.card import CardShares, Peaks, Rates, every_card, factors_of, kernels_of, peaks_of, rates_of, shares_of
from advisor.speed.constants import bounds
from advisor.speed.exchange import exchange_of, fast_link, slow_link, step_s
from advisor.speed.roofline import Factors, compute_s, counted, dora_factors, launch_times_s, said_of_part, work_of
from advisor.tiers import Tier, refuse_unread
from advisor.values import GpuSpec, Method, ModelSpec, Plan, Quantization, Range

UNIT = Range(low=1.0, high=1.0, source="LoRA is the unit")


def relative_step_time(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> Range | None:
    """Step time of the plan over that of LoRA with the same settings otherwise.

    How much a byte weighs against a FLOP depends on the card: without one, or without its speeds, the range spans the cards in use, and
    launch times, which level the methods out in short steps, and the exchange between several cards are left out.
    None where what is computed is not counted: of a model whose text part has no tables, and of images.
    Raises UnsupportedError for settings of a plan that have no time.
    """
    part = counted(model, plan)
    if part is None:
        return UNIT if plan.method is Method.LORA else None
    refuse_unread(Tier.SPEED, plan)
    if plan.method is Method.LORA:
        return UNIT
    peaks = None if gpu is None else peaks_of(plan, gpu)
    ratios = [*_on_any_card(part, plan)] if gpu is None or peaks is None else [*_on_card(part, plan, gpu, peaks)]
    work = work_of(part, plan)
    dora, spread = dora_factors(plan, work.shape), _spread(plan)
    return Range(
        low=min(ratios) * dora.low * spread.low,
        high=max(ratios) * dora.high * spread.high,
        source=_source(plan, dora.row) + said_of_part(model),
    )


def _on_card(model: ModelSpec, plan: Plan, gpu: GpuSpec, peaks: Peaks) -> Iterator[float]:
    """Between a fast and a slow launch, a fast and a slow link, and cheap and dear dequantisation."""
    lora = lora_of(plan)
    links = [(fast_link(gpu, one), slow_link(gpu, one)) for one in (plan, lora)]
    work, unit, exchange, others = work_of(model, plan), work_of(model, lora), exchange_of(model, plan), exchange_of(model, lora)
    for rates in _ends(plan, peaks, shares_of(gpu.name)):
        for launch_s in (launch_times_s()[0], launch_times_s()[-1]):
            own_s, unit_s = compute_s(work, rates, launch_s), compute_s(unit, rates, launch_s)
            for link, lora_link in zip(*links, strict=True):
                yield step_s(own_s, exchange, link) / step_s(unit_s, others, lora_link)


def _on_any_card(model: ModelSpec, plan: Plan) -> Iterator[float]:
    balance = bounds("card_balance")
    work, unit = work_of(model, plan), work_of(model, lora_of(plan))
    for peaks in (Peaks(balance.low, 1.0), Peaks(balance.high, 1.0)):
        for shares in every_card():
            for rates in _ends(plan, peaks, shares):
                yield compute_s(work, rates, 0.0) / compute_s(unit, rates, 0.0)


def _ends(plan: Plan, peaks: Peaks, shares: CardShares) -> tuple[Rates, Rates]:
    dequantisation, factors = bounds("dequantisation_bytes"), factors_of(kernels_of(plan))
    return rates_of(peaks, shares, factors, dequantisation.low), rates_of(peaks, shares, factors, dequantisation.high)


def lora_of(plan: Plan) -> Plan:
    """The unit: LoRA with the same settings otherwise."""
    return plan.model_copy(update={"method": Method.LORA, "quantization": None, "kbit_prepare": False, "quantized_experts": False})


def _spread(plan: Plan) -> Factors:
    """What is counted misses the measured pairs by so much. DoRA alone is measured, not counted."""
    if plan.method is Method.DORA:
        return Factors()
    row = bounds("implementation_spread")
    return Factors(row.low, row.high)


def _source(plan: Plan, dora_row: str) -> str:
    parts = []
    if plan.method is Method.FULL:
        parts.append(
            f"three passes against two and the optimizer's traffic, counted; spread of measured pairs {_cited('implementation_spread')}"
        )
    if plan.method.is_quantized:
        parts.append(f"expanding {'8-bit' if plan.quantization is Quantization.INT8 else '4-bit'} weights {_cited('dequantisation_bytes')}")
    if plan.method.is_dora:
        parts.append(f"published overhead of DoRA {_cited(dora_row)}")
    return "; ".join(parts)


def _cited(row: str) -> str:
    return f"[{', '.join(bounds(row).evidence)}]"
