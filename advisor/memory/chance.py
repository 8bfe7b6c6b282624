"""How likely a plan fits its card, from the errors on measured runs."""

from __future__ import annotations

from bisect import bisect_right

from advisor.memory.runtime import residual_shares
from advisor.values import GpuSpec, MemoryBreakdown


def with_chance(memory: MemoryBreakdown, gpu: GpuSpec | None) -> MemoryBreakdown:
    """`memory` with the chance that it fits `gpu`; as it is without a card."""
    return memory if gpu is None else memory.model_copy(update={"fit_probability": fit_probability(memory, gpu.usable_bytes)})


def fit_probability(memory: MemoryBreakdown, usable_bytes: int) -> float:
    """At least this likely is what the plan really needs within `usable_bytes`: k/(n+1), where k of n measured runs erred by no more than
    there is room for (a new error lies below the k-th smallest of n exchangeable ones with at least that probability: Lei et al. 2018,
    arXiv 1604.04173).

    An error is a share of what moves. Where the interval of `memory` is wider than that of the measured runs, or narrowed by a
    calibration, the runs' errors are stretched as the interval is, each side by itself (judgement: nothing was measured there).
    """
    shares = residual_shares(memory.source)
    room_bytes = usable_bytes - memory.expected_bytes
    side = "high_share" if room_bytes > 0 else "low_share"
    measured_share, own_share = getattr(shares, side), getattr(memory.interval, side)
    beyond_bytes = max(abs(room_bytes) - memory.interval.context_bytes, 0)
    if beyond_bytes == 0:
        error = 0.0
    elif own_share == 0 or memory.moving_bytes == 0:
        error = float("inf")
    else:
        error = beyond_bytes / memory.moving_bytes / own_share * measured_share
    fitted = bisect_right(shares.errors, error if room_bytes > 0 else -error)
    return round(fitted / (len(shares.errors) + 1), 3)
