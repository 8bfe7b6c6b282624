"""Finds how the event stream of a short model is repeated for a deep one: by what its layers did that stand between the same neighbours.

The recording is split into runs of events that belong to one layer. Where runs go through the layers upwards (loading, forward, optimizer)
or downwards (backward), each layer of the deep model gets the run of the one that stands for it, and births and deaths are named anew: a
death names its storage by the run in which it was born, relative to its own layer. Layers that stand between the same neighbours must have
done the same; else `NotRepeatable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from advisor.tape.cut import Cut
from advisor.tape.stream import BACKWARD_MARK, Stream
from advisor.tape.written import Name, NotRepeatable, Repetition, Run, long_stream, write_out


@dataclass(slots=True)
class _Run:
    """Consecutive events of one layer, or (None) of none."""

    layer: int | None
    start: int
    stop: int
    turn: int = -1
    """Number of the pass through the layers that this run is part of."""
    step: int = 0
    """1 where that goes upwards, -1 where downwards."""


_Like = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a storage was born: stretch of one phase, layer, and which of its like there; outside of layers (stretch -1) its own number."""

    stretch: int
    layer: int
    like: _Like
    """Operator, size and place in the layer, so that what only an edge makes (a workspace, the final norm) does not shift the count."""
    ordinal: int


def repeat(stream: Stream, cut: Cut, layer_path: str) -> Stream:
    """The stream of the whole model, from that of its kept layers. Raises NotRepeatable."""
    return long_stream(stream, write_out(stream, repetition_of(stream, cut, layer_path)))


def repetition_of(stream: Stream, cut: Cut, layer_path: str) -> Repetition:
    """How `stream`, of the kept layers, is repeated for all. Raises NotRepeatable."""
    layers = _layers_of_events(stream, layer_path)
    runs = _in_passes(_without_late_deaths(stream, _runs(_absorbed(stream, layers), _mark_places(stream))))
    origins = _origins(stream, runs)
    compared = _compared(cut)
    last = len(cut.layers) - 1
    _check_equal_layers_agree(stream, runs, origins, compared, last)
    names = tuple(_names(stream, runs, origins, {layer for pair in compared for layer in pair}, last))
    made = tuple(Run(run.start, run.stop, -1 if run.layer is None else run.layer, run.step) for run in runs)
    return Repetition(made, names, cut.order)


def _compared(cut: Cut) -> list[tuple[int, int]]:
    """Pairs of kept layers of which one stands for the other."""
    stands = [cut.order[layer] for layer in cut.layers]
    return [(number, other) for number, other in enumerate(stands) if number != other]


def _layers_of_events(stream: Stream, layer_path: str) -> list[int | None]:
    """Layer of each event: where it happened, or else where its storage belongs."""
    pattern = re.compile(re.escape(layer_path.removeprefix("base_model.model.")) + r"\.(\d+)(?:\.|$)")
    cache: dict[str, int | None] = {}

    def layer_of(place: str) -> int | None:
        if place not in cache:
            found = pattern.search(place.removeprefix(BACKWARD_MARK))
            cache[place] = int(found.group(1)) if found else None
        return cache[place]

    layers: list[int | None] = []
    before: int | None = None
    for signed, place in zip(stream.events, stream.places, strict=True):
        layer = layer_of(place)
        if layer is None:
            born = stream.births[abs(signed) - 1]
            layer = layer_of(born.owner or born.place)
            if signed < 0 and layer is not None and before is not None and abs(layer - before) == 1:
                layer = before  # between two layers the caller lets go of the last one's input
        before = layer if layer is not None else before
        layers.append(layer)
    return layers


def _absorbed(stream: Stream, layers: list[int | None]) -> list[int | None]:
    """Events of no layer between two events of one layer in one phase, or of neighbours, belong to the layer before them."""
    result = list(layers)
    before: int | None = None
    gap = 0
    for index, layer in enumerate(layers):
        if layer is None:
            gap += 1
            continue
        if gap and before is not None:
            same_phase = stream.phases[index] is stream.phases[index - gap - 1]
            if abs(layer - before) == 1 or (layer == before and same_phase):
                result[index - gap : index] = [before] * gap
        before, gap = layer, 0
    return result


def _without_late_deaths(stream: Stream, runs: list[_Run]) -> list[_Run]:
    """A loop's variables die when the next round sets them: deaths of a neighbour within a layer's run stay in that run."""
    result: list[_Run] = []
    for position, run in enumerate(runs):
        following = runs[position + 1] if position + 1 < len(runs) else None
        if len(result) >= 1 and run.layer is not None and result[-1].layer is not None and following is not None:
            sandwiched = result[-1].layer == following.layer and abs(result[-1].layer - run.layer) == 1
            if sandwiched and not _has_births(stream, run) and _has_births(stream, following):
                result[-1].stop = run.stop
                continue
        if result and result[-1].layer == run.layer and result[-1].stop == run.start and run.start not in _mark_places(stream):
            result[-1].stop = run.stop
        else:
            result.append(run)
    return result


def _mark_places(stream: Stream) -> set[int]:
    return {index for index, _ in stream.marks}


def _has_births(stream: Stream, run: _Run) -> bool:
    return any(signed > 0 for signed in stream.events[run.start : run.stop])


def _runs(layers: list[int | None], breaks: set[int]) -> list[_Run]:
    runs: list[_Run] = []
    for index, layer in enumerate(layers):
        if runs and runs[-1].layer == layer and index not in breaks:
            runs[-1].stop = index + 1
        else:
            runs.append(_Run(layer, index, index + 1))
    return runs


def _in_passes(runs: list[_Run]) -> list[_Run]:
    """Number the passes through the layers. One that turns at the last or the first layer ends there, and the next begins beside it."""
    turn = -1
    before: _Run | None = None
    for run in runs:
        if run.layer is None:
            before = None
            continue
        step = 0 if before is None or before.layer is None else (run.layer > before.layer) - (run.layer < before.layer)
        if before is None or step == 0 or before.step == -step:
            turn, step = turn + 1, 0
        elif before.step == 0:
            before.step = step
        run.turn, run.step, before = turn, step, run
    return runs


def _origins(stream: Stream, runs: list[_Run]) -> list[_Origin]:
    """Origin of each storage. Like is counted from the last one back, since what a neighbour refers to is what was made last: a first or
    last layer may have made more before (the final norm)."""
    origins = [_Origin(-1, -1, ("", 0, ""), number) for number in range(len(stream.births))]
    place_in_layer = cache(lambda place: re.sub(r"\.\d+(?=\.|$)", ".*", place))
    found: dict[tuple[int, int, _Like], list[int]] = {}
    stretch, phase = 0, None
    for run in runs:
        for index in range(run.start, run.stop):
            if stream.phases[index] is not phase:
                stretch, phase = stretch + 1, stream.phases[index]
            signed = stream.events[index]
            if signed > 0 and run.layer is not None:
                born = stream.births[signed - 1]
                like = (born.op, born.size_bytes, place_in_layer(born.place))
                found.setdefault((stretch, run.layer, like), []).append(signed - 1)
    for (stretch, layer, like), numbers in found.items():
        for ordinal, number in enumerate(reversed(numbers)):
            origins[number] = _Origin(stretch, layer, like, ordinal)
    return origins


def _shape_of(stream: Stream, run: _Run | None, origins: list[_Origin], last: int) -> list[tuple[object, ...]]:
    """A run told so that equal layers tell the same."""
    shape: list[tuple[object, ...]] = []
    for signed in stream.events[run.start : run.stop] if run is not None else ():
        born = stream.births[abs(signed) - 1]
        origin = origins[abs(signed) - 1]
        named = _layer_named(origin, run.layer, last) if origin.stretch >= 0 and run is not None else None
        shape.append((signed > 0, born.size_bytes, born.op, origin.stretch, named, origin.ordinal))
    return shape


def _check_equal_layers_agree(stream: Stream, runs: list[_Run], origins: list[_Origin], compared: list[tuple[int, int]], last: int) -> None:
    by_turn: dict[int, dict[int, _Run]] = {}
    for run in runs:
        if run.layer is not None:
            by_turn.setdefault(run.turn, {})[run.layer] = run
    for found in by_turn.values():
        for one, other in compared:
            shapes = [_shape_of(stream, found.get(layer), origins, last) for layer in (one, other)]
            if shapes[0] != shapes[1]:
                raise NotRepeatable(f"layers {one} and {other} differ in what they did")


def _names(stream: Stream, runs: list[_Run], origins: list[_Origin], checked: set[int], last: int) -> Iterator[Name]:
    """Name of the storage of each event."""
    likes: dict[tuple[int, _Like, int], int] = {}
    for run in runs:
        for signed in stream.events[run.start : run.stop]:
            origin = origins[abs(signed) - 1]
            like = likes.setdefault((origin.stretch, origin.like, origin.ordinal), len(likes))
            layer, relative = _layer_named(origin, run.layer, last)
            if relative and abs(layer) > 1 and run.layer not in checked:
                raise NotRepeatable(f"layer {run.layer}, which has no like, uses what layer {origin.layer} made")
            yield Name(like, layer, relative)


def _layer_named(origin: _Origin, layer: int | None, last: int) -> tuple[int, bool]:
    """Layer where a storage was born that dies (or is born) in a run of `layer`, and whether it is told from that one.

    Raises NotRepeatable where what a layer amid the others made dies outside of them.
    """
    if origin.stretch < 0 or layer is None:
        if 0 < origin.layer < last:
            raise NotRepeatable("what a layer amid the others made dies outside of them")
        return origin.layer, False
    distance = origin.layer - layer
    if abs(distance) > 1 and origin.layer in (0, last):
        return origin.layer, False
    return distance, True
