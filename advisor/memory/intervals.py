"""How far an estimate may be off, from the errors on plans of its kind.

`memory.pools` chooses the errors: of measured runs against the closed form and against the dry run, and of dry runs against the closed form
(replays). The closed form is off by what it differs from the dry run and by what that differs from the card: every pair of an error of
the one and of the other, as if they were independent. A kind that no card has run is bounded by its nearest and widened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from advisor.memory.conformal import bounds
from advisor.memory.kinds import ONE_CARD, Kind, kind_of
from advisor.memory.pools import ESTIMATE, KNOWN_GROUPS, NOBODY, REPLAY, TRACE, Pool, errors_of, pool_of
from advisor.memory.runtime import context_of
from advisor.units import format_share
from advisor.values import GpuSpec, Interval, ModelSpec, Plan

NOTHING_KNOWN = -1.0, 1.0
"""Bounds without a single error (judgement)."""

_OF_NO_REPLAY = {"cards": ONE_CARD, "maker": "", "code": "", "extras": "", "base": "", "loading": ""}
"""Facets of which no dry run is replayed: where no card ran them, the measured errors are widened already."""

_FEW = "no source", "one source", "two sources"
"""How many sources and cards ran a kind, in words."""


class Bounds(NamedTuple):
    """What is known of the error of a prediction, as shares of its reserved bytes."""

    errors: tuple[float, ...]
    effective: int
    """Errors that count for a chance: pairs are no more than the fewer of their two lists."""
    groups: int
    low: float
    high: float
    unlike: str
    ran: int
    """Groups that ran the kind itself."""
    kin: bool
    bias: float
    """Median of what dry runs of such plans reserve beyond the closed form."""
    sources: str

    def holds(self, error: float) -> bool:
        return self.low <= error <= self.high


@cache
def bounds_of(tier: str, kind: Kind, without: frozenset[str] = NOBODY) -> Bounds:
    """The bounds of a tier's errors for plans of that kind; `without` leaves groups of runs, and models that were replayed, out."""
    if tier == REPLAY:
        replays = pool_of(REPLAY, kind, without)
        return _bounds(replays.errors, replays.alone, replays, len(replays.errors), f"{len(replays.errors)} dry runs", 0.0)
    measured = _measured(tier, kind, without)
    if tier == TRACE or not errors_of(REPLAY):
        return _bounds(measured.errors, measured.alone, measured, len(measured.errors), f"{len(measured.errors)} measured runs", 0.0)
    replayed = pool_of(REPLAY, kind._replace(**_OF_NO_REPLAY), without)
    pairs = _pairs(replayed.errors, measured.errors)
    alone = (*_pairs(replayed.alone, measured.errors), *_pairs(replayed.errors, measured.alone))
    both = measured._replace(
        down=measured.down + replayed.down,
        up=measured.up + replayed.up,
        unlike=measured.unlike or replayed.unlike,
        kin=measured.kin and replayed.kin,
    )
    said = f"{len(measured.errors)} measured runs and {len(replayed.errors)} dry runs"
    middle = replayed.errors[len(replayed.errors) // 2]
    return _bounds(pairs, alone, both, min(len(measured.errors), len(replayed.errors)), said, middle)


def _pairs(ones: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
    """The errors of a prediction that is off by any of `ones` from one that is off by any of `others`."""
    return tuple(sorted((1 + one) * (1 + other) - 1 for one in ones for other in others))


def _measured(tier: str, kind: Kind, without: frozenset[str]) -> Pool:
    """Of the dry run's errors, which hold for the closed form, too; of the closed form's own where no dry run can be made."""
    pool = pool_of(TRACE, kind, without)
    own = pool if tier == TRACE or pool.kin else pool_of(ESTIMATE, kind, without)
    return own if own.kin else pool


def _bounds(errors: tuple[float, ...], alone: tuple[float, ...], pool: Pool, effective: int, said: str, bias: float) -> Bounds:
    sides = [bounds(each) for each in (errors, alone) if each] or [NOTHING_KNOWN]
    low, high = min(0.0, *(low for low, _ in sides)), max(0.0, *(high for _, high in sides))
    return Bounds(errors, effective, pool.groups, low + pool.down, high + pool.up, pool.unlike, pool.ran, pool.kin, bias, said)


def interval_of(tier: str, model: ModelSpec, plan: Plan, gpu: GpuSpec | None, versions: Mapping[str, str] | None = None) -> Interval:
    """The tier's interval for this plan, by the errors of its kind; wide, and saying so, where no run was of its kind."""
    return interval(tier, kind_of(model, plan, gpu, versions), context_of(gpu.compute_capability if gpu else None).margin_bytes)


@cache
def interval(tier: str, kind: Kind, margin_bytes: int = 0) -> Interval:
    found = bounds_of(tier, kind)
    return Interval(
        low_share=min(_outward(-found.low), 1.0),
        high_share=_outward(found.high),
        context_bytes=margin_bytes,
        source="; ".join(_said(found)),
    )


def _outward(share: float) -> float:
    """`share` and no less, with four decimals: the errors themselves are rounded to five."""
    return math.ceil(round(max(share, 0.0), 5) * 10_000) / 10_000


def _said(found: Bounds) -> Iterator[str]:
    if found.unlike and found.kin:
        few = f"{_FEW[found.ran]} alone ran" if found.ran < KNOWN_GROUPS else "too few dry runs are of"
        yield f"wide, because {few} this kind ({found.unlike}): {found.sources}"
    elif found.unlike:
        yield f"wide, because no measured run was of this kind ({found.unlike}): from the nearest, {found.sources}"
    else:
        yield f"from the errors of {found.sources} of this kind, nine in ten inside"
    if found.bias:
        yield f"dry runs of such plans reserve {format_share(abs(found.bias), 1)} {'more' if found.bias > 0 else 'less'} in the middle"
