"""The card's side of the allocator's copy: segments taken from the driver, and the ways in which they are given back.

Follows c10/cuda/CUDACachingAllocator.cpp, torch 2.13; names in brackets are that file's.
"""

from __future__ import annotations

from bisect import bisect_left

from advisor.allocator.blocks import SMALL_SEGMENT_BYTES, Block, Pool


class Driver:
    """What the card has given out: the bytes reserved, held against the limit, and the addresses."""

    __slots__ = ("limit_bytes", "next_address", "peak_reserved_bytes", "reserved_bytes")

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0
        self.peak_reserved_bytes = 0
        self.next_address = SMALL_SEGMENT_BYTES

    def reserve(self, size_bytes: int) -> bool:
        """False, and nothing reserved, when the limit is in the way."""
        if self.limit_bytes is not None and self.reserved_bytes + size_bytes > self.limit_bytes:
            return False
        self.reserved_bytes += size_bytes
        if self.reserved_bytes > self.peak_reserved_bytes:
            self.peak_reserved_bytes = self.reserved_bytes
        return True

    def take_addresses(self, size_bytes: int) -> int:
        """Segments lie one behind the other and are never laid where another was."""
        address = self.next_address
        self.next_address += -(-size_bytes // SMALL_SEGMENT_BYTES) * SMALL_SEGMENT_BYTES
        return address


def release(driver: Driver, block: Block) -> None:
    """cudaFree of a segment that is one free block (release_block)."""
    block.pool.remove(block)
    driver.reserved_bytes -= block.size_bytes


def release_oversize(driver: Driver, pool: Pool, size_bytes: int, oversize_bytes: int) -> bool:
    """Frees the unsplittable blocks that a request needs, largest first; True when enough came free (release_available_cached_blocks)."""
    wanted_bytes = max(size_bytes, oversize_bytes)
    index = bisect_left(pool.free, (wanted_bytes,))
    if index < len(pool.free):
        release(driver, pool.free[index][2])
        return True
    released_bytes = 0
    while released_bytes < wanted_bytes and pool.free and pool.free[-1][0] >= oversize_bytes:
        released_bytes += pool.free[-1][0]
        release(driver, pool.free[-1][2])
    return released_bytes >= wanted_bytes


def collect_garbage(driver: Driver, pool: Pool, from_bytes: int) -> None:
    """Frees unsplit segments that have lain idle for the average time or longer, until reserved is down to `from_bytes`
    (garbage_collect_cached_blocks)."""
    target_bytes = driver.reserved_bytes - from_bytes
    idle = [block for _, _, block in pool.free if not block.is_split and block.segment is None]
    while target_bytes > 0 and idle:
        mean_age = sum(pool.calls - block.free_since_call for block in idle) / len(idle)
        old = [block for block in idle if pool.calls - block.free_since_call >= mean_age]
        for block in old:
            idle.remove(block)
            target_bytes -= block.size_bytes
            release(driver, block)
