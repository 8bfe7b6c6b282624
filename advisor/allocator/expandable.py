"""Expandable segments: one range of addresses per pool, backed by handles of physical memory as it grows.

Follows ExpandableSegment and its callers in c10/cuda/CUDACachingAllocator.cpp, torch 2.13; names in brackets are that file's.
"""

from __future__ import annotations

from advisor.allocator.blocks import Block, ExpandableSegment, Pool, link, merge_neighbours
from advisor.allocator.driver import Driver

ADDRESS_SPACE_BYTES = 1 << 47
"""Addresses of a segment when no limit is given: the user half of x86-64's 48-bit space, so that it never fills."""


def expand(driver: Driver, pool: Pool, size_bytes: int, handle_bytes: int) -> Block | None:
    """A block of at least `size_bytes` in no list, made by mapping handles; None when the card is full (try_allocate_expandable_block)."""
    block = _find_expandable(driver, pool, size_bytes, handle_bytes)
    if not block.mapped and not _map(driver, block, min(block.size_bytes, size_bytes)):
        return None
    while block.size_bytes < size_bytes:
        after = block.next
        assert after is not None  # _find_expandable has seen enough room behind it
        if not _map(driver, after, min(size_bytes - block.size_bytes, after.size_bytes)):
            return None
        block = after
    pool.remove(block)
    return block


def _find_expandable(driver: Driver, pool: Pool, size_bytes: int, handle_bytes: int) -> Block:
    """The lowest run of free and unmapped blocks with room enough, or a new segment (find_expandable_block)."""
    for _, unmapped in pool.unmapped:
        before = unmapped.prev
        start = unmapped if before is None or before.allocated else before
        if _has_room(start, size_bytes):
            return start
    # torch reserves addresses for 1 1/8 of the card (ExpandableSegment's constructor). A request beyond that must still fail
    # at the limit, not here.
    span_bytes = ADDRESS_SPACE_BYTES if driver.limit_bytes is None else driver.limit_bytes + driver.limit_bytes // 8
    span_bytes = -(-max(span_bytes, size_bytes) // handle_bytes) * handle_bytes
    segment = ExpandableSegment(driver.take_addresses(span_bytes), span_bytes, handle_bytes)
    block = Block(pool, segment.address, span_bytes, segment)
    block.mapped = False
    pool.insert_unmapped(block)
    return block


def _has_room(start: Block, size_bytes: int) -> bool:
    block: Block | None = start
    room_bytes = 0
    while block is not None and not block.allocated and room_bytes < size_bytes:
        room_bytes += block.size_bytes
        block = block.next
    return room_bytes >= size_bytes


def _map(driver: Driver, block: Block, size_bytes: int) -> bool:
    """Backs the front of an unmapped range with whole handles and makes it a free block (map_block)."""
    segment = block.segment
    assert segment is not None  # only expandable segments have unmapped ranges
    mapped_bytes = segment.handle_up(block.address + size_bytes) - block.address
    if not driver.reserve(mapped_bytes):
        return False
    block.pool.remove_unmapped(block)
    block.mapped = True
    if mapped_bytes < block.size_bytes:
        rest = Block(block.pool, block.address + mapped_bytes, block.size_bytes - mapped_bytes, segment)
        rest.mapped = False
        link(block, rest, block.next)
        block.pool.insert_unmapped(rest)
        block.size_bytes = mapped_bytes
    merge_neighbours(block)
    block.pool.insert(block)
    return True


def unmap(driver: Driver, block: Block, segment: ExpandableSegment) -> None:
    """Gives the handles that lie wholly inside a free block back; its ends stay free (unmap_block, release_expandable_segment)."""
    end = block.address + block.size_bytes
    unmapped_start, unmapped_end = segment.handle_up(block.address), segment.handle_down(end)
    if unmapped_start >= unmapped_end:
        return
    pool = block.pool
    pool.remove(block)
    if unmapped_start > block.address:
        before = Block(pool, block.address, unmapped_start - block.address, segment)
        link(block.prev, before, block)
        pool.insert(before)
    if unmapped_end < end:
        after = Block(pool, unmapped_end, end - unmapped_end, segment)
        link(block, after, block.next)
        pool.insert(after)
    block.address, block.size_bytes, block.mapped = unmapped_start, unmapped_end - unmapped_start, False
    driver.reserved_bytes -= block.size_bytes
    merge_neighbours(block)
    if block.is_split:
        pool.insert_unmapped(block)
