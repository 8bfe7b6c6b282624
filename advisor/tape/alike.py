"""Reads off a recording of a few layers, one of each kind, what the storages of a longer one would hold at another shape.

What a layer makes depends on its kind alone; on its neighbours and its place depends only when that is let go. So the order of events is
recorded once, of a model that is long enough to show it, and sizes at other shapes, or of models of other dimensions, of a few layers.
A storage is known again by where it is made, by which operator, in which phase, and by its size at the first shape.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

from advisor.tape.stream import Birth, Stream
from advisor.values import Phase

_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def any_number(name: str) -> str:
    """A module's dotted name without the numbers of layers and experts in it."""
    return _NUMBER.sub(".*", name)


class NotAlike(Exception):
    """The few layers made nothing like some storage of the longer recording, or not for certain."""


class _Like(NamedTuple):
    """What storages are alike by."""

    kind: int | None
    """Of the layer; None outside of layers."""
    place: str
    owner: str
    op: str
    phase: Phase
    what: str


class _Known(NamedTuple):
    """A storage: what it is like, its size at the first shape, and its place among all of that likeness in one pass through its layer."""

    like: _Like
    size_bytes: int
    among: tuple[int, int]
    """How many there are, and which of them it is."""


@dataclass(frozen=True)
class Layered:
    """A recording and the kind of each of its layers."""

    stream: Stream
    layer_path: str
    kinds: Sequence[int]

    @cached_property
    def known(self) -> tuple[_Known, ...]:
        """What each storage is known by."""
        return tuple(_known(self))


def resized(whole: Layered, few: Layered, few_elsewhere: Stream) -> Stream:
    """The stream of `whole` with the sizes that it would have where `few`, which was recorded beside it, is `few_elsewhere`.

    Raises NotAlike.
    """
    exact, loose = _sizes(few, few_elsewhere)
    births = [born.sized(_size(known, exact, loose)) for born, known in zip(whole.stream.births, whole.known, strict=True)]
    return replace(whole.stream, births=births)


_Exact = dict[tuple[_Like, int], dict[tuple[int, int], set[int]]]
_Loose = dict[_Like, bool]


def _sizes(few: Layered, elsewhere: Stream) -> tuple[_Exact, _Loose]:
    """Sizes elsewhere of storages of a likeness and size here, by their place among those alike; and of which likeness none changes."""
    exact: _Exact = defaultdict(lambda: defaultdict(set))
    same: _Loose = {}
    for known, born in zip(few.known, elsewhere.births, strict=True):
        exact[known.like, known.size_bytes][known.among].add(born.size_bytes)
        same[known.like] = same.get(known.like, True) and born.size_bytes == known.size_bytes
    return exact, same


def _size(known: _Known, exact: _Exact, same: _Loose) -> int:
    found = exact.get((known.like, known.size_bytes))
    if found is None:
        if same.get(known.like):
            return known.size_bytes  # as large as there are layers: norms of all gradients, say
        raise NotAlike(f"no {known.like.op} of {known.size_bytes} bytes in {known.like.place or known.like.owner} among the few layers")
    sizes = set.union(*found.values())
    if len(sizes) > 1:
        sizes = found.get(known.among, set())
    if len(sizes) != 1:
        raise NotAlike(f"{known.like.op} in {known.like.place or known.like.owner}: sizes {sorted(sizes)} among the few layers")
    return next(iter(sizes))


def _known(recording: Layered) -> Iterator[_Known]:
    named = _naming(recording)
    likes: list[tuple[_Like, tuple[object, ...]]] = []
    counts: dict[tuple[object, ...], int] = defaultdict(int)
    places: list[int] = []
    for born, stretch in zip(recording.stream.births, _stretches(recording.stream), strict=True):
        layer, like = named(born)
        group: tuple[object, ...] = (stretch, layer, like, born.size_bytes)
        places.append(counts[group])
        counts[group] += 1
        likes.append((like, group))
    for born, (like, group), place in zip(recording.stream.births, likes, places, strict=True):
        yield _Known(like, born.size_bytes, (counts[group], place))


def _naming(recording: Layered) -> Callable[[Birth], tuple[int | None, _Like]]:
    """Tells of a storage the layer that it was made in, and what it is like."""
    in_layers = re.compile(re.escape(recording.layer_path.removeprefix("base_model.model.")) + r"\.(\d+)(?=\.|$)")

    @cache
    def split(name: str) -> tuple[int | None, str]:
        found = in_layers.search(name) if recording.layer_path else None
        return (int(found.group(1)) if found else None), any_number(name)

    def of(born: Birth) -> tuple[int | None, _Like]:
        (layer, place), (of_owner, owner) = split(born.place), split(born.owner)
        layer = of_owner if layer is None else layer
        return layer, _Like(None if layer is None else recording.kinds[layer], place, owner, born.op, born.phase, born.kind)

    return of


def _stretches(stream: Stream) -> Iterator[int]:
    """The number of the stretch of one phase in which each storage was born."""
    stretch, phase = 0, None
    for signed, now in zip(stream.events, stream.phases, strict=True):
        if now is not phase:
            stretch, phase = stretch + 1, now
        if signed > 0:
            yield stretch
