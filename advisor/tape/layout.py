"""Lays a recorded stream out in the caching allocator: what each storage really takes, and what is reserved when.

A block may be larger than its storage asked for, because torch does not split off a rest of less than 1 MiB: the surplus counts as
allocated on the card, so it counts here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from advisor.allocator.caching import DEFAULT_CONFIG, Allocator, AllocatorConfig, Block
from advisor.allocator.swift import Highest, SwiftAllocator, pages_of
from advisor.tape.stream import EMPTY_CACHE, STEP, Stream
from advisor.values import Phase


@dataclass(frozen=True, slots=True)
class Moment:
    """The highest moment of a phase (or of the run), and the event that made it."""

    phase: Phase
    event: int
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Blocks of a stream in order of birth, and the peaks."""

    block_bytes: list[int]
    peaks: dict[Phase, Moment]
    """Highest allocated moment of each phase."""
    peak_reserved_bytes: int
    step_reserved_bytes: tuple[int, ...]
    """Peak of reserved memory within each step (for a stream with step marks)."""

    @property
    def top(self) -> Moment:
        return max(self.peaks.values(), key=lambda moment: moment.allocated_bytes)


class Stretch(NamedTuple):
    """Consecutive events of one phase, with the marks that stand before them."""

    phase: Phase
    start: int
    stop: int
    marks: tuple[str, ...]


def lay_out(stream: Stream, config: AllocatorConfig = DEFAULT_CONFIG) -> Layout:
    """Run the stream through a fresh allocator. Raises CardFullError when a limit in `config` is hit."""
    sizes = [born.size_bytes for born in stream.births]
    return lay_out_events(stream.events, sizes, stretches_of(stream.phases, stream.marks), config)


def lay_out_events(
    events: list[int], sizes_bytes: list[int], stretches: Iterable[Stretch], config: AllocatorConfig = DEFAULT_CONFIG
) -> Layout:
    """The same of a stream whose parts are at hand: sizes in order of birth, and where phases and marks cut the events."""
    swift = config == DEFAULT_CONFIG
    allocator = SwiftAllocator(list(map(pages_of, sizes_bytes))) if swift else _Settled(sizes_bytes, config)
    peaks: dict[Phase, Moment] = {}
    steps: list[int] = []
    for stretch in stretches:
        for mark in stretch.marks:
            if mark == EMPTY_CACHE:
                allocator.empty_cache()
            elif mark == STEP:
                steps.append(0)
        top = allocator.run(events, stretch.start, stretch.stop)
        if stretch.phase not in peaks or top.allocated_bytes > peaks[stretch.phase].allocated_bytes:
            peaks[stretch.phase] = Moment(stretch.phase, *top)
        if steps:
            steps[-1] = max(steps[-1], allocator.reserved_bytes)
    return Layout(allocator.block_bytes(), peaks, allocator.peak_reserved_bytes, tuple(steps))


def stretches_of(phases: list[Phase], at: list[tuple[int, str]]) -> tuple[Stretch, ...]:
    """A stream cut where its phase changes and where a mark stands."""
    marks: dict[int, list[str]] = {}
    for index, mark in at:
        marks.setdefault(index, []).append(mark)
    ends = [index for index in range(1, len(phases)) if phases[index] is not phases[index - 1] or index in marks]
    cuts = [0, *ends, len(phases)]
    return tuple(Stretch(phases[start], start, stop, tuple(marks.get(start, ()))) for start, stop in pairwise(cuts) if stop > start)


class _Settled:
    """An allocator with settings of its own, played like the swift one."""

    def __init__(self, sizes: list[int], config: AllocatorConfig) -> None:
        self._sizes = sizes
        self._allocator = Allocator(config)
        self._blocks: dict[int, Block] = {}
        self._given = [0] * len(sizes)

    @property
    def reserved_bytes(self) -> int:
        return self._allocator.reserved_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        return self._allocator.peak_reserved_bytes

    def block_bytes(self) -> list[int]:
        return self._given

    def empty_cache(self) -> None:
        self._allocator.empty_cache()

    def run(self, events: list[int], start: int, stop: int) -> Highest:
        allocator, highest = self._allocator, Highest(start, -1, 0)
        for index in range(start, stop):
            signed = events[index]
            if signed > 0:
                block = self._blocks[signed] = allocator.malloc(self._sizes[signed - 1])
                self._given[signed - 1] = block.size_bytes
            else:
                allocator.free(self._blocks.pop(-signed))
            if allocator.allocated_bytes > highest.allocated_bytes:
                highest = Highest(index, allocator.allocated_bytes, allocator.reserved_bytes)
        return highest
