"""A screen as lines of styled text, drawn to a string: one place that knows about width, colour and what the terminal can show.

Written here rather than with rich: importing rich's console and printing two tables took a tenth of the whole cold command.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from advisor.shown import shown

WIDE_COLUMNS = 132
"""From here on a table may use one row per rung; below it is cut in two. Judgement: the widest table needs 129."""

# Select Graphic Rendition (ECMA-48): the eight basic colours, which every terminal theme makes readable on its own background.
_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ASCII = str.maketrans("×–—−·█▏░─≈’‘“”", "x---|#|.-~''\"\"") | {ord("→"): "->", ord("≥"): ">=", ord("≤"): "<=", ord("…"): "..."}
_GAP = "  "


class Look(NamedTuple):
    """What the reader's terminal can show."""

    width: int = 80
    colour: bool = False
    unicode: bool = True

    @property
    def wide(self) -> bool:
        return self.width >= WIDE_COLUMNS


class Span(NamedTuple):
    """Text in one style: words of `_SGR` with spaces between, or none."""

    text: str
    style: str = ""


class Column(NamedTuple):
    header: str
    """With a newline where it is to break."""
    align: str = "<"
    """As in a format specification: "<" or ">"."""


Line = tuple[Span, ...]
Cell = str | Span


def draw(lines: Iterable[Line], look: Look) -> str:
    """The screen as text. Without colour there are no escape codes at all, bold included; those of other people's texts stand as text."""
    text = "".join("".join(_paint(_visible(span), look) for span in line).rstrip() + "\n" for line in lines)
    return text if look.unicode else to_ascii(text)


def _visible(span: Span) -> Span:
    return span if span.text.isascii() and span.text.isprintable() else Span(shown(span.text), span.style)


def _paint(span: Span, look: Look) -> str:
    if not look.colour or not span.style or not span.text.strip():
        return span.text
    return f"\x1b[{';'.join(_SGR[word] for word in span.style.split())}m{span.text}\x1b[0m"


def to_ascii(text: str) -> str:
    """The same text for a terminal that is not UTF-8: known signs become ASCII ones, anything else a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


BLANK: Line = ()


def heading(text: str) -> list[Line]:
    return [BLANK, (Span(text, "bold"),)]


def paragraph(text: str, look: Look, style: str = "") -> list[Line]:
    return [(Span(line, style),) for line in _wrap(text, look.width)]


def entries(rows: Iterable[tuple[str, str]], look: Look, style: str = "") -> list[Line]:
    """Labels in a column of their own, each with its text hanging beside it."""
    rows = list(rows)
    indent = 2 + max((len(label) for label, _ in rows), default=0) + 2
    lines: list[Line] = []
    for label, body in rows:
        first, *others = _wrap(body, look.width - indent)
        lines.append((Span("  "), Span(label, style), Span(" " * (indent - 2 - len(label)) + first)))
        lines += [(Span(" " * indent + line),) for line in others]
    return lines


def bullets(texts: Iterable[str], look: Look) -> list[Line]:
    return entries([("-", text) for text in texts], look)


def verbatim(text: str) -> list[Line]:
    """Text that must reach the reader as it is: never wrapped, never styled."""
    return [(Span(line),) for line in text.rstrip("\n").split("\n")]


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], look: Look) -> list[Line]:
    """No frame, one rule under the header, so that it reads the same in ASCII and copies cleanly.

    Columns are as wide as they need; only the last one wraps.
    """
    body = [[_span(cell) for cell in row] for row in rows]
    headers = [column.header.split("\n") for column in columns]
    widths = [max(map(len, (*header, *(row[number].text for row in body)))) for number, header in enumerate(headers)]
    others = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    widths[-1] = min(widths[-1], max(look.width - others, max(map(len, headers[-1]))))
    height = max(map(len, headers))
    tops = [[Span(line, "bold") for line in ("",) * (height - len(header)) + tuple(header)] for header in headers]
    lines = [_line(row, columns, widths) for row in zip(*tops, strict=True)]
    lines.append((Span("─" * (others + widths[-1])),))
    for row in body:
        first, *more = _wrap(row[-1].text, widths[-1])
        lines.append(_line([*row[:-1], Span(first, row[-1].style)], columns, widths))
        lines += [_line([*map(Span, ("",) * (len(row) - 1)), Span(text, row[-1].style)], columns, widths) for text in more]
    return lines


def _span(cell: Cell) -> Span:
    return Span(cell) if isinstance(cell, str) else cell


def _line(cells: Iterable[Span], columns: Sequence[Column], widths: Sequence[int]) -> Line:
    spans: list[Span] = []
    for span, column, width in zip(cells, columns, widths, strict=True):
        padding = Span(" " * (width - len(span.text)))
        spans += [span, padding, Span(_GAP)] if column.align == "<" else [padding, span, Span(_GAP)]
    return tuple(spans)


def _wrap(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, 8), break_long_words=False, break_on_hyphens=False) or [""]
