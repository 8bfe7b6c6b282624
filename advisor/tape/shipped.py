"""Tapes that the wheel carries: for families of models, made once by `benchmarks/record_tapes.py`.

`profiles/tapes/<model type>/families.json` names the configs that were recorded, `<number>.<kind of plan>.tape` holds what was.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import read_bounded
from advisor.errors import InvalidInputError
from advisor.formulas import digest
from advisor.profiles import ROOT
from advisor.tape.columns import regime_as_list, regime_in
from advisor.tape.cut import Cut
from advisor.tape.dimensions import Depth, Groups, Likeness, likeness
from advisor.tape.family import FamilyTape, family_in, part_of
from advisor.tape.kinds import DIGITS, digest_of, kind_of
from advisor.tape.packing import DAMAGED, LARGEST_BYTES, head_in, packed, part_in
from advisor.tape.peaks import Peaks, as_list, from_list
from advisor.tape.sizes import Shape
from advisor.tape.tape import Regime, Tape
from advisor.user_files import write_whole
from advisor.values import ModelSpec, Plan

FOLDER = ROOT / "tapes"
INDEX = "families.json"


class Family(NamedTuple):
    """A model that was recorded, for all whose dimensions are multiples of its own."""

    id: str
    config: Mapping[str, Any]
    freedom: int
    """Of its dimensions: see `dimensions.groups_of`."""


class Speaks(NamedTuple):
    """What one tape of a file speaks for."""

    regime: Regime
    peaks: tuple[Peaks | None, ...]
    """Of each way in which the file's models are made of the first, in the order of `Head.ways`; None where a rank adds no multiple."""


class Head(NamedTuple):
    """What a file is for: all of it that is kept in memory."""

    groups: Groups
    depth: Depth | None
    members: Mapping[str, Likeness]
    """By digest of their configs, the models of profiles that are of the family."""
    tapes: tuple[Speaks, ...] = ()
    content_digest: str = ""
    """Of the whole file."""

    @property
    def ways(self) -> tuple[Likeness, ...]:
        """The different ways in which members are made of the family's first model."""
        return tuple(dict.fromkeys(self.members.values()))


class Found(NamedTuple):
    """A shipped tape, not read yet, and how a model is made of the family's first."""

    path: Path
    place: int
    alike: Likeness
    rank: Fraction | None
    """By how much it is larger than the rank that families are recorded at; None where a plan has none."""

    @property
    def name(self) -> str:
        """Another one for every other tape, and where other code replays it."""
        head = head_of(self.path)
        assert head is not None
        told = [head.content_digest, self.place, str(self.alike), str(self.rank), digest("tape", "allocator")]
        return sha256(json.dumps(told).encode()).hexdigest()[:DIGITS]

    def tape(self) -> Tape | None:
        """The tape of the model; None where it is damaged, or makes no whole number of bytes of one of the model's sizes."""
        with suppress(ValueError):
            return _grown(
                self.path, self.place, self.alike.scales if self.rank is None else (*self.alike.scales, self.rank), self.alike.order
            )
        return None

    def peaks(self) -> Peaks | None:
        """The most that can be alive at once, where the file says it."""
        head = head_of(self.path)
        assert head is not None
        ways = head.ways
        return head.tapes[self.place].peaks[ways.index(self.alike)] if self.alike in ways else None


def find(model: ModelSpec, plan: Plan, has_flash: bool) -> Found | None:
    """The shipped tape that speaks for a plan of a model; None where there is none."""
    content = json.loads(model.config_json)
    model_type = str(content.get("model_type", ""))
    shape = Shape(plan.micro_batch_size, plan.seq_len_tokens)
    for number, family in enumerate(families(model_type)):
        path = path_of(model_type, number, plan, has_flash)
        head = head_of(path)
        alike = head and _likeness(model_type, family, head, content)
        if head is None or alike is None:
            continue
        rank = Fraction(plan.rank, reference(plan).rank) if plan.method.has_adapter else None
        for place, speaks in enumerate(head.tapes):
            if speaks.regime.covers(shape):
                return Found(path, place, alike, rank)
    return None


def has_tapes(model: ModelSpec) -> bool:
    """Whether some plan of the model has a shipped tape."""
    content = json.loads(model.config_json)
    model_type = str(content.get("model_type", ""))
    for number, family in enumerate(families(model_type)):
        for path in sorted((FOLDER / model_type).glob(f"{number}.*.tape")):
            head = head_of(path)
            if head and _likeness(model_type, family, head, content):
                return True
    return False


def _likeness(model_type: str, family: Family, head: Head, content: Mapping[str, Any]) -> Likeness | None:
    """How a model is made of a family's first; None where it is of another.

    Of other dimensions only where its weights were counted when it was entered: a config class may round what it is told. What was not
    entered (a fine-tuned copy with a config of its own, say) must have the first model's dimensions.
    """
    entered = head.members.get(digest_of_config(content))
    if entered is not None:
        return entered
    found = likeness(family.config, content, defaults(model_type), head.groups, head.depth)
    return found if found is not None and set(found.scales) <= {Fraction(1)} else None


@lru_cache(maxsize=256)
def _grown(path: Path, place: int, scales: tuple[Fraction, ...], order: tuple[int, ...] | None) -> Tape:
    return family_at(path, place).of(scales, order)


def digest_of_config(content: Mapping[str, Any]) -> str:
    """Name of a config's content."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


def reference(plan: Plan) -> Plan:
    """The plan whose recording stands for `plan`, of the rank that families are recorded at."""
    return kind_of(plan).model_copy(update={"rank": Plan.model_fields["rank"].default})


def path_of(model_type: str, number: int, plan: Plan, has_flash: bool) -> Path:
    """The file of a kind of plan for a family."""
    return FOLDER / model_type / f"{number}.{digest_of(reference(plan), has_flash)}.tape"


@cache
def _index(model_type: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(read_bounded(FOLDER / model_type / INDEX, LARGEST_BYTES)))
    except (InvalidInputError, ValueError, TypeError):
        return {}


def families(model_type: str) -> tuple[Family, ...]:
    """The families of a model type, none where nothing is shipped for it."""
    if not model_type.replace("_", "").replace("-", "").isalnum():
        return ()
    return tuple(Family(row["id"], row["config"], row["freedom"]) for row in _index(model_type).get("families", ()))


def defaults(model_type: str) -> Mapping[str, Any]:
    """What a config of that type means by leaving a field out."""
    return dict(_index(model_type).get("defaults", {}))


def write_families(model_type: str, found: tuple[Family, ...], filled_in: Mapping[str, Any]) -> None:
    """Replace the index of a model type."""
    content = {"defaults": filled_in, "families": [family._asdict() for family in found]}
    (FOLDER / model_type).mkdir(parents=True, exist_ok=True)
    write_whole(FOLDER / model_type / INDEX, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    _index.cache_clear()


@cache
def head_of(path: Path) -> Head | None:
    """What a file is for; None where it is absent or damaged."""
    try:
        content = read_bounded(path, LARGEST_BYTES)
        return _head_in(head_in(content))._replace(content_digest=sha256(content).hexdigest()[:DIGITS])
    except (InvalidInputError, *DAMAGED):
        return None


def family_at(path: Path, place: int) -> FamilyTape:
    """One tape of a file. Raises ValueError where it is damaged."""
    try:
        with _uncollected():
            return family_in(part_in(read_bounded(path, LARGEST_BYTES), place))
    except DAMAGED as error:
        raise ValueError(f"{path.name}: no tape {place}: {error}") from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's collector from looking again and again through a hundred thousand objects, none of which is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write(path: Path, head: Head, tapes: Sequence[FamilyTape], rank: int | None) -> None:
    """Write a file whole; what its tapes speak for is found from them. `rank` is the one that they were recorded at, None for a method
    without."""
    ways = head.ways
    depth = head.depth and [head.depth.cut.layers, head.depth.cut.order, head.depth.holder, head.depth.counts]
    content = {
        "groups": head.groups,
        "depth": depth,
        "ways": [[[str(scale) for scale in alike.scales], alike.order] for alike in ways],
        "members": {digest: ways.index(alike) for digest, alike in sorted(head.members.items())},
        "tapes": [[regime_as_list(tape.tape.regime), [_peaks_of(tape, alike, rank) for alike in ways]] for tape in tapes],
    }
    write_whole(path, packed(content, [part_of(tape) for tape in tapes]))
    head_of.cache_clear()
    _grown.cache_clear()


def _peaks_of(tape: FamilyTape, alike: Likeness, rank: int | None) -> list[Any] | None:
    try:
        return as_list(tape.peaks_of(alike.scales, alike.order, rank))
    except ValueError:
        return None


def _head_in(data: Mapping[str, Any]) -> Head:
    groups = tuple(tuple(tuple(path) for path in paths) for paths in data["groups"])
    depth = None
    if data["depth"] is not None:
        layers, order, holder, counts = data["depth"]
        depth = Depth(Cut(tuple(layers), tuple(order)), tuple(holder), tuple(counts))
    ways = [Likeness(tuple(map(Fraction, scales)), order and tuple(order)) for scales, order in data["ways"]]
    members = {digest: ways[number] for digest, number in data["members"].items()}
    tapes = [Speaks(regime_in(regime), tuple(written and from_list(written) for written in peaks)) for regime, peaks in data["tapes"]]
    if any(len(speaks.peaks) != len(ways) for speaks in tapes):
        raise ValueError("peaks of another number of ways")
    return Head(groups, depth, members, tuple(tapes))


def shipped_files() -> Iterator[Path]:
    """Every file of tapes."""
    yield from sorted(FOLDER.glob("*/*.tape"))
