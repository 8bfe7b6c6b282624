"""Draw blocks as HTML: a fragment for a notebook's cell, or a whole file that fetches nothing.

It reads without colour, in light and in dark, on paper and by a screen reader; no script is needed for anything in it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from html import escape
from typing import Any

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
from advisor.render.style import PATTERNS, STYLE
from advisor.shown import shown
from advisor.units import gib

_ASIDE = "-"
"""A label that only says that an entry begins."""


def fragment(blocks: Iterable[Block], *more: str) -> str:
    """Return the blocks, and `more` that is HTML already, with their style: a part that stands in any page."""
    return f'<div class="advise"><style>{STYLE}</style>\n{body(blocks)}{"".join(more)}</div>\n'


def document(title: str, content: str, rules: str = "") -> str:
    """Return a whole page around content that is HTML already; `rules` are CSS of its own beside those of every page.

    Its Content-Security-Policy lets it fetch nothing and run nothing, and use no sheet but its own. Widths of bars are style attributes.
    """
    style = f"{STYLE}{rules}"
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; style-src-attr 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<main class="advise">\n{content}</main>\n</body>\n</html>\n'
    )


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """Return content that is HTML already under a title that folds it away."""
    return f"<details{' open' if is_open else ''}>\n<summary>{text(title)}</summary>\n{content}</details>\n"


def body(blocks: Iterable[Block]) -> str:
    """Return the blocks without anything around them. What scrolls sideways where it is too wide can be scrolled by keyboard, too."""
    return "".join(_DRAWN[type(block)](block) for block in blocks)


def text(words_of_others: str) -> str:
    """Return any text as HTML that shows it: escapes for what cannot be seen, and nothing of it read as a tag."""
    return escape(shown(words_of_others, also="\n"))


def linked(words_of_others: str) -> str:
    """Return the same, with the facts in brackets linked to their sources."""
    return CITED.sub(lambda cited: "[" + re.sub(r"\w+", _link, cited[1]) + "]", text(words_of_others))


def _link(name: re.Match[str]) -> str:
    url = urls().get(name[0])
    return f'<a href="{escape(url)}">{name[0]}</a>' if url else name[0]


def _styled(span: Span) -> str:
    return f'<span class="{escape(span.style)}">{linked(span.text)}</span>' if span.style else linked(span.text)


def _heading(block: Heading) -> str:
    return f"<h2>{linked(block.text)}</h2>\n"


def _paragraph(block: Paragraph) -> str:
    return f"<p>{_styled(block.text)}</p>\n"


def _entries(block: Entries) -> str:
    if all(label == _ASIDE for label, _ in block.rows):
        return f"<ul>\n{''.join(f'<li>{_styled(span)}</li>{chr(10)}' for _, span in block.rows)}</ul>\n" if block.rows else ""
    rows = (f"<tr>{_name(label, block.style)}<td>{_styled(span)}</td></tr>\n" for label, span in block.rows)
    return f'<table class="entries">\n{"".join(rows)}</table>\n'


def _table(block: Table) -> str:
    sides = ["right" if column.align == ">" else "left" for column in block.columns]
    headers = "".join(_header(column.header, side) for side, column in zip(sides, block.columns, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td class={chr(34)}{side}{chr(34)}>{_styled(cell)}</td>' for side, cell in zip(sides, row, strict=True))}</tr>\n"
        for row in block.rows
    )
    return f'<div class="wide" tabindex="0"><table>\n<thead><tr>{headers}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _name(label: str, style: str) -> str:
    """The label of an entry; one that goes on with the entry above has none."""
    return f'<th scope="row" class="{escape(style)}">{text(label)}</th>' if label else "<td></td>"


def _header(name: str, side: str) -> str:
    """A column's header; a cell without text is none."""
    return f'<th scope="col" class="{side}">{text(name)}</th>' if name else "<td></td>"


def _bars(block: Bars) -> str:
    """A bar a row; its number stands beside it, so that the bar itself tells a screen reader nothing new."""
    rows = (
        f'<tr><th scope="row">{text(row.label)}</th><td class="right">{words.size(row.bytes)}</td>'
        f'<td class="bar" aria-hidden="true"><div class="{"free" if row.empty else "p0"}" '
        f'style="width:{_share(row.bytes, block.whole_bytes)}"></div></td></tr>\n'
        for row in block.rows
    )
    return f'<table class="bars">\n{"".join(rows)}</table>\n'


def _stacked(block: Stacked) -> str:
    """The parts in a row against the card's end, the interval under them, and what each pattern stands for."""
    scale = max(block.whole_bytes, block.high_bytes, sum(part.bytes for part in block.parts))
    parts = [part for part in sorted(block.parts, key=lambda part: -part.bytes) if part.bytes]
    drawn = "".join(f'<i class="{_pattern(number)}" style="width:{_share(part.bytes, scale)}"></i>' for number, part in enumerate(parts))
    reach = _share(block.high_bytes - block.low_bytes, scale)
    around = (
        f'<b class="card" style="left:{_share(block.whole_bytes, scale)}"></b>'
        f'<b class="reach" style="left:{_share(block.low_bytes, scale)};width:{reach}"></b>'
    )
    legend = "".join(f'<li><i class="{_pattern(number)}"></i>{_part(part)}</li>' for number, part in enumerate(parts))
    said = f"{gib(block.low_bytes)} to {gib(block.high_bytes)} GiB, against the card's {gib(block.whole_bytes)}"
    return f'<div class="stack" role="img" aria-label="{said}">{drawn}{around}</div>\n<ul class="legend">{legend}</ul>\n'


def _part(part: Bar) -> str:
    return f"{text(part.label)} {gib(part.bytes)}"


def _pattern(number: int) -> str:
    """The class of a part of a bar; the last pattern stands for all further parts."""
    return f"p{min(number, PATTERNS - 1)}"


def _share(part_bytes: int, whole_bytes: int) -> str:
    return f"{100 * part_bytes / whole_bytes:.2f}%"


def _code(block: Code) -> str:
    return f'<pre tabindex="0"><code>{text(block.text.rstrip(chr(10)))}</code></pre>\n'


def _either(block: Either) -> str:
    return body(block.wide)


def _blank(_: Blank) -> str:
    return ""


_DRAWN: dict[type, Callable[[Any], str]] = {
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
