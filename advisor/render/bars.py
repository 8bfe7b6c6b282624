"""A bar a line: where the memory goes, to the scale of the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advisor.render import words
from advisor.render.page import Look

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    bytes: int
    empty: bool = False
    """Drawn light: room that is left, not memory that is taken."""


def bars(rows: Sequence[Bar], whole_bytes: int, look: Look) -> Text:
    """Each row's share of `whole_bytes` (the card) as a bar; what is not zero is at least one sliver long."""
    from rich.text import Text

    label_width = 2 + max(len(row.label) for row in rows) + 2
    size_width = max(len(words.size(row.bytes)) for row in rows)
    room = min(look.width, 100) - label_width - size_width - 2
    text = Text(no_wrap=True, overflow="ignore")
    for number, row in enumerate(rows):
        length = min(room, round(room * row.bytes / whole_bytes))
        bar = "▏" if length == 0 and row.bytes else ("░" if row.empty else "█") * length
        text.append("\n" if number else "").append(f"  {row.label}".ljust(label_width)).append(words.size(row.bytes).rjust(size_width))
        text.append("  ").append(bar, style="dim" if row.empty else "cyan")
    return text
