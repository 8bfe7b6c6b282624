"""Numbers about errors: order statistics, and intervals from residuals.

Intervals follow split conformal prediction: with n exchangeable residuals the ⌈(n+1)(1−t)⌉-th smallest covers a new one from above
with probability at least 1−t, and the ⌊(n+1)t⌋-th from below (Lei et al. 2018, arXiv 1604.04173; Angelopoulos & Bates 2021,
arXiv 2107.07511); t is half of what may lie outside. Runs of one source on one card are no independent draws, so that a group is also
left out as a whole. For a run unlike any group only groups are exchangeable: the widest residual of K groups covers it from one side
with probability at least K/(K+1) (Dunn, Wasserman & Ramdas 2022, arXiv 1809.07441). With a handful of groups that is little, so that it
is widened once more by the largest step with which a group, left out, lies beyond all others (judgement).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.errors import InvalidInputError
from advisor.values import Interval, Value

COVERAGE = 0.90
"""Share of runs that an interval shall hold. Judgement: one in ten outside, one in twenty above."""


class Residual(Value):
    """Measured less predicted, of one run, as a share of what moves in it (`MemoryBreakdown.moving_bytes`)."""

    id: str
    group: str
    metric: str
    share: float


class IntervalShares(Value):
    """Interval shares and everything they rest on: the content of a residuals file."""

    tier: str
    coverage_asked: float
    rule: str
    n: int
    n_groups: int
    seen: Interval
    """For plans like a measured one: same kind of architecture, stack and card family."""
    unseen: Interval
    """For everything else; never narrower than `seen`."""
    coverage_leave_one_out: float
    """Share of runs inside `seen` when it is computed without that run."""
    coverage_leave_group_out: float
    """Share of runs inside `unseen` when it is computed without the run's whole group. Says how far to trust `unseen`."""
    residuals: tuple[Residual, ...]


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def conformal_bounds(shares: Sequence[float], coverage: float = COVERAGE) -> tuple[float, float]:
    """The two order statistics of the rule above; the smallest and the largest where there are too few for it."""
    ordered, n = sorted(shares), len(shares)
    tail = round((1 - coverage) / 2, 9)  # so that 0.05 is 0.05
    low_rank = math.floor((n + 1) * tail)
    high_rank = math.ceil(round((n + 1) * (1 - tail), 6))
    return ordered[max(low_rank, 1) - 1], ordered[min(high_rank, n) - 1]


def interval_shares(residuals: Sequence[Residual], tier: str, coverage: float = COVERAGE) -> IntervalShares:
    """Interval shares for a tier ("estimate", "trace") from its residuals, and how well they cover runs that are left out."""
    if len({residual.group for residual in residuals}) < 2:
        raise InvalidInputError("residuals: leaving a group out needs at least two groups")
    shares = [residual.share for residual in residuals]
    groups = sorted({residual.group for residual in residuals})
    low, high = conformal_bounds(shares, coverage)
    rule = f"split conformal, {coverage:.0%} of {len(shares)} measured runs"
    wide = f"widest residual of {len(groups)} groups of runs (a source and a card), plus the largest step of one beyond the others"
    return IntervalShares(
        tier=tier,
        coverage_asked=coverage,
        rule=rule,
        n=len(shares),
        n_groups=len(groups),
        seen=_interval(low, high, rule),
        unseen=_interval(*_beyond(residuals), wide),
        coverage_leave_one_out=_leave_one_out(residuals, coverage),
        coverage_leave_group_out=_leave_group_out(residuals),
        residuals=tuple(sorted(residuals, key=lambda residual: residual.share)),
    )


def _interval(low: float, high: float, source: str) -> Interval:
    """The estimate itself always lies inside."""
    return Interval(low_share=min(max(-low, 0.0), 1.0), high_share=max(high, 0.0), source=source)


def _leave_one_out(residuals: Sequence[Residual], coverage: float) -> float:
    inside = 0
    for position, residual in enumerate(residuals):
        others = [other.share for index, other in enumerate(residuals) if index != position]
        low, high = conformal_bounds(others, coverage)
        inside += min(low, 0.0) <= residual.share <= max(high, 0.0)
    return inside / len(residuals)


def _leave_group_out(residuals: Sequence[Residual]) -> float:
    inside = 0
    for group in {residual.group for residual in residuals}:
        left_out, others = _split(residuals, group)
        low, high = _beyond(others)
        inside += sum(low <= residual.share <= high for residual in left_out)
    return inside / len(residuals)


def _split(residuals: Sequence[Residual], group: str) -> tuple[list[Residual], list[Residual]]:
    return [item for item in residuals if item.group == group], [item for item in residuals if item.group != group]


def _envelope(residuals: Sequence[Residual]) -> tuple[float, float]:
    shares = [residual.share for residual in residuals]
    return min(*shares, 0.0), max(*shares, 0.0)


def _beyond(residuals: Sequence[Residual]) -> tuple[float, float]:
    """The envelope, stretched on each side by the largest step with which one group lies beyond the envelope of the others."""
    low, high = _envelope(residuals)
    groups = {residual.group for residual in residuals}
    if len(groups) < 2:
        return low, high
    pairs = [(_envelope(left_out), _envelope(others)) for left_out, others in (_split(residuals, group) for group in groups)]
    down = min(0.0, *(out[0] - rest[0] for out, rest in pairs))
    up = max(0.0, *(out[1] - rest[1] for out, rest in pairs))
    return low + down, high + up
