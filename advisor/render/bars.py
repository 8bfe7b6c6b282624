"""A bar a line: where the memory goes, to the scale of the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from advisor.render import words
from advisor.render.page import Line, Look, Span

WIDEST_COLUMNS = 100
"""Longer bars say no more (judgement)."""


class Bar(NamedTuple):
    label: str
    bytes: int
    empty: bool = False
    """Drawn light: room that is left, not memory that is taken."""


def bars(rows: Sequence[Bar], whole_bytes: int, look: Look) -> list[Line]:
    """Each row's share of `whole_bytes` (the card) as a bar; what is not zero is at least one sliver long."""
    label_width = max(len(row.label) for row in rows)
    sizes = [words.size(row.bytes) for row in rows]
    size_width = max(map(len, sizes))
    room = min(look.width, WIDEST_COLUMNS) - label_width - size_width - 6
    lines: list[Line] = []
    for row, size in zip(rows, sizes, strict=True):
        length = min(room, round(room * row.bytes / whole_bytes))
        bar = "▏" if length == 0 and row.bytes else ("░" if row.empty else "█") * length
        lines.append((Span(f"  {row.label.ljust(label_width)}  {size.rjust(size_width)}  "), Span(bar, "dim" if row.empty else "cyan")))
    return lines
