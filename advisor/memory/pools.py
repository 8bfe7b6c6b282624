"""Choose the errors that speak for a kind of plan: its own, else those of the nearest kind, widened.

Three lists of errors are data (`profiles/measurements/residuals/`, written by `python -m advisor.accuracy`), each a share of the reserved
bytes that were predicted: measured runs against the closed form, measured runs against the dry run, and dry runs against the closed form
(replays).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from advisor.memory.conformal import steps
from advisor.memory.kinds import BOUNDARIES, NEEDED, ONE_CARD, Kind
from advisor.profiles import read

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
def _within_boundaries(name: str) -> dict[object, list[Errors]]:
    """The errors of the list `name` by the facets that no error crosses."""
    facets, found = _facets(BOUNDARIES), defaultdict[object, list[Errors]](list)
    for entry in errors_of(name):
        found[facets(entry.kind)].append(entry)
    return found


@cache
def pool_of(name: str, kind: Kind, without: frozenset[str] = NOBODY) -> Pool:
    """The errors of the list `name` that speak for `kind`; those of the groups `without` are left out of everything: the kind's own, the
    wider kinds' and the steps that widen. Whether the kind is widened they still decide, so that a left-out run tries the rule by which
    its kind's interval is made."""
    levels, known = (_REPLAYED_LEVELS, FEWEST_GROUPS) if name == REPLAY else (_MEASURED_LEVELS, KNOWN_GROUPS)
    of_kind = _within_boundaries(name).get(_facets(BOUNDARIES)(kind), [])
    ran = {entry.group for entry in _alike(of_kind, kind, NEEDED)}
    like = _nearest_to_reserved([entry for entry in of_kind if entry.group not in without])
    found = _most_specific(like, kind, levels) if ran - without else None
    if found is not None and len(ran) >= known:
        return found._replace(ran=len(ran))
    everything = _everything(name, without)
    if ran - without and (found is not None or sum(len(entry.shares) for entry in like) >= FEWEST_ALONE):
        return _widened(like, kind.words(NEEDED), everything, found)._replace(ran=len(ran))
    unlike = _unlike(everything, kind)
    if not everything.nearest:
        return Pool((), 0, unlike, kin=False)
    nearest = _most_specific(everything.nearest, kind, levels)
    return _widened(everything.nearest, unlike, everything, nearest)._replace(kin=False)


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


def _widened(like: list[Errors], unlike: str, everything: _Everything, best: Pool | None = None) -> Pool:
    """Errors that are of another kind, with the largest step of a group and of a kind beyond the others on either side."""
    down, up = everything.steps[like[0].metric]
    pool = best or Pool(_sorted(like), 0)
    return pool._replace(groups=everything.groups, unlike=unlike, down=down, up=up)


class _Everything(NamedTuple):
    """What all errors of a list say, whatever the kind that is asked about."""

    groups: int
    steps: dict[str, tuple[float, float]]
    """By metric: the largest step of a group or of a kind below and above the others."""
    nearest: list[Errors]
    """Reserved memory on one card."""
    seen: dict[str, frozenset[str]]
    """Every value of each facet."""


@cache
def _everything(name: str, without: frozenset[str]) -> _Everything:
    errors = [entry for entry in errors_of(name) if entry.group not in without]
    metrics = {entry.metric for entry in errors}
    return _Everything(
        groups=len({entry.group for entry in errors}),
        steps={metric: _furthest_steps([entry for entry in errors if entry.metric == metric]) for metric in metrics},
        nearest=[entry for entry in errors if entry.kind.cards == ONE_CARD and entry.metric == "reserved"],
        seen={facet: frozenset(getattr(entry.kind, facet) for entry in errors) for facet in NEEDED},
    )


def _furthest_steps(comparable: list[Errors]) -> tuple[float, float]:
    pairs = (steps(_together(comparable, "group")), steps(_together(comparable, "kind")))
    return min(down for down, _ in pairs), max(up for _, up in pairs)


def _together(errors: list[Errors], by: str) -> dict[str, list[float]]:
    """The errors of each group, or of each kind as far as steps between kinds are told apart."""
    found: dict[str, list[float]] = {}
    for entry in errors:
        key = entry.group if by == "group" else entry.kind.words(("cards", "loss", "checkpointing", "method", "loading"))
        found.setdefault(key, []).extend(entry.shares)
    return found


def _unlike(everything: _Everything, kind: Kind) -> str:
    """The facets of `kind` that no error has, or that none has together."""
    unseen = [name for name in NEEDED if getattr(kind, name) not in everything.seen[name]]
    return kind.words(tuple(unseen or NEEDED))
