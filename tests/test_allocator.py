"""The caching allocator's copy: sizes and streams worked out by hand from torch's rules, and laws over random streams."""

from __future__ import annotations

import random
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings, strategies as st

from advisor.allocator.alloc_conf import read_alloc_conf
from advisor.allocator.caching import Allocator, AllocatorConfig, Block, CardFullError, Event, Op, replay, round_size, segment_size
from advisor.allocator.swift import SwiftAllocator
from advisor.errors import InvalidInputError
from advisor.tape.layout import lay_out
from advisor.tape.stream import EMPTY_CACHE, Birth, Stream
from advisor.units import KIB, MIB
from advisor.values import Phase

EXPANDABLE = AllocatorConfig(expandable_segments=True)
CONFIGS = (
    AllocatorConfig(),
    EXPANDABLE,
    AllocatorConfig(max_split_size_bytes=64 * MIB),
    AllocatorConfig(roundup_power2_divisions=8),
    AllocatorConfig(limit_bytes=200 * MIB, garbage_collection_threshold=0.5),
    AllocatorConfig(limit_bytes=200 * MIB, expandable_segments=True),
    AllocatorConfig(limit_bytes=200 * MIB, max_split_size_bytes=32 * MIB),
)


@pytest.mark.parametrize(
    ("size_bytes", "divisions", "rounded"),
    [
        (1, 0, 512),
        (512, 0, 512),
        (513, 0, 1024),
        (MIB, 0, MIB),
        (MIB + 1, 0, MIB + 512),
        (10 * MIB - 1, 0, 10 * MIB),
        (1200, 4, 1536),  # not above 512 x 4: multiples of 512 as without divisions
        (1200 * MIB, 1, 1200 * MIB),
        (1200, 0, 1536),
        # torch's documentation of roundup_power2_divisions: 1200 lies between 1024 and 2048; with 4 divisions the steps are
        # 1024, 1280, 1536, 1792, so it becomes 1280 (here in KiB, since small sizes are left alone).
        (1200 * KIB, 4, 1280 * KIB),
        (1280 * KIB, 4, 1280 * KIB),
        (2047 * KIB, 4, 2048 * KIB),
        (2048 * KIB, 4, 2048 * KIB),
    ],
)
def test_round_size(size_bytes: int, divisions: int, rounded: int) -> None:
    assert round_size(size_bytes, divisions) == rounded


@pytest.mark.parametrize(
    ("size_bytes", "segment_bytes"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_segment_size(size_bytes: int, segment_bytes: int) -> None:
    assert segment_size(size_bytes) == segment_bytes


# One row: settings, steps ("+name size", "-name", "empty"), then allocated, reserved and both peaks in MiB, by hand.
STREAMS = [
    ("small requests share a 2 MiB segment", AllocatorConfig(), "+a 1M +b 1M", (2, 2, 2, 2)),
    ("the third opens another", AllocatorConfig(), "+a 1M +b 1M +c 0.5M", (2.5, 4, 2.5, 4)),
    ("1 to 10 MiB come out of 20 MiB", AllocatorConfig(), "+a 9M +b 9M", (18, 20, 18, 20)),
    ("a rest above 1 MiB is split off", AllocatorConfig(), "+a 20M -a +b 18.5M", (18.5, 20, 20, 20)),
    ("a rest of 1 MiB is handed out too", AllocatorConfig(), "+a 20M -a +b 19M", (20, 20, 20, 20)),
    ("own segments are rounded to 2 MiB", AllocatorConfig(), "+a 33M", (34, 34, 34, 34)),
    ("freed neighbours join", AllocatorConfig(), "+a 9M +b 9M -a -b +c 20M", (20, 20, 20, 20)),
    ("across one in use they do not", AllocatorConfig(), "+a 6M +b 6M +c 6M -a -c +d 12M", (18, 32, 18, 32)),
    ("best fit leaves the large block alone", AllocatorConfig(), "+a 40M +b 30M -a -b +c 30M +d 40M", (70, 70, 70, 70)),
    ("growing sizes strand old segments", AllocatorConfig(), "+a 30M -a +b 32M -b +c 34M", (34, 96, 34, 96)),
    ("the pools do not share", AllocatorConfig(), "+a 20M -a +b 1M", (1, 22, 20, 22)),
    ("empty_cache frees whole segments", AllocatorConfig(), "+a 30M +b 1M -a -b empty", (0, 0, 31, 32)),
    ("but no split one", AllocatorConfig(), "+a 6M +b 6M -a empty", (6, 20, 12, 20)),
    ("expandable: growing sizes strand nothing", EXPANDABLE, "+a 30M -a +b 32M -b +c 34M", (34, 40, 34, 40)),
    ("expandable: handles of 20 MiB", EXPANDABLE, "+a 33M", (33, 40, 33, 40)),
    ("expandable: the tail is used", EXPANDABLE, "+a 33M +b 7M", (40, 40, 40, 40)),
    ("expandable: small pool by 2 MiB", EXPANDABLE, "+a 1M +b 1M +c 0.5M", (2.5, 4, 2.5, 4)),
    ("expandable: empty_cache unmaps whole handles", EXPANDABLE, "+a 10M +b 45M +c 10M -b empty", (20, 60, 65, 80)),
    ("expandable: unmapped gaps are filled first", EXPANDABLE, "+a 10M +b 45M +c 5M -b empty +d 45M", (60, 60, 60, 60)),
    ("oversize blocks are not split", AllocatorConfig(max_split_size_bytes=32 * MIB), "+a 60M -a +b 10M", (10, 70, 60, 70)),
    ("nor given to a much smaller request", AllocatorConfig(max_split_size_bytes=32 * MIB), "+a 60M -a +b 40M", (40, 100, 60, 100)),
    ("within 20 MiB they are, whole", AllocatorConfig(max_split_size_bytes=32 * MIB), "+a 60M -a +b 41M", (60, 60, 60, 60)),
    ("a limit makes the cache go first", AllocatorConfig(limit_bytes=80 * MIB), "+a 40M -a +b 60M", (60, 60, 60, 60)),
    (
        "with a split limit only what is needed goes",
        AllocatorConfig(limit_bytes=140 * MIB, max_split_size_bytes=20 * MIB),
        "+a 30M +b 40M +c 60M -a -b -c +d 80M",
        (80, 110, 130, 130),
    ),
    (
        "garbage collection frees idle segments above the threshold",
        AllocatorConfig(limit_bytes=100 * MIB, garbage_collection_threshold=0.5),
        "+a 30M +b 40M -a -b +c 44M",
        (44, 44, 70, 70),
    ),
    (
        "it frees them although the card has room: 130 are reserved, above a quarter of 400, when nothing idle holds 70",
        AllocatorConfig(limit_bytes=400 * MIB, garbage_collection_threshold=0.25),
        "+a 60M +b 40M +c 30M -a -b +d 70M",
        (100, 100, 130, 130),
    ),
    (
        "it stops at the threshold, the oldest first: a brings 162 under 110, so b stays",
        AllocatorConfig(limit_bytes=440 * MIB, garbage_collection_threshold=0.25),
        "+a 60M +b 40M -a +c 62M -b +d 64M",
        (126, 166, 126, 166),
    ),
    (
        "it stops where just enough has gone: 162 are 52 above 110, which a is",
        AllocatorConfig(limit_bytes=440 * MIB, garbage_collection_threshold=0.25),
        "+a 52M +b 40M -a +c 70M -b +d 64M",
        (134, 174, 134, 174),
    ),
    (
        "cached segments below the split limit go only with the whole cache, the small pool's among it",
        AllocatorConfig(limit_bytes=200 * MIB, max_split_size_bytes=40 * MIB),
        "+k 38M +a 38M +b 38M +c 38M +d 1M -a -b -c -d +e 80M",
        (118, 118, 153, 154),
    ),
    (
        "above it the largest go first, one after another, whatever smaller ones lie beside them",
        AllocatorConfig(limit_bytes=300 * MIB, max_split_size_bytes=40 * MIB),
        "+k 38M +a 22M +b 24M +c 60M +d 70M -a -b -c -d +e 130M",
        (168, 214, 214, 214),
    ),
]


@pytest.mark.parametrize(("what", "config", "steps", "expected_mib"), STREAMS, ids=[row[0] for row in STREAMS])
def test_streams(what: str, config: AllocatorConfig, steps: str, expected_mib: tuple[float, ...]) -> None:
    result = replay(_events(steps), config)
    assert result.oom is None, what
    counters = (result.allocated_bytes, result.reserved_bytes, result.peak_allocated_bytes, result.peak_reserved_bytes)
    assert tuple(counter / MIB for counter in counters) == expected_mib


def test_replay_names_the_peak_and_the_marks() -> None:
    events = [*_events("+a 30M +b 40M -a"), Event(Op.MARK, "forward"), *_events("+c 20M -b"), Event(Op.MARK, "backward")]
    result = replay(events)
    assert (result.peak_event_index, result.reserved_at_peak_bytes) == (1, 70 * MIB)
    forward, backward = result.marks
    assert (forward.key, forward.event_index, forward.peak_allocated_bytes, forward.allocated_bytes) == ("forward", 3, 70 * MIB, 40 * MIB)
    assert (backward.peak_allocated_bytes, backward.allocated_bytes) == (60 * MIB, 20 * MIB)
    assert (backward.peak_reserved_bytes, result.peak_reserved_bytes) == (70 * MIB, 70 * MIB)


def test_a_peak_that_comes_twice_is_named_where_it_came_first() -> None:
    """As torch keeps its statistic: `max(current, peak)` (c10/core/CachingDeviceAllocator.h, Stat::increase), no later equal one."""
    result = replay(_events("+a 30M -a +b 10M +c 20M"))
    assert (result.peak_event_index, result.reserved_at_peak_bytes) == (0, 30 * MIB)
    pages = [60, 20, 40]
    found = SwiftAllocator(pages).run([1, -1, 2, 3], 0, 4)
    assert (found.event, found.allocated_bytes) == (0, 60 * 512)
    two_parts = SwiftAllocator([60, 20, 20])
    two_parts.run([1, 2], 0, 2)
    found = two_parts.run([1, 2, -1, -2, 3], 2, 5)  # 20 pages are left, then none, then 20 again
    assert (found.event, found.allocated_bytes) == (2, 20 * 512)


def test_out_of_memory_is_a_value_of_the_replay() -> None:
    result = replay(_events("+a 30M +b 40M -b +c 60M +d 1M"), AllocatorConfig(limit_bytes=80 * MIB))
    assert result.oom is not None
    assert (result.oom_event_index, result.retries, result.allocated_bytes) == (3, 1, 30 * MIB)
    state = (result.oom.asked_bytes, result.oom.allocated_bytes, result.oom.reserved_bytes, result.oom.limit_bytes)
    assert state == (60 * MIB, 30 * MIB, 30 * MIB, 80 * MIB)
    assert result.oom.sentence == "out of memory: 60.0 MiB asked; of 80.0 MiB, 30.0 MiB in use and 0.0 GiB cached"


@pytest.mark.parametrize("config", [AllocatorConfig(limit_bytes=50 * MIB), AllocatorConfig(limit_bytes=50 * MIB, expandable_segments=True)])
def test_a_full_card_raises_and_stays_usable(config: AllocatorConfig) -> None:
    allocator = Allocator(config)
    kept = allocator.malloc(30 * MIB)
    with pytest.raises(CardFullError, match="out of memory"):
        allocator.malloc(60 * MIB)
    assert allocator.allocated_bytes == 30 * MIB
    allocator.free(kept)
    assert allocator.malloc(40 * MIB).size_bytes == 40 * MIB


@pytest.mark.parametrize(("limit_mib", "span_mib"), [(1440, 1620), (1430, 1620), (20, 40)])
def test_an_expandable_segment_spans_an_eighth_more_than_the_card(limit_mib: int, span_mib: int) -> None:
    """torch 2.13, ExpandableSegment: "we allocate enough address space for 1 1/8 the total memory on the GPU", in whole handles.

    By hand: 1,440 and its eighth are 81 handles of 20 MiB; 1,430 and its 178.75 are 80.4, so 81; 20 and 2.5 are two.
    """
    segment = Allocator(AllocatorConfig(limit_bytes=limit_mib * MIB, expandable_segments=True)).malloc(2 * MIB).segment
    assert segment is not None
    assert segment.size_bytes == span_mib * MIB


def test_an_empty_storage_takes_nothing() -> None:
    allocator = Allocator()
    allocator.free(allocator.malloc(0))
    assert (allocator.peak_allocated_bytes, allocator.peak_reserved_bytes) == (0, 0)
    for events in ([], [Event(Op.ALLOC, "of no size")], [Event(Op.MARK, "forward")]):
        result = replay(events)
        assert (result.peak_allocated_bytes, result.peak_reserved_bytes, result.peak_event_index) == (0, 0, -1)


def test_wrong_use_is_refused() -> None:
    allocator = Allocator()
    block = allocator.malloc(512)
    allocator.free(block)
    with pytest.raises(InvalidInputError, match="freed twice"):
        allocator.free(block)
    with pytest.raises(InvalidInputError, match="negative"):
        allocator.malloc(-1)
    with pytest.raises(InvalidInputError, match="event 1: 'a' is allocated twice"):
        replay(_events("+a 1M +a 1M"))
    with pytest.raises(InvalidInputError, match="event 0: 'a' is freed without being allocated"):
        replay(_events("-a"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("roundup_power2_divisions", 3),
        ("max_split_size_bytes", 19 * MIB),
        ("garbage_collection_threshold", 1.0),
        ("limit_bytes", 0),
    ],
)
def test_config_is_checked(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=field):
        AllocatorConfig(**{field: value})  # type: ignore[arg-type]


# ---- laws over random streams ----

SIZES = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(1, 2 * MIB),
    st.integers(1, 30 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 1, 10 * MIB, 19 * MIB, 20 * MIB, 64 * MIB]),
)


@dataclass
class Run:
    """An allocator driven by random steps, with every live block and what was asked for it."""

    allocator: Allocator
    live: list[tuple[Block, int]]

    def check(self) -> None:
        allocator = self.allocator
        assert allocator.allocated_bytes == sum(block.size_bytes for block, _ in self.live)
        assert allocator.reserved_bytes == allocator.allocated_bytes + allocator.cached_bytes
        assert allocator.peak_allocated_bytes >= allocator.allocated_bytes
        assert allocator.peak_reserved_bytes >= allocator.reserved_bytes
        limit = allocator.config.limit_bytes
        assert limit is None or allocator.reserved_bytes <= limit
        ranges = sorted((block.address, block.address + block.size_bytes) for block, _ in self.live)
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
        for block, asked_bytes in self.live:
            assert block.size_bytes >= round_size(asked_bytes, allocator.config.roundup_power2_divisions) >= asked_bytes
            assert block.size_bytes % 512 == block.address % 512 == 0
        self.check_tiles()

    def check_tiles(self) -> None:
        """Blocks tile their segments, linked both ways; what is free never lies beside its like (try_merge_blocks); handles are whole."""
        pools = (self.allocator._small, self.allocator._large)
        listed = {id(block): block for pool in pools for *_, block in (*pool.free, *pool.unmapped)}
        assert all(not block.allocated and (block.mapped or block.is_split) for block in listed.values())
        firsts = {id(first): first for first in map(first_of, (*listed.values(), *(block for block, _ in self.live if block.size_bytes)))}
        mapped_bytes, ends = 0, []
        for first in sorted(firsts.values(), key=lambda block: block.address):
            blocks = row_of(first)
            assert all(block.allocated is not (id(block) in listed) for block in blocks)
            assert all(type(block.size_bytes) is type(block.address) is int and block.size_bytes > 0 for block in blocks)
            assert all(left.address + left.size_bytes == right.address and right.prev is left for left, right in pairwise(blocks))
            assert all(left.allocated or right.allocated or left.mapped is not right.mapped for left, right in pairwise(blocks))
            ends.append((first.address, blocks[-1].address + blocks[-1].size_bytes))
            mapped_bytes += sum(block.size_bytes for block in blocks if block.mapped)
            segment = first.segment
            assert all(block.segment is segment and block.pool is first.pool for block in blocks)
            assert segment is not None or all(block.mapped for block in blocks)
            if segment is not None:
                assert ends[-1] == (segment.address, segment.address + segment.size_bytes)
                gaps = [block for block in blocks if not block.mapped]
                assert all(
                    (gap.address - segment.address) % segment.handle_bytes == 0 == gap.size_bytes % segment.handle_bytes for gap in gaps
                )
        assert mapped_bytes == self.allocator.reserved_bytes
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def first_of(block: Block) -> Block:
    while block.prev is not None:
        block = block.prev
    return block


def row_of(block: Block) -> list[Block]:
    blocks = [block]
    while (after := blocks[-1].next) is not None:
        blocks.append(after)
    return blocks


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CONFIGS), st.lists(st.one_of(SIZES, st.integers(-40, 0)), max_size=80))
def test_nothing_overlaps_and_nothing_is_lost(config: AllocatorConfig, steps: list[int]) -> None:
    """Positive steps allocate, negative ones free a live block, zero empties the cache."""
    run = Run(Allocator(config), [])
    for step in steps:
        if step > 0:
            with suppress(CardFullError) if config.limit_bytes else nullcontext():
                run.live.append((run.allocator.malloc(step), step))
        elif step < 0 and run.live:
            run.allocator.free(run.live.pop(-step % len(run.live))[0])
        elif step == 0:
            run.allocator.empty_cache()
        run.check()
    for block, _ in run.live:
        run.allocator.free(block)
    run.live.clear()
    run.check()
    run.allocator.empty_cache()
    run.check()
    assert (run.allocator.allocated_bytes, run.allocator.reserved_bytes, run.allocator.cached_bytes) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_allocated_does_not_depend_on_the_order(sizes: list[int], order: random.Random) -> None:
    """In expandable segments every block is exactly the rounded size; elsewhere a rest of up to 1 MiB may come with it."""
    shuffled = sizes[:]
    order.shuffle(shuffled)
    exact = sum(round_size(size) for size in sizes)
    for config, slack_bytes in ((EXPANDABLE, 0), (AllocatorConfig(), MIB * len(sizes))):
        for run in (sizes, shuffled):
            allocator = Allocator(config)
            for size in run:
                allocator.malloc(size)
            assert exact <= allocator.allocated_bytes <= exact + slack_bytes


@settings(max_examples=40, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_second_equal_step_of_an_expandable_segment_reserves_no_more(sizes: list[int], order: random.Random) -> None:
    """Free everything and the segment is one block again, whatever the order: the same requests find room in it."""
    allocator = Allocator(EXPANDABLE)
    reserved = []
    for _ in range(2):
        blocks = [allocator.malloc(size) for size in sizes]
        order.shuffle(blocks)
        for block in blocks:
            allocator.free(block)
        reserved.append(allocator.peak_reserved_bytes)
    assert reserved[0] == reserved[1]


def test_two_hundred_thousand_events_replay() -> None:
    """The size of a traced step of an 80-layer model; the bound is for two slow cores."""
    rng = random.Random(0)
    events: list[Event] = []
    live: list[int] = []
    for key in range(100_000):
        events.append(Event(Op.ALLOC, key, rng.choice((256, 4096, 3 * MIB, 17 * MIB, rng.randrange(1, 64 * MIB)))))
        live.append(key)
        if len(live) > 600 or (live and rng.random() < 0.5):
            events.append(Event(Op.FREE, live.pop(rng.randrange(len(live)))))
            if rng.random() < 0.5 and live:
                events.append(Event(Op.FREE, live.pop(rng.randrange(len(live)))))
    result = replay(events)
    assert result.peak_reserved_bytes >= result.peak_allocated_bytes > 0


def _events(steps: str) -> list[Event]:
    """ "+a 1.5M" allocates 1.5 MiB as a, "-a" frees it, "empty" empties the cache."""
    events, words = [], iter(steps.split())
    for word in words:
        if word == "empty":
            events.append(Event(Op.EMPTY_CACHE))
        elif word[0] == "+":
            events.append(Event(Op.ALLOC, word[1:], int(float(next(words)[:-1]) * MIB)))
        else:
            events.append(Event(Op.FREE, word[1:]))
    return events


# ------------------------------------------------------------------------------------------------ PYTORCH_ALLOC_CONF


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", AllocatorConfig()),
        ("expandable_segments:True", AllocatorConfig(expandable_segments=True)),
        ("max_split_size_mb:512, expandable_segments:False", AllocatorConfig(max_split_size_bytes=512 * MIB)),
        (
            "garbage_collection_threshold:0.8,roundup_power2_divisions:8",
            AllocatorConfig(garbage_collection_threshold=0.8, roundup_power2_divisions=8),
        ),
        ("backend:native,max_non_split_rounding_mb:40", AllocatorConfig(max_non_split_rounding_bytes=40 * MIB)),
    ],
)
def test_alloc_conf_as_torch_writes_it(text, config):
    assert read_alloc_conf(text) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("expandable:True", "write name:value, the names being expandable_segments"),
        ("expandable_segments", "write name:value"),
        ("expandable_segments:yes", "'yes' is no value for expandable_segments"),
        ("max_split_size_mb:half", "'half' is no value for max_split_size_mb"),
        ("max_split_size_mb:1", "torch asks for at least 20.0 MiB"),
        ("roundup_power2_divisions:3", "no power of two"),
    ],
)
def test_a_wrong_alloc_conf_is_one_line(text, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        read_alloc_conf(text)
    assert "\n" not in str(caught.value)


# -- the swift allocator -----------------------------------------------------------------------------------------------------------


def drawn_stream(numbers: list[int]) -> Stream:
    """A stream from drawn numbers: a size is born, a number below zero lets one of the living go, 0 empties the cache."""
    stream, alive = Stream(), []
    for index, number in enumerate(numbers):
        phase = (Phase.LOAD, Phase.FORWARD, Phase.BACKWARD, Phase.FORWARD)[index // 25 % 4]
        if number > 0 or not alive:
            stream.births.append(Birth(max(number, 0), "made", "", phase))
            alive.append(len(stream.births))
            stream.add(alive[-1], "", phase)
        elif number:
            stream.add(-alive.pop(number % len(alive)), "", phase)
        else:
            stream.marks.append((len(stream.events), EMPTY_CACHE))
    return stream


@given(st.lists(st.one_of(SIZES, st.integers(-40, 0)), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None)
def test_the_swift_allocator_equals_the_one_with_every_setting(numbers: list[int]) -> None:
    stream = drawn_stream(numbers)
    assume(stream.events)
    settled = AllocatorConfig(limit_bytes=1 << 60)  # which changes nothing but the way through the code
    assert lay_out(stream) == lay_out(stream, settled)
