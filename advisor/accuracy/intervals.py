"""Errors of the tiers by kind of plan: what the residual files hold, and how often intervals that they make hold what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, lgamma, log
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
    alike: tuple[str, ...] = ()
    """Models of the same shape, whose dry runs are left out with the group."""
    metric: Literal["allocated", "reserved"]
    kind: Kind
    share: float


class Coverage(Value):
    """How often the intervals of one kind of plan hold the run that was measured."""

    kind: str
    n: int
    n_groups: int
    wide: bool
    """So few sources and cards ran the kind that its interval is widened, and says so."""
    inside: float
    """Share of runs inside their interval."""
    inside_left_out: float
    """The same with intervals made without the run's whole group (a source and a card) and without dry runs of its model."""
    median_width: float
    """Of the intervals, as a share of the reserved bytes that were predicted."""

    @property
    def off(self) -> bool:
        """Whether more, or fewer, of the left-out runs lie inside than luck explains."""
        return is_off(round(self.inside_left_out * self.n), self.n)


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


ALL, WIDE = "all", "all that are wide"
"""The rows of every kind together, and of every kind whose interval says that it is wide."""
LEAST, MOST = 0.85, 0.97
"""What the intervals shall hold of runs that they were not made of: nine in ten, with room for a kind's own luck (judgement)."""


def is_off(held: int, n: int) -> bool:
    """Whether `held` of `n` speak against a coverage between `LEAST` and `MOST`: fewer than one in twenty draws at the nearer of the two
    would be as extreme (exact binomial tail, the Clopper-Pearson bound; Biometrika 26, 1934).

    The bar alone would call 10 of 10 too many and 8 of 10 too few, of which the one is as likely as not and the other comes every fifth
    time at 90 %. With a hundred runs the allowance is six in a hundred. It takes runs for independent, though those of one source are
    not: what it calls off is off, and what passes has only not been shown to be.
    """
    return _at_most(held, n, LEAST) < _ONE_IN_TWENTY or _at_most(n - held, n, 1 - MOST) < _ONE_IN_TWENTY


_ONE_IN_TWENTY = 0.05


def _at_most(k: int, n: int, chance: float) -> float:
    """Probability of no more than `k` of `n`."""
    return sum(exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(chance) + (n - i) * log(1 - chance)) for i in range(k + 1))


def coverages(tier: str, residuals: Sequence[Residual]) -> tuple[Coverage, ...]:
    """Of every kind that was measured, the largest first and those last that few ran; then of these together, and of all runs."""
    kinds: dict[str, list[Residual]] = {}
    for residual in residuals:
        kinds.setdefault(residual.kind.words(SHOWN), []).append(residual)
    rows = sorted((_coverage(tier, name, items) for name, items in kinds.items()), key=lambda row: (row.wide, -row.n, row.kind))
    few = {row.kind for row in rows if row.wide}
    of_few = [residual for residual in residuals if residual.kind.words(SHOWN) in few]
    return (*rows, *(_coverage(tier, name, items) for name, items in ((WIDE, of_few), (ALL, residuals)) if items))


def _coverage(tier: str, name: str, residuals: Sequence[Residual]) -> Coverage:
    found = [bounds_of(tier, item.kind) for item in residuals]
    left_out = [bounds_of(tier, item.kind, frozenset({item.group, *item.alike})) for item in residuals]
    n = len(residuals)
    return Coverage(
        kind=name,
        n=n,
        n_groups=len({item.group for item in residuals}),
        wide=all(bound.unlike for bound in found),
        inside=sum(bound.holds(item.share) for bound, item in zip(found, residuals, strict=True)) / n,
        inside_left_out=sum(bound.holds(item.share) for bound, item in zip(left_out, residuals, strict=True)) / n,
        median_width=median([bound.high - bound.low for bound in found]),
    )
