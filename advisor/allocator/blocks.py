"""Blocks and pools of the CUDA caching allocator's copy, and the sizes that it rounds to.

Constants and rules follow c10/core/AllocatorConfig.h and c10/cuda/CUDACachingAllocator.cpp of torch 2.13; names in brackets are theirs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from advisor.units import MIB

MIN_BLOCK_BYTES = 512
"""Every request is rounded up to a multiple of this. kMinBlockSize, c10/core/AllocatorConfig.h, torch 2.13."""
SMALL_REQUEST_BYTES = 1 * MIB
"""Largest request of the small pool. kSmallSize, ibid."""
SMALL_SEGMENT_BYTES = 2 * MIB
"""Segment, or handle of an expandable segment, of the small pool. kSmallBuffer, ibid."""
LARGE_SEGMENT_BYTES = 20 * MIB
"""The same of the large pool, for requests under MIN_OWN_SEGMENT_BYTES. Default of
large_segment_size_, ibid. (kLargeBuffer in older torch)."""
MIN_OWN_SEGMENT_BYTES = 10 * MIB
"""From here on a request gets a segment of its own size. kMinLargeAlloc, ibid."""
OWN_SEGMENT_STEP_BYTES = 2 * MIB
"""Such a segment is rounded up to a multiple of this. kRoundLarge, ibid."""


def round_size(size_bytes: int, roundup_power2_divisions: int = 0) -> int:
    """Bytes that a request takes inside a segment (round_size, roundup_power2_next_division)."""
    if roundup_power2_divisions > 1 and size_bytes > MIN_BLOCK_BYTES * roundup_power2_divisions:
        power = 1 << (size_bytes.bit_length() - 1)
        step = power >> (roundup_power2_divisions.bit_length() - 1)
        return size_bytes if size_bytes == power else -(-size_bytes // step) * step
    return -(-size_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES or MIN_BLOCK_BYTES


def segment_size(size_bytes: int, large_segment_bytes: int = LARGE_SEGMENT_BYTES) -> int:
    """Segment that the driver is asked for when no cached block holds a rounded size (get_allocation_size)."""
    if size_bytes <= SMALL_REQUEST_BYTES:
        return SMALL_SEGMENT_BYTES
    if size_bytes < MIN_OWN_SEGMENT_BYTES:
        return large_segment_bytes
    return -(-size_bytes // OWN_SEGMENT_STEP_BYTES) * OWN_SEGMENT_STEP_BYTES


@dataclass(frozen=True, slots=True)
class ExpandableSegment:
    """A range of addresses that handles of physical memory are mapped into, one by one."""

    address: int
    size_bytes: int
    handle_bytes: int

    def handle_down(self, address: int) -> int:
        """Start of the handle that holds the address (segmentLeft)."""
        return self.address + (address - self.address) // self.handle_bytes * self.handle_bytes

    def handle_up(self, address: int) -> int:
        """The next handle's start, unless the address is one (segmentRight)."""
        return self.address - (self.address - address) // self.handle_bytes * self.handle_bytes


class Block:
    """A run of bytes inside a segment: the handle that `malloc` returns. Neighbours in the segment are linked."""

    __slots__ = ("address", "allocated", "free_since_call", "mapped", "next", "pool", "prev", "segment", "size_bytes")

    def __init__(self, pool: Pool, address: int, size_bytes: int, segment: ExpandableSegment | None = None) -> None:
        self.pool = pool
        self.address = address
        self.size_bytes = size_bytes
        self.segment = segment
        self.allocated = False
        self.mapped = True
        """False for a range of an expandable segment that no handle backs."""
        self.prev: Block | None = None
        self.next: Block | None = None
        self.free_since_call = 0
        """`Pool.calls` when the block became free (gc_count_base)."""

    @property
    def is_split(self) -> bool:
        return self.prev is not None or self.next is not None


class Pool:
    """Free blocks by (size, address) and unmapped ranges by address. Keys are unique, so the blocks behind them are never compared."""

    __slots__ = ("calls", "free", "is_small", "unmapped")

    def __init__(self, is_small: bool) -> None:
        self.is_small = is_small
        self.free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []
        self.calls = 0
        """How often a free block was sought: the clock of garbage collection (get_free_blocks_call_count)."""

    def insert(self, block: Block) -> None:
        block.free_since_call = self.calls
        insort(self.free, (block.size_bytes, block.address, block))

    def remove(self, block: Block) -> None:
        del self.free[bisect_left(self.free, (block.size_bytes, block.address))]

    def insert_unmapped(self, block: Block) -> None:
        insort(self.unmapped, (block.address, block))

    def remove_unmapped(self, block: Block) -> None:
        del self.unmapped[bisect_left(self.unmapped, (block.address,))]


def link(before: Block | None, block: Block, after: Block | None) -> None:
    """Puts a block between two neighbours (splice)."""
    block.prev = before
    block.next = after
    if before is not None:
        before.next = block
    if after is not None:
        after.prev = block


def merge_neighbours(block: Block) -> None:
    """Lets a block that stands in no list swallow the free neighbours of its kind (try_merge_blocks)."""
    for other in (block.prev, block.next):
        if other is None or other.allocated or other.mapped is not block.mapped:
            continue
        if other.mapped:
            block.pool.remove(other)
        else:
            block.pool.remove_unmapped(other)
        if block.prev is other:
            block.address = other.address
            link(other.prev, block, block.next)
        else:
            link(block.prev, block, other.next)
        block.size_bytes += other.size_bytes


def prefer_less_expandable(free: list[tuple[int, int, Block]], index: int) -> int:
    """Among expandable blocks best fit goes by the size that they can grow to (expandable_size in get_free_block)."""
    while index + 1 < len(free) and _expandable_bytes(free[index + 1][2]) < _expandable_bytes(free[index][2]):
        index += 1
    return index


def _expandable_bytes(block: Block) -> int:
    after = block.next
    return block.size_bytes + (after.size_bytes if after is not None and not after.mapped else 0)
