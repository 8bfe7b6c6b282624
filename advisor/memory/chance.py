"""How likely a plan fits its card, from the errors on measured runs of its kind."""

from __future__ import annotations

from bisect import bisect_right

from advisor.memory.intervals import Bounds, bounds_of
from advisor.memory.kinds import kind_of
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, Plan


def with_chance(memory: MemoryBreakdown, model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> MemoryBreakdown:
    """`memory` as it stands on `gpu`: its usable bytes, and the chance that they hold the plan; as it is without a card."""
    if gpu is None:
        return memory
    found = bounds_of(memory.source, kind_of(model, plan, gpu, memory.versions))
    return memory.model_copy(update={"usable_bytes": gpu.usable_bytes, "fit_probability": fit_probability(memory, found, gpu.usable_bytes)})


def fit_probability(memory: MemoryBreakdown, found: Bounds, usable_bytes: int) -> float:
    """At least this likely is what the plan really needs within `usable_bytes`: k/(n+1), where k of n errors are no larger than there is
    room for (a new error lies below the k-th smallest of n exchangeable ones with at least that probability: Lei et al. 2018, arXiv
    1604.04173), and at most K/(K+1) where only K groups of runs are like the plan (conformal.py).

    An error is a share of the reserved bytes. Where the interval of `memory` is wider than those errors, because no run was of the kind,
    or narrowed by a calibration, the errors are stretched as the interval is, each side by itself (judgement: nothing was measured there).
    """
    if not found.errors:
        return 0.0
    room_bytes = usable_bytes - memory.expected_bytes
    above = room_bytes > 0
    own_share, measured_share = (memory.interval.high_share, found.high) if above else (memory.interval.low_share, -found.low)
    beyond_bytes = max(abs(room_bytes) - memory.interval.context_bytes, 0)
    if beyond_bytes == 0:
        error = 0.0
    elif own_share == 0 or memory.peak_reserved_bytes == 0:
        error = float("inf")
    else:
        error = beyond_bytes / memory.peak_reserved_bytes / own_share * measured_share
    held = bisect_right(found.errors, error if above else -error) / len(found.errors)
    return round(held * found.effective / (found.effective + 1) * (found.groups / (found.groups + 1) if found.unlike else 1), 3)
