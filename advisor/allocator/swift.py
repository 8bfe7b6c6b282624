"""The caching allocator with torch's default settings and no limit, written for speed: whole streams are replayed in one loop.

The rules are those of `advisor.allocator.caching`, which has every setting; tests/test_allocator.py holds the two against each other.
Everything is counted in pages of 512 bytes. There are no block objects: a free block is an integer that sorts by size, then by address,
and its neighbours are found by where they begin and end. Segments lie apart by a page, so that blocks of two never touch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from advisor.allocator.blocks import MIN_BLOCK_BYTES, SMALL_REQUEST_BYTES, segment_size

_ADDRESS_BITS = 40
"""Bits of a page's address: 512 TiB, more than a stream can reserve."""
_ADDRESS = (1 << _ADDRESS_BITS) - 1
_SMALL_PAGES = SMALL_REQUEST_BYTES // MIN_BLOCK_BYTES


class Highest(NamedTuple):
    """The highest moment of a part of a stream: after which event, and the bytes then."""

    event: int
    allocated_bytes: int
    reserved_bytes: int


def pages_of(size_bytes: int) -> int:
    """Pages that a storage asks for; an empty one asks for none."""
    return -(-size_bytes // MIN_BLOCK_BYTES)


class SwiftAllocator:
    """One card's allocator, for one stream. `asked` are the pages of each storage; storages count from 1 in events."""

    def __init__(self, asked: list[int]) -> None:
        self._asked = asked
        self._small: list[int] = []
        """Free blocks of the small pool, each as size and address in one number, in order."""
        self._large: list[int] = []
        """The same of the large pool."""
        self._pools = [self._small if pages <= _SMALL_PAGES else self._large for pages in asked]
        self._begins = [0] * (len(asked) + 1)
        """Address of each storage's block."""
        self._given = [0] * (len(asked) + 1)
        """Pages of each storage's block."""
        self._size_at: dict[int, int] = {}
        """Pages of the free block that begins at an address."""
        self._start_of: dict[int, int] = {}
        """Where the free block begins that ends at an address."""
        self._segments: dict[int, int] = {}
        """Pages of each segment by its address."""
        self._next_address = 0
        self._allocated = 0
        self._reserved = 0
        self._most_reserved = 0

    @property
    def reserved_bytes(self) -> int:
        return self._reserved * MIN_BLOCK_BYTES

    @property
    def peak_reserved_bytes(self) -> int:
        return self._most_reserved * MIN_BLOCK_BYTES

    def block_bytes(self) -> list[int]:
        """What each storage took, in order of birth."""
        return [pages * MIN_BLOCK_BYTES for pages in self._given[1:]]

    def run(self, events: list[int], start: int, stop: int) -> Highest:
        """Play events start..stop; the highest moment among them, each taken just after its event."""
        asked, begins, given, pools, small = self._asked, self._begins, self._given, self._pools, self._small
        size_at, start_of = self._size_at, self._start_of
        allocated, reserved_before = self._allocated, self._reserved
        highest, at, reserved_then = -1, start, reserved_before
        for index, number in enumerate(events[start:stop], start):
            if number > 0:
                pages, free = asked[number - 1], pools[number - 1]
                if not pages:
                    continue
                place = bisect_left(free, pages << _ADDRESS_BITS)
                if place < len(free):  # best fit: the smallest that is large enough, the lowest address among equals
                    key = free.pop(place)
                    block, size = key & _ADDRESS, key >> _ADDRESS_BITS
                    del size_at[block], start_of[block + size]
                else:
                    block, size = self._grow(pages)
                rest = size - pages
                if rest > _SMALL_PAGES or (rest and free is small):  # what is left is worth splitting off
                    rest_block = block + pages
                    size_at[rest_block] = rest
                    start_of[block + size] = rest_block
                    insort(free, rest << _ADDRESS_BITS | rest_block)
                    size = pages
                begins[number], given[number] = block, size
                allocated += size
                if allocated > highest:
                    highest, at, reserved_then = allocated, index, self._reserved
            elif size := given[-number]:
                allocated -= size
                block, free = begins[-number], pools[-number - 1]
                if (behind := block + size) in size_at:  # joined with the free blocks behind it and before it
                    more = size_at.pop(behind)
                    del free[bisect_left(free, more << _ADDRESS_BITS | behind)]
                    size += more
                if block in start_of:
                    before = start_of.pop(block)
                    del free[bisect_left(free, (block - before) << _ADDRESS_BITS | before)]
                    block, size = before, size + block - before
                size_at[block] = size
                start_of[block + size] = block
                insort(free, size << _ADDRESS_BITS | block)
        first = self._allocated - (given[-events[start]] if events[start] < 0 else 0)
        if first >= highest:  # nothing that was born goes above what the first event left
            highest, at, reserved_then = first, start, reserved_before
        self._allocated = allocated
        return Highest(at, highest * MIN_BLOCK_BYTES, reserved_then * MIN_BLOCK_BYTES)

    def _grow(self, pages: int) -> tuple[int, int]:
        """A new segment: its address and its pages."""
        size = segment_size(pages * MIN_BLOCK_BYTES) // MIN_BLOCK_BYTES
        block = self._next_address
        self._next_address += size + 1
        self._segments[block] = size
        self._reserved += size
        self._most_reserved = max(self._most_reserved, self._reserved)
        return block, size

    def empty_cache(self) -> None:
        """Give every wholly free segment back to the driver."""
        for free in (self._small, self._large):
            for key in [*free]:
                block, size = key & _ADDRESS, key >> _ADDRESS_BITS
                if self._segments.get(block) == size:
                    del free[bisect_left(free, key)], self._size_at[block], self._start_of[block + size], self._segments[block]
                    self._reserved -= size
