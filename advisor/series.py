"""Numbers that figures are drawn from: memory against the length of a sequence, and through one training step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.values import Advice, GpuSpec, MemoryBreakdown, Method, ModelSpec, Phase, Plan, Rung

SHORTEST_TOKENS = 256
"""Judgement: shorter sequences hold little beside what does not depend on their length."""
FURTHER = 2
"""How much further than the longest length that fits a curve goes, so that it is seen to cross the card's line (judgement)."""
MOST_INSTANTS = 240
"""Of a timeline. Judgement: a figure has some seven hundred pixels, and a line takes a few."""


class Point(NamedTuple):
    """What one card holds at one length."""

    tokens: int
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    memory: MemoryBreakdown


class Curve(NamedTuple):
    """A rung's memory by the length of its sequences, all else of its plan as it is."""

    method: Method
    points: tuple[Point, ...]


class Instant(NamedTuple):
    """What is alive after an event of a recorded step."""

    event: int
    phase: Phase
    alive_bytes: int


class Series(NamedTuple):
    """All of them for one answer."""

    curves: tuple[Curve, ...]
    """Empty for a model whose steps are recorded, which is priced one plan at a time."""
    timeline: tuple[Instant, ...]
    """Empty where no recording of the step is at hand."""


def series_of(answer: Advice, model: ModelSpec) -> Series:
    """Return what the figures of an answer show; `model` is the one that was asked about."""
    return Series(curves_of(answer, model), timeline_of(model, answer.focus.plan, answer.gpu))


def curves_of(answer: Advice, model: ModelSpec) -> tuple[Curve, ...]:
    """Return the memory of every rung at lengths up to beyond the longest that fits any."""
    if model.tables is None:
        return ()
    lengths = [*_lengths(answer, model)]
    curves = (Curve(rung.plan.method, tuple(_points(rung, model, answer.gpu, lengths))) for rung in answer.rungs)
    return tuple(curve for curve in curves if curve.points)


def _lengths(answer: Advice, model: ModelSpec) -> Iterator[int]:
    """Powers of two and what lies in the middle between them, as far as the model has positions; and the length that was asked for."""
    asked = answer.focus.plan.seq_len_tokens
    furthest = FURTHER * max(asked, *(rung.max_seq_len_tokens or 0 for rung in answer.rungs))
    last = max(asked, min(furthest, model.max_position_tokens or furthest))
    length = SHORTEST_TOKENS
    found = {asked, last}
    while length < last:
        found |= {length, min(last, length * 3 // 2)}
        length *= 2
    yield from sorted(found)


def _points(rung: Rung, model: ModelSpec, gpu: GpuSpec, lengths: list[int]) -> Iterator[Point]:
    """As `advise estimate` prices each; lengths that are refused are left out."""
    from advisor.memory import estimate_memory

    for tokens in lengths:
        try:
            memory = estimate_memory(model, rung.plan.model_copy(update={"seq_len_tokens": tokens}), gpu)
        except UnsupportedError:
            continue
        yield Point(tokens, memory.low_bytes, memory.expected_bytes, memory.high_bytes, memory)


def timeline_of(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> tuple[Instant, ...]:
    """Return what is alive through the recorded step of a plan, thinned out but for its highest moment; empty without a recording."""
    from advisor.memory.replayed import stream_of

    try:
        stream = stream_of(model, plan, gpu)
    except UnsupportedError:
        return ()
    changes = (stream.births[abs(event) - 1].size_bytes * (1 if event > 0 else -1) for event in stream.events)
    return _thinned([*accumulate(changes)], stream.phases)


def _thinned(alive_bytes: list[int], phases: list[Phase]) -> tuple[Instant, ...]:
    """The highest and the lowest moment of each stretch of events, so that no peak is lost."""
    stretch = max(1, 2 * len(alive_bytes) // MOST_INSTANTS)
    kept: set[int] = set()
    for start in range(0, len(alive_bytes), stretch):
        events = range(start, min(start + stretch, len(alive_bytes)))
        kept |= {max(events, key=alive_bytes.__getitem__), min(events, key=alive_bytes.__getitem__)}
    return tuple(Instant(event, phases[event], alive_bytes[event]) for event in sorted(kept))
