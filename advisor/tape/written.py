"""Writes a long stream out from a short one: which of its events are copied how often, and which storage each copy names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from advisor.tape.stream import Stream

_LAYERS = 1 << 20
"""More than a model has layers."""


class NotRepeatable(Exception):
    """The recording is not regular enough; trace the whole model instead."""


class Run(NamedTuple):
    """Consecutive events of one layer of the short model, or of none."""

    start: int
    stop: int
    layer: int
    """-1 stands for none."""
    step: int
    """Of the pass through the layers that it is part of: 1 for upwards, -1 for downwards; 0 where it stands alone."""


class Name(NamedTuple):
    """What a storage is called in every copy of the run that makes it or lets it go."""

    like: int
    """Number of its kind: storages of one kind are told apart by their layers."""
    layer: int
    """Distance from the layer of the copy where `relative`, else the layer itself: the short model's first or last, or -1 for none."""
    relative: bool


@dataclass(frozen=True, slots=True)
class Repetition:
    """How a short stream is written out for a deep model: its events copied run by run, with the storages that each names."""

    runs: tuple[Run, ...]
    names: tuple[Name, ...]
    """Of each event of the short stream."""
    order: tuple[int, ...]
    """For each layer of the deep model the short model's that does what it does; empty where the short model is the whole."""

    def copies(self) -> Iterator[tuple[Run, int]]:
        """Each run that is written out, with the layer of the deep model that it is written for, in their order."""
        last = len(self.order) - 1
        for run_of, step in _passes(self.runs):
            if step == 0:
                ((layer, run),) = run_of.items()
                yield run, layer if layer < 0 else self.order.index(layer)
                continue
            layers = range(last + 1) if step > 0 else range(last, -1, -1)
            yield from ((run_of[self.order[layer]], layer) for layer in layers if self.order[layer] in run_of)

    def times(self) -> Counter[Run]:
        """How often each run is written out."""
        return Counter(run for run, _ in self.copies())


def _passes(runs: Sequence[Run]) -> Iterator[tuple[dict[int, Run], int]]:
    """The runs of each pass through the layers by their layer, and which way it goes."""
    run_of: dict[int, Run] = {}
    before: Run | None = None
    for run in runs:
        follows = before is not None and run.step == before.step != 0 and (run.layer - before.layer) * run.step > 0
        if before is not None and not follows:
            yield run_of, before.step
            run_of = {}
        run_of[run.layer] = before = run
    if before is not None:
        yield run_of, before.step


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
    return Repetition((Run(0, len(stream.events), -1, 0),), names, ())


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
    alive: dict[int, int] = {}
    starts: dict[int, int] = {}
    short, names = stream.events, repetition.names
    deepest = len(repetition.order) - 1
    highest = repetition.order[-1] if repetition.order else deepest
    for (start, stop, _, _), copy in repetition.copies():
        starts.setdefault(start, len(events))
        sources.extend(range(start, stop))
        for signed, (like, layer, relative) in zip(short[start:stop], names[start:stop], strict=True):
            of = copy + layer if relative else deepest if layer == highest else layer
            name = like * _LAYERS + of  # one number for kind and layer, as a pair would be slower
            if signed > 0:
                births.append(signed - 1)
                number = alive[name] = len(births)
            else:
                if name not in alive:
                    raise NotRepeatable(f"a {stream.births[-signed - 1].op} dies that no copy has made")
                number = -alive.pop(name)
            events.append(number)
    marks = [(_moved(at, repetition.runs, starts, len(events)), text) for at, text in stream.marks]
    return Written(events, births, sources, marks)


def _moved(at: int, runs: Sequence[Run], starts: dict[int, int], end: int) -> int:
    """Where the long stream has the first copy of event `at`; its end where there is none."""
    found = next((run for run in runs if run.start <= at < run.stop), None)
    if found is None:
        return end
    if found.start not in starts:
        raise NotRepeatable("a step begins amid the layers")
    return starts[found.start] + at - found.start
