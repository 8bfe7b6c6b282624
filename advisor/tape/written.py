"""Writes a long stream out from a short one: which of its events are copied how often, and which storage each copy names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from advisor.tape.stream import Stream


class NotRepeatable(Exception):
    """The recording is not regular enough; trace the whole model instead."""


class Copies(NamedTuple):
    """Events start..stop of the short stream, written once for each unit of the long model."""

    start: int
    stop: int
    units: tuple[int, ...]
    """Units in the order in which they are written; -1 stands for none."""


class Name(NamedTuple):
    """What a storage is called in every copy of the run that makes it or lets it go."""

    like: int
    """Number of its kind: storages of one kind are told apart by their units."""
    unit: int
    """Distance from the unit of the copy where `relative`, else the unit itself."""
    relative: bool


@dataclass(frozen=True, slots=True)
class Repetition:
    """How a short stream is written out for a deep model: its events copied run by run, with the storages that each names."""

    copies: tuple[Copies, ...]
    names: tuple[Name, ...]
    """Of each event of the short stream."""


@dataclass(frozen=True, slots=True)
class Written:
    """A long stream, as references into the short one."""

    events: list[int]
    """As in `Stream.events`."""
    births: list[int]
    """Place in the short stream's births of each storage, in order of birth."""
    sources: list[int]
    """Event of the short stream that each event is a copy of."""
    marks: list[tuple[int, str]]


def unrepeated(stream: Stream) -> Repetition:
    """That of a stream which is the whole model's already."""
    names = tuple(Name(abs(signed), -1, False) for signed in stream.events)
    return Repetition((Copies(0, len(stream.events), (-1,)),), names)


def long_stream(stream: Stream, written: Written) -> Stream:
    """The long stream itself; a storage's copies share one `Birth`."""
    return Stream(
        births=[stream.births[index] for index in written.births],
        events=written.events,
        places=[stream.places[index] for index in written.sources],
        phases=[stream.phases[index] for index in written.sources],
        marks=written.marks,
        notes=stream.notes,
    )


def write_out(stream: Stream, repetition: Repetition) -> Written:
    """Copy run by run, numbering storages anew. Raises NotRepeatable where a storage dies that no copy has made."""
    events: list[int] = []
    births: list[int] = []
    sources: list[int] = []
    alive: dict[tuple[int, int], int] = {}
    starts: dict[int, int] = {}
    short, names = stream.events, repetition.names
    for copies in repetition.copies:
        starts[copies.start] = len(events)
        for unit in copies.units:
            sources.extend(range(copies.start, copies.stop))
            for index in range(copies.start, copies.stop):
                signed = short[index]
                like, distance, relative = names[index]
                name = (like, unit + distance if relative else distance)
                if signed > 0:
                    births.append(signed - 1)
                    number = alive[name] = len(births)
                else:
                    if name not in alive:
                        raise NotRepeatable(f"a {stream.births[-signed - 1].op} dies that no copy has made")
                    number = -alive.pop(name)
                events.append(number)
    marks = [(_moved(at, repetition.copies, starts, len(events)), text) for at, text in stream.marks]
    return Written(events, births, sources, marks)


def _moved(at: int, copies: tuple[Copies, ...], starts: dict[int, int], end: int) -> int:
    """Where the long stream has the first copy of event `at`; its end where there is none."""
    found = next((each for each in copies if each.start <= at < each.stop), None)
    return end if found is None else starts[found.start] + at - found.start


def deeper(repetition: Repetition, units: int, other_units: int) -> Repetition:
    """The same repetition for a model of `other_units` instead of `units`: copies of the middle unit are more or fewer, and the last unit,
    wherever it is named, is the other model's last (see `repeat.repetition_of`)."""
    last, other_last = units - 1, other_units - 1
    up, down = tuple(range(2, last)), tuple(range(last - 1, 2, -1))
    for_units = {
        up: tuple(range(2, other_last)),
        (*down, *up): (*range(other_last - 1, 2, -1), *range(2, other_last)),
        (*down, 2): tuple(range(other_last - 1, 1, -1)),
        (last,): (other_last,),
    }
    copies = tuple(each._replace(units=for_units.get(each.units, each.units)) for each in repetition.copies)
    names = tuple(name._replace(unit=other_last) if not name.relative and name.unit == last else name for name in repetition.names)
    return Repetition(copies, names)
