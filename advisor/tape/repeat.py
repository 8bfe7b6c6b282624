"""Finds how the event stream of a short model is repeated for a deep one: by what its middle unit did.

The recording is split into runs of events that belong to one unit of layers. Where runs go through all units upwards (loading, forward,
optimizer) or downwards (backward), the run of a middle unit is repeated, and births and deaths are named anew: a death names its storage by
the run in which it was born, relative to its own unit. The two middle units of the recording must have done the same; else `NotRepeatable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from advisor.tape.cut import UNITS, Cut
from advisor.tape.stream import BACKWARD_MARK, Stream
from advisor.tape.written import Copies, Name, NotRepeatable, Repetition, long_stream, write_out

LAST = UNITS - 1


@dataclass(slots=True)
class Run:
    """Consecutive events of one unit, or (unit None) of none."""

    unit: int | None
    start: int
    stop: int
    chain: int = -1
    """Number of the pass over all units that this run is part of."""


_Like = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a storage was born: stretch of one phase, unit, and which of its like there; outside of units (stretch -1) its own number."""

    stretch: int
    unit: int
    like: _Like
    """Operator, size and place in the layer, so that what only an edge makes (a workspace, the final norm) does not shift the count."""
    ordinal: int


def repeat(stream: Stream, cut: Cut, layer_path: str) -> Stream:
    """The stream of `cut.total_units` units, from one of four. Raises NotRepeatable."""
    return long_stream(stream, write_out(stream, repetition_of(stream, cut, layer_path)))


def repetition_of(stream: Stream, cut: Cut, layer_path: str) -> Repetition:
    """How `stream`, of four units, is repeated to `cut.total_units` of them. Raises NotRepeatable."""
    units = _units_of_events(stream, cut, layer_path)
    runs = _chained(_without_late_deaths(stream, _runs(_absorbed(stream, units), _mark_places(stream))))
    origins = _origins(stream, runs)
    _check_middle_units_agree(stream, runs, origins)
    return Repetition(tuple(_copies(runs, cut.total_units)), tuple(_names(stream, runs, origins, cut.total_units)))


def _units_of_events(stream: Stream, cut: Cut, layer_path: str) -> list[int | None]:
    """Unit of each event: where it happened, or else where its storage belongs."""
    pattern = re.compile(re.escape(layer_path.removeprefix("base_model.model.")) + r"\.(\d+)(?:\.|$)")
    cache: dict[str, int | None] = {}

    def unit_of(place: str) -> int | None:
        if place not in cache:
            found = pattern.search(place.removeprefix(BACKWARD_MARK))
            cache[place] = cut.units[int(found.group(1))] if found else None
        return cache[place]

    units: list[int | None] = []
    before: int | None = None
    for signed, place in zip(stream.events, stream.places, strict=True):
        unit = unit_of(place)
        if unit is None:
            born = stream.births[abs(signed) - 1]
            unit = unit_of(born.owner or born.place)
            if signed < 0 and unit is not None and before is not None and abs(unit - before) == 1:
                unit = before  # between two layers the caller lets go of the last one's input
        before = unit if unit is not None else before
        units.append(unit)
    return units


def _absorbed(stream: Stream, units: list[int | None]) -> list[int | None]:
    """Events of no unit between two events of one unit in one phase, or of neighbours, belong to the unit before them."""
    result = list(units)
    before: int | None = None
    gap = 0
    for index, unit in enumerate(units):
        if unit is None:
            gap += 1
            continue
        if gap and before is not None:
            same_phase = stream.phases[index] is stream.phases[index - gap - 1]
            if abs(unit - before) == 1 or (unit == before and same_phase):
                result[index - gap : index] = [before] * gap
        before, gap = unit, 0
    return result


def _without_late_deaths(stream: Stream, runs: list[Run]) -> list[Run]:
    """A loop's variables die when the next round sets them: deaths of a neighbour within a unit's run stay in that run."""
    result: list[Run] = []
    for position, run in enumerate(runs):
        following = runs[position + 1] if position + 1 < len(runs) else None
        if len(result) >= 1 and run.unit is not None and result[-1].unit is not None and following is not None:
            sandwiched = result[-1].unit == following.unit and abs(result[-1].unit - run.unit) == 1
            if sandwiched and not _has_births(stream, run) and _has_births(stream, following):
                result[-1].stop = run.stop
                continue
        if result and result[-1].unit == run.unit and result[-1].stop == run.start and run.start not in _mark_places(stream):
            result[-1].stop = run.stop
        else:
            result.append(run)
    return result


def _mark_places(stream: Stream) -> set[int]:
    return {index for index, _ in stream.marks}


def _has_births(stream: Stream, run: Run) -> bool:
    return any(signed > 0 for signed in stream.events[run.start : run.stop])


def _runs(units: list[int | None], breaks: set[int]) -> list[Run]:
    runs: list[Run] = []
    for index, unit in enumerate(units):
        if runs and runs[-1].unit == unit and index not in breaks:
            runs[-1].stop = index + 1
        else:
            runs.append(Run(unit, index, index + 1))
    return runs


def _chained(runs: list[Run]) -> list[Run]:
    """Number the passes. A run at a turning point (…2, 3, 2…) ends one pass and begins the next."""
    chain = -1
    index = 0
    while index < len(runs):
        if runs[index].unit is None:
            index += 1
            continue
        chain += 1
        index = _one_pass(runs, index, chain)
    return runs


def _one_pass(runs: list[Run], index: int, chain: int) -> int:
    """Number the runs of the pass that begins at `index`; the index after it (at its last run, when the next pass begins there)."""
    first = runs[index]
    if first.unit not in (0, LAST):
        raise NotRepeatable(f"a pass begins in the middle, at unit {first.unit}")
    step = 1 if first.unit == 0 else -1
    if first.chain == -1:
        first.chain = chain
        if index + 1 >= len(runs) or runs[index + 1].unit != first.unit + step:
            return index + 1  # the first or the last unit alone
    expected = first.unit + step
    position = index + 1
    while 0 <= expected <= LAST:
        if position >= len(runs) or runs[position].unit != expected:
            raise NotRepeatable(f"a pass breaks off before unit {expected}")
        runs[position].chain = chain
        expected += step
        position += 1
    turns = position < len(runs) and runs[position].unit is not None and runs[position].unit == expected - 2 * step
    return position - 1 if turns else position


def _origins(stream: Stream, runs: list[Run]) -> list[_Origin]:
    """Origin of each storage. Like is counted from the last one back, since what a neighbour refers to is what was made last: a first or
    last unit may have made more before (odd layers, the final norm)."""
    origins = [_Origin(-1, -1, ("", 0, ""), number) for number in range(len(stream.births))]
    place_in_layer = cache(lambda place: re.sub(r"\.\d+(?=\.|$)", ".*", place))
    found: dict[tuple[int, int, _Like], list[int]] = {}
    stretch, phase = 0, None
    for run in runs:
        for index in range(run.start, run.stop):
            if stream.phases[index] is not phase:
                stretch, phase = stretch + 1, stream.phases[index]
            signed = stream.events[index]
            if signed > 0 and run.unit is not None:
                born = stream.births[signed - 1]
                like = (born.op, born.size_bytes, place_in_layer(born.place))
                found.setdefault((stretch, run.unit, like), []).append(signed - 1)
    for (stretch, unit, like), numbers in found.items():
        for ordinal, number in enumerate(reversed(numbers)):
            origins[number] = _Origin(stretch, unit, like, ordinal)
    return origins


def _shape_of(stream: Stream, run: Run, origins: list[_Origin]) -> list[tuple[object, ...]]:
    """A run told so that equal units tell the same."""
    shape: list[tuple[object, ...]] = []
    for signed in stream.events[run.start : run.stop]:
        born = stream.births[abs(signed) - 1]
        origin = origins[abs(signed) - 1]
        relative = origin.unit - run.unit if origin.stretch >= 0 and run.unit is not None else None
        shape.append((signed > 0, born.size_bytes, born.op, origin.stretch, relative, origin.ordinal))
    return shape


def _check_middle_units_agree(stream: Stream, runs: list[Run], origins: list[_Origin]) -> None:
    by_chain: dict[int, dict[int, Run]] = {}
    for run in runs:
        if run.unit is not None:
            by_chain.setdefault(run.chain, {})[run.unit] = run
    for middle in by_chain.values():
        if 1 in middle and 2 in middle and _shape_of(stream, middle[1], origins) != _shape_of(stream, middle[2], origins):
            raise NotRepeatable("the two middle units differ")


def _copies(runs: list[Run], total_units: int) -> Iterator[Copies]:
    """Every run in its order. The last unit moves to the end of the long model; copies of the middle unit go after unit 2 on the way up
    and before it on the way down."""
    last = total_units - 1
    for position, run in enumerate(runs):
        before = runs[position - 1].unit if position else None
        after = runs[position + 1].unit if position + 1 < len(runs) else None
        if run.unit is None:
            units: tuple[int, ...] = (-1,)
        elif run.unit == LAST:
            units = (last,)
        elif run.unit == 2 and after == LAST:
            units = (*((*range(last - 1, 2, -1),) if before == LAST else ()), *range(2, last))
        elif run.unit == 2 and before == LAST:
            units = tuple(range(last - 1, 1, -1))
        else:
            units = (run.unit,)
        yield Copies(run.start, run.stop, units)


def _names(stream: Stream, runs: list[Run], origins: list[_Origin], total_units: int) -> Iterator[Name]:
    """Name of the storage of each event."""
    likes: dict[tuple[int, _Like, int], int] = {}
    for run in runs:
        for signed in stream.events[run.start : run.stop]:
            origin = origins[abs(signed) - 1]
            like = likes.setdefault((origin.stretch, origin.like, origin.ordinal), len(likes))
            yield Name(like, *_unit_named(origin, run, total_units))


def _unit_named(origin: _Origin, run: Run, total_units: int) -> tuple[int, bool]:
    """Unit in the long model where a storage was born that dies (or is born) in a copy of `run`, and whether it is told from the copy's."""
    last = total_units - 1
    if origin.stretch < 0 or run.unit is None:
        if 0 < origin.unit < LAST:
            raise NotRepeatable("a middle unit's storage dies outside of the units")
        return (last if origin.unit == LAST else origin.unit), False
    distance = origin.unit - run.unit
    if abs(distance) <= 1:
        return distance, True
    if origin.unit in (0, LAST):
        return (last if origin.unit == LAST else 0), False
    return distance, True
