"""Pair the allocations of a card's history with those of a dry run: by size, as the allocator rounds it, and order, section by section."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from advisor.accuracy.align import align
from advisor.accuracy.history import Events, Label
from advisor.allocator.blocks import round_size
from advisor.values import Phase


class Moment(NamedTuple):
    """The highest moment of a phase."""

    live: frozenset[int]
    """Numbers of allocations."""
    bytes: int
    """Their rounded sizes."""


class Section(NamedTuple):
    """A stretch of events."""

    step: int
    phase: Phase
    time: int
    """How often this phase of this step has come before: an accumulation has several forwards."""


class Side:
    """One side's events, with what the comparison asks of them."""

    def __init__(self, events: Events) -> None:
        self.labels = [events.labels[entry.label] for entry in events.allocations]
        self.sizes = [round_size(entry.size_bytes) for entry in events.allocations]
        self.events = events.events

    def size(self, number: int) -> int:
        return self.sizes[number - 1]

    def label(self, number: int) -> Label:
        return self.labels[number - 1]

    def sections(self) -> dict[Section, range]:
        """Indices of each section's events; a free belongs to the section of the allocation before it."""
        found: dict[Section, range] = {}
        times: dict[tuple[int, Phase], int] = defaultdict(int)
        now, start = (0, Phase.LOAD), 0
        for index, number in enumerate(self.events):
            own = (self.label(number).step, self.label(number).phase) if number > 0 else now
            if own != now:
                found[Section(*now, times[now])] = range(start, index)
                times[now] += 1
                now, start = own, index
        found[Section(*now, times[now])] = range(start, len(self.events))
        return found

    def symbols(self, section: range) -> list[int]:
        """Signed rounded sizes: births and deaths."""
        return [self.size(number) if number > 0 else -self.size(-number) for number in (self.events[index] for index in section)]

    def peaks(self) -> dict[Phase, Moment]:
        """The highest moment of each phase, over all steps."""
        best: dict[Phase, tuple[int, int]] = {}
        live = 0
        for index, number in enumerate(self.events):
            live += self.size(number) if number > 0 else -self.size(-number)
            if number > 0 and live > best.get(self.label(number).phase, (-1, 0))[0]:
                best[self.label(number).phase] = (live, index)
        return {phase: Moment(self._live_at(index), size) for phase, (size, index) in best.items()}

    def _live_at(self, index: int) -> frozenset[int]:
        live: set[int] = set()
        for number in self.events[: index + 1]:
            if number > 0:
                live.add(number)
            else:
                live.discard(-number)
        return frozenset(live)


class Pairing(NamedTuple):
    """Which allocation of the card is which of the dry run."""

    to_trace: dict[int, int]
    matched: int
    moved: int
    near: dict[int, int]
    """Of an allocation that the card alone makes: the dry run's last one before it that has a counterpart."""

    @property
    def to_card(self) -> dict[int, int]:
        return {other: one for one, other in self.to_trace.items()}


def pair(card: Side, trace: Side) -> Pairing:
    ours, theirs = card.sections(), trace.sections()
    to_trace: dict[int, int] = {}
    near: dict[int, int] = {}
    matched = 0
    for key, section in ours.items():
        other = theirs.get(key, range(0))
        pairs = align(card.symbols(section), trace.symbols(other))
        found = [(card.events[section[one]], trace.events[other[two]]) for one, two in pairs]
        in_order = {one: two for one, two in found if one > 0}
        matched += len(in_order)
        in_order |= _by_size(card, section, trace, other, in_order)
        to_trace |= in_order
        near |= _neighbours(card, section, in_order)
    return Pairing(to_trace, matched, len(to_trace) - matched, near)


def _by_size(card: Side, section: range, trace: Side, other: range, paired: dict[int, int]) -> dict[int, int]:
    """Pairs of one size that both sides make in this section, in another order."""
    taken = set(paired.values())
    waiting: dict[int, list[int]] = defaultdict(list)
    for number in (trace.events[index] for index in reversed(other)):
        if number > 0 and number not in taken:
            waiting[trace.size(number)].append(number)
    own = (card.events[index] for index in section)
    left = [number for number in own if number > 0 and number not in paired]
    return {number: waiting[card.size(number)].pop() for number in left if waiting[card.size(number)]}


def _neighbours(card: Side, section: range, paired: dict[int, int]) -> Iterator[tuple[int, int]]:
    last = 0
    for number in (card.events[index] for index in section):
        if number > 0:
            last = paired.get(number, last)
            if number not in paired and last:
                yield number, last
