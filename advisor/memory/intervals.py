"""How far an estimate may be off, from the errors on plans of its kind.

Three lists of errors are data (`profiles/measurements/residuals/`, written by `python -m advisor.accuracy`), each a share of the reserved
bytes that were predicted: measured runs against the closed form, measured runs against the dry run, and dry runs against the closed form
(replays). The closed form is off by what it differs from the dry run and by what that differs from the card: every pair of an error of
the one and of the other, as if they were independent. A kind that no card has run is bounded by its nearest and widened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from advisor.memory.conformal import bounds, steps
from advisor.memory.kinds import BOUNDARIES, NEEDED, ONE_CARD, Kind, kind_of
from advisor.memory.runtime import context_of
from advisor.profiles import read
from advisor.values import GpuSpec, Interval, ModelSpec, Plan

ESTIMATE, TRACE, REPLAY = "estimate", "trace", "replay"
FEWEST, FEWEST_GROUPS = 10, 2
"""Errors, and groups of them, that make a pool. The extremes of ten cover a new one with 82 % (conformal.py); one group says nothing of
another source, card or model."""
KNOWN_GROUPS = 3
"""Sources and cards that must have run a kind, whichever memory they read; a kind that fewer ran is widened. Judgement: three is the
fewest of which one can be left out and two be left to compare. It is no guarantee (conformal.py): `advise accuracy` counts."""
FEWEST_ALONE = 5
"""Errors of a kind that too few groups have, from which bounds are widened rather than from the nearest kind's (judgement)."""
NOBODY: frozenset[str] = frozenset()
"""Groups that are left out: none."""

NOTHING_KNOWN = -1.0, 1.0
"""Bounds without a single error (judgement)."""

_OF_NO_REPLAY = {"cards": ONE_CARD, "maker": "", "code": "", "extras": "", "base": "", "loading": ""}
"""Facets of which no dry run is replayed: where no card ran them, the measured errors are widened already."""

_MEASURED_LEVELS = (
    ("checkpointing", "weights", "kernel", "loading"),
    ("checkpointing", "kernel", "loading"),
    ("checkpointing", "loading"),
    ("loading",),
    (),
)
_REPLAYED_LEVELS = (
    ("loop", "outputs", "checkpointing", "method", "weights", "kernel"),
    ("loop", "outputs", "checkpointing", "method", "weights"),
    ("loop", "outputs", "checkpointing", "method"),
    ("checkpointing", "method"),
    ("checkpointing",),
    (),
)
"""Facets in which the errors of a pool agree, from the most specific kind to the widest."""


_FEW = "no source", "one source", "two sources"
"""How many sources and cards ran a kind, in words."""


class Errors(NamedTuple):
    """Errors of one kind in one group: measured over predicted, less one."""

    kind: Kind
    group: str
    metric: str
    shares: tuple[float, ...]


class Pool(NamedTuple):
    """The errors that speak for a plan."""

    errors: tuple[float, ...]
    groups: int
    unlike: str = ""
    """What about the plan no error, or too few groups, speak for; empty for a kind with errors of its own."""
    ran: int = 0
    """Groups that ran the kind itself."""
    down: float = 0.0
    up: float = 0.0
    """How much wider than its errors it bounds."""
    kin: bool = True
    """They agree with the plan in everything that no error crosses."""
    alone: tuple[float, ...] = ()
    """Those of a narrower kind that one group alone has: bounds are no narrower than they make them."""


_NOTHING = dict.fromkeys(Kind._fields, "")
"""Facets that say nothing are left out of the files."""


@cache
def errors_of(tier: str) -> tuple[Errors, ...]:
    """The list of that name: "estimate", "trace" or "replay"; empty where there is none."""
    rows = (row for row in read("measurements/residuals") if row["tier"] == tier)
    return tuple(
        Errors(Kind(**{**_NOTHING, **entry["kind"]}), entry["group"], entry["metric"], tuple(entry["shares"]))
        for row in rows
        for entry in row["errors"]
    )


@cache
def pool_of(name: str, kind: Kind, without: frozenset[str] = NOBODY) -> Pool:
    """The errors of the list `name` that speak for `kind`; those of the groups `without` are left out of everything: the kind's own, the
    wider kinds' and the steps that widen. Whether the kind is widened they still decide, so that a left-out run tries the rule by which
    its kind's interval is made."""
    levels, known = (_REPLAYED_LEVELS, FEWEST_GROUPS) if name == REPLAY else (_MEASURED_LEVELS, KNOWN_GROUPS)
    of_kind = _alike(errors_of(name), kind, BOUNDARIES)
    ran = {entry.group for entry in _alike(of_kind, kind, NEEDED)}
    errors = [entry for entry in errors_of(name) if entry.group not in without]
    like = _nearest_to_reserved([entry for entry in of_kind if entry.group not in without])
    found = _most_specific(like, kind, levels) if ran - without else None
    if found is not None and len(ran) >= known:
        return found._replace(ran=len(ran))
    if ran - without and (found is not None or sum(len(entry.shares) for entry in like) >= FEWEST_ALONE):
        return _widened(like, kind.words(NEEDED), errors, found)._replace(ran=len(ran))
    unlike = _unlike(errors, kind)
    nearest = [entry for entry in errors if entry.kind.cards == ONE_CARD and entry.metric == "reserved"]
    if not nearest:
        return Pool((), 0, unlike, kin=False)
    return _widened(nearest, unlike, errors, _most_specific(nearest, kind, levels))._replace(kin=False)


def _nearest_to_reserved(errors: list[Errors]) -> list[Errors]:
    """Reserved memory alone where it was read: allocated memory has no idle segments to be wrong about."""
    return [entry for entry in errors if entry.metric == "reserved"] or errors


def _alike(errors: Iterable[Errors], kind: Kind, names: tuple[str, ...]) -> list[Errors]:
    """Those of a kind that agrees with `kind` in the named facets."""
    facets = _facets(names)
    own = facets(kind)
    return [entry for entry in errors if facets(entry.kind) == own]


@cache
def _facets(names: tuple[str, ...]) -> Callable[[Kind], object]:
    return attrgetter(*names) if names else lambda kind: ()


def _most_specific(errors: list[Errors], kind: Kind, levels: tuple[tuple[str, ...], ...]) -> Pool | None:
    """The errors of the most specific kind that several groups have; no narrower than what one group alone says of a narrower kind."""
    alone: tuple[float, ...] = ()
    for names in levels:
        chosen = _alike(errors, kind, names)
        groups = {entry.group for entry in chosen}
        if sum(len(entry.shares) for entry in chosen) < FEWEST:
            continue
        if len(groups) >= FEWEST_GROUPS:
            return Pool(_sorted(chosen), len(groups), alone=alone)
        alone = alone or _sorted(chosen)
    return None


def _sorted(errors: list[Errors]) -> tuple[float, ...]:
    return tuple(sorted(share for entry in errors for share in entry.shares))


def _widened(like: list[Errors], unlike: str, errors: list[Errors], best: Pool | None = None) -> Pool:
    """Errors that are of another kind, with the largest step of a group and of a kind beyond the others on either side."""
    comparable = [entry for entry in errors if entry.metric == like[0].metric]
    pairs = (steps(_together(comparable, "group")), steps(_together(comparable, "kind")))
    pool = best or Pool(_sorted(like), 0)
    groups = len({entry.group for entry in errors})
    return pool._replace(groups=groups, unlike=unlike, down=min(down for down, _ in pairs), up=max(up for _, up in pairs))


def _together(errors: list[Errors], by: str) -> dict[str, list[float]]:
    """The errors of each group, or of each kind as far as steps between kinds are told apart."""
    found: dict[str, list[float]] = {}
    for entry in errors:
        key = entry.group if by == "group" else entry.kind.words(("cards", "loss", "checkpointing", "method", "loading"))
        found.setdefault(key, []).extend(entry.shares)
    return found


def _unlike(errors: list[Errors], kind: Kind) -> str:
    """The facets of `kind` that no error has, or that none has together."""
    unseen = [name for name in NEEDED if getattr(kind, name) not in {getattr(entry.kind, name) for entry in errors}]
    return kind.words(tuple(unseen or NEEDED))


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
        yield f"dry runs of such plans reserve {abs(found.bias):.1%} {'more' if found.bias > 0 else 'less'} in the middle"
