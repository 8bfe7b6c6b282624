"""What screens are made of: headings, paragraphs, entries, tables, bars and code, as values that know nothing of where they are drawn.

The modules of this room build blocks from answers; `advisor.render.terminal` draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Text in one style."""

    text: str
    style: str = ""
    """ "bold", "dim", a colour of the eight that every terminal has, or several with spaces between."""


Text = str | Span
"""A piece of text; where it names facts in brackets ("[C4, C5]"), the renderer may link them to their sources."""


class Blank(NamedTuple):
    """An empty line."""


class Heading(NamedTuple):
    """A title over what follows, with an empty line before it."""

    text: str


class Paragraph(NamedTuple):
    """Text that is wrapped to the screen."""

    text: Span


class Entries(NamedTuple):
    """Labels in a column of their own, each with its text hanging beside it."""

    rows: tuple[tuple[str, Span], ...]
    style: str = ""
    """Of the labels."""


class Column(NamedTuple):
    """A column of a table."""

    header: str
    """With a newline where it is to break."""
    align: str = "<"
    """As in a format specification: "<" or ">"."""


class Table(NamedTuple):
    """Rows under a header; only the last column wraps, the others are as wide as they need."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Span, ...], ...]


class Bar(NamedTuple):
    """A labelled share of something."""

    label: str
    bytes: int
    empty: bool = False
    """Drawn light: room that is left, not memory that is taken."""


class Bars(NamedTuple):
    """A bar a line, to the scale of `whole_bytes`."""

    rows: tuple[Bar, ...]
    whole_bytes: int


class Stacked(NamedTuple):
    """One bar of several parts, with the interval of their sum under it, to the scale of the card or of the sum where that is longer."""

    parts: tuple[Bar, ...]
    whole_bytes: int
    """The card."""
    low_bytes: int
    high_bytes: int


class Code(NamedTuple):
    """Text that must reach the reader as it is: never wrapped."""

    text: str
    language: str = ""
    """As pygments names it; empty for text that is not highlighted."""


class Either(NamedTuple):
    """The same twice: for screens of at least `columns` columns, and for narrower ones."""

    columns: int
    wide: tuple[Block, ...]
    narrow: tuple[Block, ...]


Block = Blank | Heading | Paragraph | Entries | Table | Bars | Stacked | Code | Either

BLANK = Blank()
WIDE_COLUMNS = 132
"""From here on a table may use one row per rung; below it is cut in two. Judgement: the widest table needs 129."""


def span(text: Text) -> Span:
    """Return the text as a span."""
    return Span(text) if isinstance(text, str) else text


def paragraph(text: str, style: str = "") -> Paragraph:
    """Return a paragraph in one style."""
    return Paragraph(Span(text, style))


def entries(rows: Iterable[tuple[str, Text]], style: str = "") -> Entries:
    """Return labels with their texts; `style` is the labels'."""
    return Entries(tuple((label, span(text)) for label, text in rows), style)


def bullets(texts: Iterable[Text]) -> Entries:
    """Return texts with a dash before each."""
    return entries(("-", text) for text in texts)


def table(columns: Iterable[Column], rows: Iterable[Sequence[Text]]) -> Table:
    """Return a table of texts."""
    return Table(tuple(columns), tuple(tuple(map(span, row)) for row in rows))


def wide_or_narrow(wide: Iterable[Block], narrow: Iterable[Block]) -> Either:
    """Return blocks for screens that take the widest table, and for others."""
    return Either(WIDE_COLUMNS, tuple(wide), tuple(narrow))
