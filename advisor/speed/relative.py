"""Step time of a method as a multiple of LoRA's, for the same tokens on the same card."""

from __future__ import annotations

from advisor.speed.card import Peaks, lopsided, peaks_of
from advisor.speed.constants import bounds
from advisor.speed.roofline import Factors, device_s, dora_factors, launch_s, work_of
from advisor.tiers import Tier, refuse_unread
from advisor.values import GpuSpec, Method, ModelSpec, Plan, Quantization, Range

UNIT = Range(low=1.0, high=1.0, source="LoRA is the unit")


def relative_step_time(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> Range | None:
    """Step time of the plan over that of LoRA with the same settings otherwise.

    How much a byte weighs against a FLOP depends on the card: without one, or without its speeds, the range spans the cards in use, and
    launch times, which level the methods out in short steps, are left out. So is the exchange between several cards.
    None for a model without tables, whose operations are not counted.
    Raises UnsupportedError for settings of a plan that have no time.
    """
    if model.tables is None:
        return UNIT if plan.method is Method.LORA else None
    refuse_unread(Tier.SPEED, plan)
    if plan.method is Method.LORA:
        return UNIT
    lora = plan.model_copy(update={"method": Method.LORA, "quantization": None, "kbit_prepare": False})
    work, unit = work_of(model, plan), work_of(model, lora)
    peaks = None if gpu is None else peaks_of(plan, gpu)
    if peaks is None:
        ratios = [device_s(work, rates) / device_s(unit, rates) for card in _cards_in_use() for rates in lopsided(card)]
    else:
        floors = (launch_s(unit, plan, slow=False), launch_s(unit, plan, slow=True))
        ratios = [
            max(device_s(work, rates), floor_s) / max(device_s(unit, rates), floor_s) for rates in lopsided(peaks) for floor_s in floors
        ]
    dora, spread = dora_factors(plan, work.shape), _spread(plan)
    return Range(low=min(ratios) * dora.low * spread.low, high=max(ratios) * dora.high * spread.high, source=_source(plan, dora.row))


def _spread(plan: Plan) -> Factors:
    """What is counted misses the measured pairs by so much. DoRA alone is measured, not counted."""
    if plan.method is Method.DORA:
        return Factors()
    row = bounds("implementation_spread")
    return Factors(row.low, row.high)


def _cards_in_use() -> tuple[Peaks, ...]:
    balance = bounds("card_balance")
    return Peaks(balance.low, 1.0), Peaks(balance.high, 1.0)


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
