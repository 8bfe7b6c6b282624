"""torch's CUDA caching allocator in pure Python: which segments a stream of allocations and frees makes the card reserve.

Behaviour follows c10/cuda/CUDACachingAllocator.cpp of torch 2.13 (these rules have stood since 2.1); names in brackets are its functions.
Left out: several streams, CUDA graphs' private pools, and the driver's choice of addresses. Here segments lie one behind the
other in the order of their birth; addresses only break ties between free blocks of equal size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from advisor.allocator.blocks import (
    LARGE_SEGMENT_BYTES,
    MIN_BLOCK_BYTES,
    SMALL_REQUEST_BYTES,
    SMALL_SEGMENT_BYTES,
    Block,
    Pool,
    link,
    merge_neighbours,
    prefer_less_expandable,
    round_size,
    segment_size,
)
from advisor.allocator.driver import Driver, collect_garbage, release, release_oversize
from advisor.allocator.events import Event, Mark, Op, OutOfMemory, Replay
from advisor.allocator.expandable import expand, unmap
from advisor.errors import AdvisorError, InvalidInputError
from advisor.units import format_size

__all__ = [
    "Allocator",
    "AllocatorConfig",
    "Block",
    "CardFullError",
    "Event",
    "Mark",
    "Op",
    "OutOfMemory",
    "Replay",
    "replay",
    "round_size",
    "segment_size",
]


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """What of `PYTORCH_ALLOC_CONF` changes the reserved bytes, with torch's defaults, and the card's limit."""

    limit_bytes: int | None = None
    """What the card can give to this allocator; None for no limit."""
    expandable_segments: bool = False
    max_split_size_bytes: int | None = None
    """Blocks of this size and above are never split; None for no limit."""
    max_non_split_rounding_bytes: int = LARGE_SEGMENT_BYTES
    """By how much such a block may exceed the request that it serves."""
    roundup_power2_divisions: int = 0
    """Round sizes up to one of so many steps between powers of two, at every size; 0 or 1 for off."""
    garbage_collection_threshold: float = 0.0
    """Share of the limit above which old cached segments are given back; 0 for off. Works only with a limit, as in torch."""
    large_segment_bytes: int = LARGE_SEGMENT_BYTES

    def __post_init__(self) -> None:
        divisions = self.roundup_power2_divisions
        if divisions < 0 or divisions & (divisions - 1):
            raise InvalidInputError(f"roundup_power2_divisions: {divisions} is no power of two; give one, or 0 for off")
        if self.max_split_size_bytes is not None and self.max_split_size_bytes < self.large_segment_bytes:
            raise InvalidInputError(f"max_split_size_bytes: torch asks for at least {format_size(self.large_segment_bytes)}")
        if not 0 <= self.garbage_collection_threshold < 1:
            raise InvalidInputError("garbage_collection_threshold: give a share from 0 (off) to below 1")
        if self.limit_bytes is not None and self.limit_bytes <= 0:
            raise InvalidInputError("limit_bytes: must be positive, or None for no limit")


DEFAULT_CONFIG = AllocatorConfig()


class CardFullError(AdvisorError):
    """Raised by `Allocator.malloc` where torch raises OutOfMemoryError; `state` says what was asked and held."""

    def __init__(self, state: OutOfMemory) -> None:
        super().__init__(state.sentence)
        self.state = state


def _no_block(pool: Pool, size_bytes: int) -> Block:
    if size_bytes < 0:
        raise InvalidInputError(f"size_bytes: {size_bytes} is negative")
    block = Block(pool, 0, 0)
    block.allocated = True
    return block


class Allocator:
    """One card's allocator on one stream. The counters are those of `torch.cuda.memory_allocated` and `memory_reserved`."""

    def __init__(self, config: AllocatorConfig = DEFAULT_CONFIG) -> None:
        self.config = config
        self.allocated_bytes = 0
        self.peak_allocated_bytes = 0
        self.retries = 0
        """Times that the whole cache was given back to meet a request (num_alloc_retries)."""
        self._small = Pool(is_small=True)
        self._large = Pool(is_small=False)
        self._driver = Driver(config.limit_bytes)
        self._gc_from_bytes: int | None = None
        if config.limit_bytes is not None and config.garbage_collection_threshold > 0:
            self._gc_from_bytes = int(config.garbage_collection_threshold * config.limit_bytes)

    @property
    def reserved_bytes(self) -> int:
        return self._driver.reserved_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        return self._driver.peak_reserved_bytes

    @property
    def cached_bytes(self) -> int:
        """Reserved and free, counted block by block."""
        return sum(size for pool in (self._small, self._large) for size, _, _ in pool.free)

    def reset_peaks(self) -> None:
        """As `torch.cuda.reset_peak_memory_stats()`."""
        self.peak_allocated_bytes = self.allocated_bytes
        self._driver.peak_reserved_bytes = self._driver.reserved_bytes

    def malloc(self, size_bytes: int) -> Block:
        """A block for one storage. An empty storage takes no memory (NativeCachingAllocator::allocate).

        Raises CardFullError when the limit is in the way even after the cache has been given back.
        """
        if size_bytes <= 0:
            return _no_block(self._small, size_bytes)
        size = round_size(size_bytes, self.config.roundup_power2_divisions)
        pool = self._small if size <= SMALL_REQUEST_BYTES else self._large
        block = self._split(self._take_free(pool, size) or self._grow(pool, size), size)
        block.allocated = True
        self.allocated_bytes += block.size_bytes
        if self.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = self.allocated_bytes
        return block

    def free(self, block: Block) -> None:
        """Gives a block back to its pool, joined with its free neighbours (free_block)."""
        if not block.allocated:
            raise InvalidInputError("block: freed twice")
        block.allocated = False
        if block.size_bytes:
            self.allocated_bytes -= block.size_bytes
            merge_neighbours(block)
            block.pool.insert(block)

    def empty_cache(self) -> None:
        """Gives every wholly free segment, and every wholly free handle, back to the driver (release_cached_blocks)."""
        for pool in (self._large, self._small):
            for _, _, block in list(pool.free):
                if block.segment is not None:
                    unmap(self._driver, block, block.segment)
                elif not block.is_split:
                    release(self._driver, block)

    # Finding a cached block.

    def _take_free(self, pool: Pool, size: int) -> Block | None:
        """Best fit: the smallest free block that is large enough, the lowest address among equals (get_free_block)."""
        if self._gc_from_bytes is not None:
            pool.calls += 1
        free = pool.free
        index = bisect_left(free, (size,))
        if index == len(free):
            return None
        if self.config.expandable_segments:
            index = prefer_less_expandable(free, index)
        block = free[index][2]
        oversize = self.config.max_split_size_bytes
        if oversize is not None:
            if size < oversize <= block.size_bytes:
                return None
            if size >= oversize and block.size_bytes >= size + self.config.max_non_split_rounding_bytes:
                return None
        del free[index]
        return block

    def _split(self, block: Block, size: int) -> Block:
        """The first `size` bytes of a block; the rest goes back to the pool where that is worth it (should_split)."""
        rest_bytes = block.size_bytes - size
        oversize = self.config.max_split_size_bytes
        if block.pool.is_small or self.config.expandable_segments:
            if rest_bytes < MIN_BLOCK_BYTES:
                return block
        elif rest_bytes <= SMALL_REQUEST_BYTES or (oversize is not None and size >= oversize):
            return block
        head = Block(block.pool, block.address, size, block.segment)
        link(block.prev, head, block)
        block.address += size
        block.size_bytes = rest_bytes
        block.pool.insert(block)
        return head

    # Asking the driver.

    def _grow(self, pool: Pool, size: int) -> Block:
        """A new segment; under a limit, cached ones are given back first as far as needed (malloc)."""
        if self._gc_from_bytes is not None:
            collect_garbage(self._driver, self._large, self._gc_from_bytes)
        block = self._new_block(pool, size)
        oversize = None if self.config.expandable_segments else self.config.max_split_size_bytes
        if block is None and oversize is not None and release_oversize(self._driver, pool, size, oversize):
            block = self._new_block(pool, size)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._new_block(pool, size)
        if block is None:
            asked_bytes = segment_size(size, self.config.large_segment_bytes)
            limit_bytes = self.config.limit_bytes or 0
            raise CardFullError(OutOfMemory(asked_bytes, self.allocated_bytes, self.reserved_bytes, limit_bytes))
        return block

    def _new_block(self, pool: Pool, size: int) -> Block | None:
        """A segment from the driver, in no list yet; None when the card is full (alloc_block)."""
        segment_bytes = segment_size(size, self.config.large_segment_bytes)
        if self.config.expandable_segments:
            return expand(self._driver, pool, size, SMALL_SEGMENT_BYTES if pool.is_small else self.config.large_segment_bytes)
        if not self._driver.reserve(segment_bytes):
            return None
        return Block(pool, self._driver.take_addresses(segment_bytes), segment_bytes)


class _Peaks:
    """Peaks of a whole stream, kept beside the allocator's own, which start anew at every mark."""

    __slots__ = ("allocated_bytes", "event_index", "marks", "reserved_at_peak_bytes", "reserved_bytes")

    def __init__(self) -> None:
        self.allocated_bytes = 0
        self.event_index = -1
        self.reserved_at_peak_bytes = 0
        self.reserved_bytes = 0
        self.marks: list[Mark] = []

    def rise(self, allocator: Allocator, index: int) -> None:
        self.allocated_bytes = allocator.allocated_bytes
        self.event_index = index
        self.reserved_at_peak_bytes = allocator.reserved_bytes

    def mark(self, allocator: Allocator, key: Hashable, index: int) -> None:
        now = (allocator.allocated_bytes, allocator.reserved_bytes)
        self.marks.append(Mark(key, index, *now, allocator.peak_allocated_bytes, allocator.peak_reserved_bytes))
        self.reserved_bytes = max(self.reserved_bytes, allocator.peak_reserved_bytes)
        allocator.reset_peaks()


def replay(events: Iterable[Event], config: AllocatorConfig = DEFAULT_CONFIG) -> Replay:
    """Runs a stream of events through a fresh allocator; under a limit it ends at the first request that the card cannot meet."""
    allocator = Allocator(config)
    peaks = _Peaks()
    blocks: dict[Hashable, Block] = {}
    oom: OutOfMemory | None = None
    op_alloc, op_free, op_mark = Op.ALLOC, Op.FREE, Op.MARK
    index = -1
    for index, event in enumerate(events):
        op = event.op
        if op is op_alloc:
            if event.key in blocks:
                raise InvalidInputError(f"event {index}: {event.key!r} is allocated twice; free it first")
            try:
                blocks[event.key] = allocator.malloc(event.size_bytes)
            except CardFullError as full:
                oom = full.state
                break
            if allocator.allocated_bytes > peaks.allocated_bytes:
                peaks.rise(allocator, index)
        elif op is op_free:
            block = blocks.pop(event.key, None)
            if block is None:
                raise InvalidInputError(f"event {index}: {event.key!r} is freed without being allocated")
            allocator.free(block)
        elif op is op_mark:
            peaks.mark(allocator, event.key, index)
        else:
            allocator.empty_cache()
    return Replay(
        allocated_bytes=allocator.allocated_bytes,
        reserved_bytes=allocator.reserved_bytes,
        peak_allocated_bytes=peaks.allocated_bytes,
        peak_reserved_bytes=max(peaks.reserved_bytes, allocator.peak_reserved_bytes),
        peak_event_index=peaks.event_index,
        reserved_at_peak_bytes=peaks.reserved_at_peak_bytes,
        marks=tuple(peaks.marks),
        retries=allocator.retries,
        oom=oom,
        oom_event_index=index if oom is not None else None,
    )
