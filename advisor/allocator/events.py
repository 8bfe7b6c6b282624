"""What a recorded step is, births and deaths of storages in their order, and what its replay says."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from advisor.units import format_size


class Op(str, Enum):
    ALLOC = "alloc"
    FREE = "free"
    EMPTY_CACHE = "empty_cache"
    MARK = "mark"
    """A named moment, such as the end of a phase: the replay notes the counters here."""


@dataclass(frozen=True, slots=True)
class Event:
    op: Op
    key: Hashable = None
    """Names a storage between its alloc and its free, or a mark. May be used again after the free."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Counters at a mark; the peaks are those since the mark before."""

    key: Hashable
    event_index: int
    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A request that the card could not meet, in the terms of torch's message."""

    asked_bytes: int
    """Segment that was asked of the driver ("Tried to allocate")."""
    allocated_bytes: int
    reserved_bytes: int
    limit_bytes: int

    @property
    def sentence(self) -> str:
        return (
            f"out of memory: {format_size(self.asked_bytes)} asked; of {format_size(self.limit_bytes)}, "
            f"{format_size(self.allocated_bytes)} in use and {format_size(self.reserved_bytes - self.allocated_bytes)} cached"
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """Counters after a stream of events, or up to the event that did not fit."""

    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    """Comparable to `torch.cuda.max_memory_allocated()`."""
    peak_reserved_bytes: int
    """Comparable to `torch.cuda.max_memory_reserved()`."""
    peak_event_index: int
    """The alloc at which the allocated peak was first reached; -1 without one. What is alive then is what the peak is made of."""
    reserved_at_peak_bytes: int
    """Reserved just after that alloc."""
    marks: tuple[Mark, ...]
    retries: int
    """Times that the whole cache was given back to meet a request (num_alloc_retries)."""
    oom: OutOfMemory | None = None
    oom_event_index: int | None = None
