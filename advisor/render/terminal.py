"""Draw blocks as text, with rich: the one place that knows about width, colour, links and what a terminal can show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from advisor.render import words
from advisor.render.blocks import (
    Bar,
    Bars,
    Blank,
    Block,
    Code,
    Either,
    Entries,
    Heading,
    Paragraph,
    Span,
    Stacked,
    Table,
)
from advisor.render.cited import CITED, urls
from advisor.render.look import Look
from advisor.shown import shown
from advisor.units import gib

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.text import Text

WIDEST_BAR_COLUMNS = 100
"""Longer bars say no more (judgement)."""
NARROWEST_TEXT_COLUMNS = 8
"""A column of text is never narrower, whatever the others take."""

_ASCII = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "−": "-", "·": ".", "≈": "~", "’": "'", "‘": "'", "“": '"', "”": '"', "→": "->", "≥": ">=", "≤": "<="}
    | {"…": "...", "─": "-", "│": "|", "├": "[", "┤": "]", "█": "#", "▏": "|", "░": ":", "▓": "=", "▒": "+", "▪": "o"}
)
_END_OF_LINE = re.compile(r"(?: |\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\)+$", re.MULTILINE)
_GLYPHS = (("█", "cyan"), ("▓", "blue"), ("▒", "magenta"), ("░", "yellow"), ("▪", "green"))
"""Of the parts of a bar, in order; the last stands for all further ones. Told apart without colour, and in ASCII too."""
_SMALL_SHARE = 0.01
"""Parts of a bar below this share of it are one part, "rest". Judgement: one column in a hundred cannot be told from none."""


def draw(blocks: Iterable[Block], look: Look) -> str:
    """Return the blocks as text. Without colour it holds no escape codes at all; those of other people's texts stand as text."""
    import io

    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=look.width,
        color_system="standard" if look.colour else None,
        force_terminal=look.colour,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for block in blocks:
        _DRAWN[type(block)](block, console, look)
    return _END_OF_LINE.sub(lambda end: end[0].replace(" ", ""), console.file.getvalue())  # type: ignore[attr-defined]


def readable(text: str, look: Look) -> str:
    """Return the text with escapes for what cannot be seen, and in ASCII where the terminal has no more: signs that have no ASCII twin
    become question marks."""
    seen = text if text.isascii() and text.isprintable() else shown(text)
    return seen if look.unicode else seen.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def _text(span: Span, look: Look) -> Text:
    """The span for rich, never read as its markup; facts in brackets link to their sources where the terminal takes links."""
    from rich.text import Text

    text = Text(readable(span.text, look), span.style, overflow="fold", end="")
    if look.colour:
        for cited in CITED.finditer(text.plain):
            for name in re.finditer(r"\w+", cited[1]):
                url = urls().get(name[0])
                if url:
                    text.stylize(f"link {url}", cited.start(1) + name.start(), cited.start(1) + name.end())
    return text


def _line(console: Console, *parts: Text) -> None:
    """One line that is not wrapped."""
    from rich.text import Text

    console.print(Text("").join(parts), no_wrap=True, overflow="ignore", crop=False)


def _blank(_: Blank, console: Console, look: Look) -> None:
    console.print()


def _heading(block: Heading, console: Console, look: Look) -> None:
    console.print()
    console.print(_text(Span(block.text, "bold"), look))


def _paragraph(block: Paragraph, console: Console, look: Look) -> None:
    console.print(_text(block.text, look))


def _entries(block: Entries, console: Console, look: Look) -> None:
    labels = [_text(Span(f"  {label}", block.style), look) for label, _ in block.rows]
    indent = max((label.cell_len for label in labels), default=0) + 2
    for label, (_, body) in zip(labels, block.rows, strict=True):
        label.append(" " * (indent - label.cell_len))
        lines = _text(body, look).wrap(console, max(look.width - indent, NARROWEST_TEXT_COLUMNS))
        for line in lines or [_text(Span(""), look)]:
            _line(console, label, line)
            label = _text(Span(" " * indent), look)


def _table(block: Table, console: Console, look: Look) -> None:
    from rich.table import Table as RichTable

    drawn = RichTable(box=_rule(look.unicode), show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    rows = [[_text(cell, look) for cell in row] for row in block.rows]
    needed = 0
    for number, column in enumerate(block.columns):
        last = number == len(block.columns) - 1
        header = readable_lines(column.header, look)
        drawn.add_column(header, justify="right" if column.align == ">" else "left", vertical="top", no_wrap=not last, overflow="fold")
        widths = [max(map(len, header.split("\n"))), *((row[number].cell_len) for row in rows)]
        needed += min(max(widths), max(NARROWEST_TEXT_COLUMNS, widths[0])) if last else max(widths) + 2
    for row in rows:
        drawn.add_row(*row)
    console.width = max(look.width, needed)  # a table that is too wide is folded by the terminal: nothing of it is lost
    console.print(drawn, crop=False)
    console.width = look.width


def readable_lines(text: str, look: Look) -> str:
    """Return the text as `readable` has it, its line breaks kept."""
    return "\n".join(readable(line, look) for line in text.split("\n"))


@cache
def _rule(unicode: bool) -> Box:
    """No frame, one rule under the header, so that a table reads the same in ASCII and copies cleanly."""
    from rich.box import Box

    rule = "─" if unicode else "-"
    return Box("    \n" * 2 + rule * 4 + "\n" + "    \n" * 5, ascii=not unicode)


def _bars(block: Bars, console: Console, look: Look) -> None:
    """Each row's share of the whole; what is not zero is at least one sliver long."""
    sizes = [words.size(row.bytes) for row in block.rows]
    label_width, size_width = max(len(row.label) for row in block.rows), max(map(len, sizes))
    room = min(look.width, WIDEST_BAR_COLUMNS) - label_width - size_width - 6
    for row, size in zip(block.rows, sizes, strict=True):
        length = min(room, round(room * row.bytes / block.whole_bytes))
        bar = "▏" if length == 0 and row.bytes else ("░" if row.empty else "█") * length
        label = Span(f"  {row.label.ljust(label_width)}  {size.rjust(size_width)}  ")
        _line(console, _text(label, look), _text(Span(bar, "dim" if row.empty else "cyan"), look))


def _stacked(block: Stacked, console: Console, look: Look) -> None:
    """The parts in a row, under it the interval and the card's end, and what each sign stands for, in GiB."""
    room = min(look.width, WIDEST_BAR_COLUMNS) - 4
    scale = max(block.whole_bytes, block.high_bytes)
    card, low, high = (round(room * size / scale) for size in (block.whole_bytes, block.low_bytes, block.high_bytes))
    parts = [*zip(_GLYPHS, _told_apart(block.parts, scale), strict=False)]
    bar, start, total = [_text(Span("  "), look)], 0, 0
    for (sign, style), part in parts:
        total += part.bytes
        end = round(room * total / scale)
        bar.append(_text(Span(sign * (end - start), style), look))
        start = end
    free = _text(Span("·" * max(0, card - start), "dim"), look)
    _line(console, *bar, free, _text(Span("│" if card == room else ""), look))
    _line(console, _text(Span(_interval(low, high, card, room)), look))
    for line in _packed([f"{sign} {part.label} {gib(part.bytes)}" for (sign, _), part in parts], look.width - 2):
        _line(console, _text(Span(f"  {line}"), look))


def _packed(pieces: list[str], width: int) -> list[str]:
    """The pieces in lines, none broken."""
    lines = pieces[:1]
    for piece in pieces[1:]:
        longer = f"{lines[-1]}  {piece}"
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, piece]
    return lines


def _told_apart(parts: tuple[Bar, ...], scale_bytes: int) -> list[Bar]:
    """The largest parts by themselves, and the others together."""
    ordered = sorted(parts, key=lambda part: -part.bytes)
    own = [part for part in ordered if part.bytes >= _SMALL_SHARE * scale_bytes][: len(_GLYPHS) - 1]
    rest = sum(part.bytes for part in ordered[len(own) :])
    return [*own, Bar("rest", rest)] if rest else own


def _interval(low: int, high: int, card: int, room: int) -> str:
    """From where to where the sum of a bar of `room` columns may be, and where the card ends if that is inside the bar."""
    marks = ["─" if low < column < high else " " for column in range(room + 1)]
    marks[low], marks[high] = "├", "┤"
    if card < room:
        marks[card] = "│"
    return f"  {''.join(marks)}"


def _code(block: Code, console: Console, look: Look) -> None:
    from rich.text import Text

    text = Text("\n".join(readable(line, look) for line in block.text.rstrip("\n").split("\n")))
    if look.colour and block.language:
        from rich.syntax import Syntax

        text = Syntax("", block.language, theme="ansi_dark", background_color="default").highlight(text.plain)
        text.rstrip()
    console.print(text, soft_wrap=True)


def _either(block: Either, console: Console, look: Look) -> None:
    for chosen in block.wide if look.width >= block.columns else block.narrow:
        _DRAWN[type(chosen)](chosen, console, look)


_DRAWN: dict[type, Callable[[Any, Console, Look], None]] = {
    Blank: _blank,
    Heading: _heading,
    Paragraph: _paragraph,
    Entries: _entries,
    Table: _table,
    Bars: _bars,
    Stacked: _stacked,
    Code: _code,
    Either: _either,
}
