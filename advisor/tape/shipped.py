"""Tapes that the wheel carries: for families of models, made once by `benchmarks/record_tapes.py`.

`profiles/tapes/<model type>/families.json` names the configs that were recorded, `<number>.<kind of plan>.tape` holds what was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import read_bounded
from advisor.errors import InvalidInputError
from advisor.profiles import ROOT
from advisor.tape.columns import regime_in
from advisor.tape.cut import Cut
from advisor.tape.dimensions import Depth, Groups, Likeness, likeness
from advisor.tape.family import from_lists
from advisor.tape.kinds import DIGITS, digest_of, kind_of
from advisor.tape.packing import DAMAGED, LARGEST_BYTES, packed, unpacked
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


class Kept(NamedTuple):
    """What a file holds."""

    groups: Groups
    depth: Depth | None
    tapes: tuple[dict[str, Any], ...]
    """As they are written: most are not asked for."""
    members: Mapping[str, Likeness]
    """By digest of their configs, the models of profiles that are of the family."""


class Head(NamedTuple):
    """What a file is for: all of it that is kept in memory."""

    groups: Groups
    depth: Depth | None
    members: Mapping[str, Likeness]
    regimes: tuple[Regime, ...]
    """Of its tapes, in order."""


def find(model: ModelSpec, plan: Plan, has_flash: bool) -> Tape | None:
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
        rank = (Fraction(plan.rank, reference(plan).rank),) if plan.method.has_adapter else ()
        for place, regime in enumerate(head.regimes):
            if regime.covers(shape):
                return _grown(path, place, (*alike.scales, *rank), alike.order)
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
    kept = read(path)
    assert kept is not None
    return from_lists(kept.tapes[place]).of(scales, order)


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
    kept = read(path)
    return kept and Head(kept.groups, kept.depth, kept.members, tuple(regime_in(written["tape"]) for written in kept.tapes))


@lru_cache(maxsize=1)  # an unpacked file takes some 20 MB
def read(path: Path) -> Kept | None:
    """What a file holds; None where it is absent or damaged."""
    try:
        return _kept(unpacked(read_bounded(path, LARGEST_BYTES)))
    except (InvalidInputError, *DAMAGED):
        return None


def write(path: Path, kept: Kept) -> None:
    """Write a file whole."""
    depth = kept.depth and [kept.depth.cut.layers, kept.depth.cut.order, kept.depth.holder, kept.depth.counts]
    members = {digest: [[str(scale) for scale in alike.scales], alike.order] for digest, alike in sorted(kept.members.items())}
    content = {"groups": kept.groups, "depth": depth, "tapes": kept.tapes, "members": members}
    write_whole(path, packed(content))
    read.cache_clear()
    head_of.cache_clear()


def _kept(data: Mapping[str, Any]) -> Kept:
    groups = tuple(tuple(tuple(path) for path in paths) for paths in data["groups"])
    depth = None
    if data["depth"] is not None:
        layers, order, holder, counts = data["depth"]
        depth = Depth(Cut(tuple(layers), tuple(order)), tuple(holder), tuple(counts))
    members = {
        digest: Likeness(tuple(map(Fraction, scales)), order and tuple(order)) for digest, (scales, order) in data["members"].items()
    }
    return Kept(groups, depth, tuple(data["tapes"]), members)


def shipped_files() -> Iterator[Path]:
    """Every file of tapes."""
    yield from sorted(FOLDER.glob("*/*.tape"))
