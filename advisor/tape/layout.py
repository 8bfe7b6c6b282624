"""Lays a recorded stream out in the caching allocator: what each storage really takes, and what is reserved when.

A block may be larger than its storage asked for, because torch does not split off a rest of less than 1 MiB: the surplus counts as
allocated on the card, so it counts here.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.allocator.caching import DEFAULT_CONFIG, Allocator, AllocatorConfig, Block
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


def lay_out(stream: Stream, config: AllocatorConfig = DEFAULT_CONFIG) -> Layout:
    """Run the stream through a fresh allocator. Raises CardFullError when a limit in `config` is hit."""
    allocator = Allocator(config)
    blocks: list[Block | None] = [None] * len(stream.births)
    sizes = [0] * len(stream.births)
    peaks: dict[Phase, Moment] = {}
    best: dict[Phase, int] = dict.fromkeys(Phase, -1)
    marks = iter([*stream.marks, (len(stream.events) + 1, "")])
    mark_at, mark = next(marks)
    steps: list[int] = []
    for index, signed in enumerate(stream.events):
        while mark_at == index:
            if mark == EMPTY_CACHE:
                allocator.empty_cache()
            elif mark == STEP:
                steps.append(0)
            mark_at, mark = next(marks)
        if signed > 0:
            block = allocator.malloc(stream.births[signed - 1].size_bytes)
            blocks[signed - 1] = block
            sizes[signed - 1] = block.size_bytes
            if steps and allocator.reserved_bytes > steps[-1]:
                steps[-1] = allocator.reserved_bytes
        else:
            held = blocks[-signed - 1]
            if held is not None:
                allocator.free(held)
                blocks[-signed - 1] = None
        phase = stream.phases[index]
        if allocator.allocated_bytes > best[phase]:
            best[phase] = allocator.allocated_bytes
            peaks[phase] = Moment(phase, index, allocator.allocated_bytes, allocator.reserved_bytes)
    return Layout(sizes, peaks, allocator.peak_reserved_bytes, tuple(steps))
