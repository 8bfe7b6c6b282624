"""Evaluate the curves of a kind of plan at many shapes at once, as arrays: the same bytes as `estimate_memory`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from advisor.memory.curves import Curves
from advisor.memory.tape import Size

FITS, UNCERTAIN, DOES_NOT_FIT = range(3)
"""Codes of the verdicts, in this order."""
BLOCK = 1 << 16
"""Shapes at a time. Judgement: their arrays stay in a core's cache, which makes three times as many a second as a million at once."""
LARGEST_BYTES = 1 << 52
"""Beyond this a product with a share would no longer be exact in floats, and not far beyond 64 bits overflow: four petabytes."""


class Shapes(NamedTuple):
    """Micro-batches and lengths, element by element."""

    batch: Any
    """Arrays of int64."""
    seq_len: Any


class Priced(NamedTuple):
    """Bytes on one card and the verdict, for each shape: arrays of int64, codes of int8."""

    allocated: Any
    slack: Any
    low: Any
    expected: Any
    high: Any
    phase: Any
    """Index in the curves' phases of the one that peaks."""
    verdict: Any


def exact(curves: Curves, batch: int, seq_len: int) -> bool:
    """Whether everything up to that shape is exact in 64 bits."""
    tokens, pairs = batch * seq_len, batch * seq_len * seq_len
    sizes = [size for _, phase in curves.phases for size in phase]
    if curves.slack is not None:
        sizes += [*curves.slack.heads, *curves.slack.blocks, Size(curves.slack.logits_bytes_per_token)]
    widest = sum(max(abs(size[part]) for size in sizes) * scale for part, scale in enumerate((tokens, pairs, 1)))
    return widest * (2 + curves.interval.high_share) < LARGEST_BYTES


def price(curves: Curves, shapes: Shapes, usable_bytes: int) -> Priced:
    """Memory of each shape on a card of that size."""
    cuts = range(0, len(shapes.batch), BLOCK)
    blocks = [_price(curves, Shapes(*(axis[cut : cut + BLOCK] for axis in shapes)), usable_bytes) for cut in cuts]
    return Priced(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def _price(curves: Curves, shapes: Shapes, usable_bytes: int) -> Priced:
    """As `MemoryBreakdown` adds up: the largest phase, the first of equal ones; slack, context and interval on top."""
    tokens = shapes.batch * shapes.seq_len
    pairs = tokens * shapes.seq_len
    allocated = _highest(curves.phases[0][1], tokens, pairs)
    phase: Any = np.zeros(len(tokens), np.int8)
    for index, (_, sizes) in enumerate(curves.phases[1:], start=1):
        size = _highest(sizes, tokens, pairs)
        phase[size > allocated] = index
        allocated = np.maximum(allocated, size)
    slack = _slack(curves, tokens, pairs)
    reserved = allocated + slack
    expected, interval = reserved + curves.context_bytes, curves.interval
    high = expected + (reserved * interval.high_share).astype(np.int64) + interval.context_bytes
    margin = (reserved * interval.low_share).astype(np.int64)
    margin = np.where(high > usable_bytes, np.maximum(margin, slack), margin)
    low = np.maximum(expected - margin - interval.context_bytes, 0)
    verdict = np.where(high <= usable_bytes, FITS, np.where(low > usable_bytes, DOES_NOT_FIT, UNCERTAIN)).astype(np.int8)
    return Priced(allocated, slack, low, expected, high, phase, verdict)


def _highest(sizes: tuple[Size, ...], tokens: Any, pairs: Any) -> Any:
    top = np.full(len(tokens), np.iinfo(np.int64).min)
    for size in dict.fromkeys(sizes):
        np.maximum(top, _at(size, tokens, pairs), out=top)
    return top


def _at(size: Size, tokens: Any, pairs: Any) -> Any:
    """As `Size.at`; a factor of 0 costs nothing."""
    bytes_ = np.full(len(tokens), size.constant)
    for factor, count in ((size.per_token, tokens), (size.per_pair, pairs)):
        if factor:
            bytes_ += factor * count
    return bytes_


def _slack(curves: Curves, tokens: Any, pairs: Any) -> Any:
    """As `Slack.at`."""
    slack = curves.slack
    if slack is None:
        return np.zeros(len(tokens), np.int64)
    head, block = _highest(slack.heads, tokens, pairs), _highest(slack.blocks, tokens, pairs)
    between = np.maximum(np.minimum(head, block), np.minimum(head, slack.settling_bytes))
    return between + slack.logits_bytes_per_token * tokens
