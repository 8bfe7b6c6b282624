"""Errors of the tiers by kind of plan: what the residual files hold, and how often intervals that they make hold what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from advisor.memory.intervals import bounds_of
from advisor.memory.kinds import Kind
from advisor.profiles.runtime import ErrorsRow, Residuals
from advisor.values import Value

SHOWN = ("cards", "maker", "code", "family", "head", "loss", "extras", "weights", "checkpointing", "loading")
"""Facets that name a kind in the report."""


class Residual(Value):
    """Measured less predicted, of one run, as a share of the reserved bytes that were predicted."""

    id: str
    group: str
    metric: Literal["allocated", "reserved"]
    kind: Kind
    share: float


class Coverage(Value):
    """How often the intervals of one kind of plan hold the run that was measured."""

    kind: str
    n: int
    n_groups: int
    inside: float
    """Share of runs inside their interval."""
    inside_left_out: float
    """The same with intervals made without the run's whole group (a source and a card)."""
    median_width: float
    """Of the intervals, as a share of the reserved bytes that were predicted."""


def errors_file(tier: str, residuals: Iterable[Residual], *, named: bool = True) -> Residuals:
    """`residuals` by kind and group, in a fixed order; `named` keeps the runs' ids."""
    together: dict[tuple[str, Literal["allocated", "reserved"], Kind], list[Residual]] = {}
    for residual in residuals:
        together.setdefault((residual.group, residual.metric, residual.kind), []).append(residual)
    entries = tuple(
        ErrorsRow(
            kind={name: value for name, value in kind._asdict().items() if value},
            group=group,
            metric=metric,
            ids=tuple(item.id for item in items) if named else (),
            shares=tuple(item.share for item in items),
        )
        for (group, metric, kind), items in sorted(together.items())
    )
    return Residuals(
        tier=tier, n=sum(len(entry.shares) for entry in entries), n_groups=len({entry.group for entry in entries}), errors=entries
    )


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


ALL = "all"
"""The row of every kind together."""


def coverages(tier: str, residuals: Sequence[Residual]) -> tuple[Coverage, ...]:
    """Of every kind that was measured, the largest first, and of all runs together at the end."""
    kinds: dict[str, list[Residual]] = {}
    for residual in residuals:
        kinds.setdefault(residual.kind.words(SHOWN), []).append(residual)
    by_size = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(_coverage(tier, name, items) for name, items in [*by_size, (ALL, list(residuals))] if items)


def _coverage(tier: str, name: str, residuals: Sequence[Residual]) -> Coverage:
    found = [bounds_of(tier, item.kind) for item in residuals]
    left_out = [bounds_of(tier, item.kind, item.group) for item in residuals]
    n = len(residuals)
    return Coverage(
        kind=name,
        n=n,
        n_groups=len({item.group for item in residuals}),
        inside=sum(bound.holds(item.share) for bound, item in zip(found, residuals, strict=True)) / n,
        inside_left_out=sum(bound.holds(item.share) for bound, item in zip(left_out, residuals, strict=True)) / n,
        median_width=median([bound.high - bound.low for bound in found]),
    )
