"""A screen as a list of parts, drawn to a string: one place that knows about width, colour and what the terminal can show.

Rich does the tables and the colour. Prose is wrapped here, because a hanging indent costs rich a table of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Literal, Union

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDE_COLUMNS = 120
"""From here on a table may use one row per rung; below it is cut in two. Judgement: the widest table needs 118."""

_ASCII = str.maketrans("×–—−·█▏░─≈’‘“”", "x---|#|.-~''\"\"") | {ord("→"): "->", ord("≥"): ">=", ord("≤"): "<=", ord("…"): "..."}


@dataclass(frozen=True, slots=True)
class Look:
    """What the reader's terminal can show."""

    width: int = 80
    colour: bool = False
    unicode: bool = True

    @property
    def wide(self) -> bool:
        return self.width >= WIDE_COLUMNS


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text that must reach the reader byte for byte: never wrapped, never styled."""

    text: str


Part = Union["Table", "Text", Verbatim]
Column = tuple[str, Literal["left", "right"]]


def draw(parts: Iterable[Part], look: Look) -> str:
    """The screen as text. Without colour there are no escape codes at all; NO_COLOR keeps bold and drops the colours."""
    from rich.console import Console

    buffer = StringIO()
    console = Console(
        file=buffer,
        width=look.width,
        force_terminal=look.colour,
        color_system="auto" if look.colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        if isinstance(part, Verbatim):
            buffer.write(part.text.rstrip("\n") + "\n")
        else:
            console.print(part)
    text = "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))
    return text if look.unicode else to_ascii(text)


def to_ascii(text: str) -> str:
    """The same text for a terminal that is not UTF-8: known signs become ASCII ones, anything else a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def heading(text: str) -> Text:
    from rich.text import Text

    return Text(f"\n{text}", style="bold")


def paragraph(text: str, look: Look, style: str = "") -> Text:
    from rich.text import Text

    return Text(
        textwrap.fill(text, look.width, break_long_words=False, break_on_hyphens=False), style=style, no_wrap=True, overflow="ignore"
    )


def entries(rows: Sequence[tuple[str, str]], look: Look, style: str = "") -> Text:
    """Labels in a column of their own, each with its text hanging beside it."""
    from rich.text import Text

    indent = 2 + max((len(label) for label, _ in rows), default=0) + 2
    text = Text(no_wrap=True, overflow="ignore")
    for number, (label, body) in enumerate(rows):
        lines = textwrap.wrap(body, look.width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        text.append("\n" if number else "").append(f"  {label}".ljust(indent), style=style)
        text.append(("\n" + " " * indent).join(lines))
    return text


def bullets(lines: Iterable[str], look: Look) -> Text:
    return entries([("-", line) for line in lines], look)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A plain table: no frame, one rule under the header, so that it reads the same in ASCII and copies cleanly.

    Only the last column wraps; the others are as wide as they need.
    """
    from rich.box import Box
    from rich.table import Table

    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    made = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name, justify in columns:
        made.add_column(name, justify=justify, no_wrap=(name, justify) != columns[-1], overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def blank() -> Text:
    from rich.text import Text

    return Text()
