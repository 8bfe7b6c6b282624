"""What runs on the card itself say of an estimate: its interval, term by term, and the context of the process."""

from __future__ import annotations

from advisor.memory.runtime import communicators_of
from advisor.units import format_difference, format_share
from advisor.values import GpuSpec, Interval, MemoryBreakdown, ModelSpec, Plan
from advisor.values.card import CardCalibration, Residual
from advisor.values.memory import MOVING_TERMS

OTHER_SHAPES_SHARE = 0.03
"""Added on either side of what was measured, because it was measured at other shapes. It is the bar that the extrapolation from a cut to
a deeper model is held to (tests/test_calibrate_cpu.py)."""


def narrowed(memory: MemoryBreakdown, model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> MemoryBreakdown:
    """`memory` with the interval of the calibrations that speak for it, and with the communicators of several cards, which none of them
    measured."""
    found, beside = _narrowed(memory, model, plan, gpu), communicators_of(plan, gpu)
    interval = found.interval.model_copy(update={"context_bytes": found.interval.context_bytes + beside.margin_bytes})
    return found.model_copy(update={"communicator_bytes": beside.context_bytes, "interval": interval})


def _narrowed(memory: MemoryBreakdown, model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> MemoryBreakdown:
    """`memory` as it is where no calibration speaks for it.

    The expected bytes stay what their formulas say: a calibration bounds their error, it does not correct a total.
    """
    if gpu is None or not gpu.calibrations:
        return memory
    like = gpu.calibrations_of(model.model_type, plan.kind)
    context_bytes = next((entry.context_bytes for entry in gpu.calibrations if entry.context_bytes is not None), None)
    update: dict[str, object] = {}
    margin_bytes = memory.interval.context_bytes
    if context_bytes is not None:
        update["context_bytes"], margin_bytes = context_bytes, 0
    residuals = [residual for entry in like for residual in _residuals_of(entry, memory)]
    if residuals:
        update["interval"] = _interval(memory, residuals, margin_bytes, like)
    elif context_bytes is not None:
        update["interval"] = memory.interval.model_copy(update={"context_bytes": margin_bytes})
    return memory.model_copy(update=update)


def _residuals_of(entry: CardCalibration, memory: MemoryBreakdown) -> tuple[Residual, ...]:
    """Of the phase that peaks, by the tier that the memory is from."""
    residuals = entry.traced_residuals if memory.source == "trace" else entry.residuals
    return tuple(residual for residual in residuals if residual.phase is memory.peak_phase)


def _resting_margin(memory: MemoryBreakdown, residuals: list[Residual]) -> int:
    """Weights, adapters and states are off by their own shares."""
    shares: dict[str, float] = {}
    for residual in residuals:
        if residual.term != "moving":
            shares[residual.term] = max(shares.get(residual.term, 0.0), abs(residual.low_share), abs(residual.high_share))
    return int(sum(term.bytes * shares.get(term.term, 0.0) for term in memory.terms if term.term not in MOVING_TERMS))


def _interval(memory: MemoryBreakdown, residuals: list[Residual], margin_bytes: int, like: tuple[CardCalibration, ...]) -> Interval:
    """What moves is off by its own share, and what rests by its own; both as a share of what is reserved."""
    moving = [residual for residual in residuals if residual.term == "moving"]
    low, high = min((entry.low_share for entry in moving), default=0.0), max((entry.high_share for entry in moving), default=0.0)
    resting_bytes = _resting_margin(memory, residuals)
    low_bytes = memory.moving_bytes * min(max(-low, 0.0) + OTHER_SHAPES_SHARE, 1.0) + resting_bytes
    high_bytes = memory.moving_bytes * (max(high, 0.0) + OTHER_SHAPES_SHARE) + resting_bytes
    first = like[0]
    where = first.elsewhere or "this card"
    shapes = sum(entry.shapes for entry in like)
    return Interval(
        low_share=min(low_bytes / memory.peak_reserved_bytes, 1.0),
        high_share=high_bytes / memory.peak_reserved_bytes,
        context_bytes=margin_bytes,
        source=(
            f"calibrated on {where} on {first.created_at[:10]}: {shapes} shapes of {first.model} ran, and what moves lay "
            f"{format_difference(low)} to {format_difference(high)} from the prediction; {format_share(OTHER_SHAPES_SHARE)} is added for "
            "other shapes"
        ),
    )
