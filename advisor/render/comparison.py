"""Models and cards side by side: a line for each pair that may fit, the others by name, and the best of each model last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.comparing import cheapest
from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Either, Span, Table, Text, bullets, entries, paragraph, table
from advisor.units import format_count, gib
from advisor.values import Fit
from advisor.values.offer import Offer, SideBySide

UNREAD, CHANGED = "~", "*"
_WIDE_COLUMNS = 120
"""From here on every column has room beside the longest name of a card."""
_CARD_COLUMNS, _MODEL_COLUMNS = 30, 14
"""Of a name on a narrower screen, which has eighty."""


def comparison(found: SideBySide) -> Iterator[Block]:
    """`found` as a screen that ends in what to rent."""
    shown = [line for line in found.offers if line.fit is not Fit.DOES_NOT_FIT]
    others = [line for line in found.offers if line.fit is Fit.DOES_NOT_FIT]
    if shown:
        models = len({line.model for line in found.offers}) > 1
        columns = _WIDE_COLUMNS + (_MODEL_COLUMNS + 2 if models else 0)
        yield Either(columns, (_table(shown, models, wide=True),), (_table(shown, models, wide=False),))
        yield BLANK
    yield entries(_remarks(found, shown, others), "bold")
    if found.refused:
        yield bullets(f"{line.model} on {line.gpu} is not priced: {line.reason}" for line in found.refused)
    yield BLANK
    yield from _verdict(found)


def _table(lines: Sequence[Offer], models: bool, *, wide: bool) -> Table:
    columns = [Column("model")] if models else []
    columns += [Column("GPU")]
    columns += [Column("usable", ">")] if wide else []
    columns += [Column("fits"), Column("method")]
    columns += [Column("GiB", ">")] if wide else []
    columns += [Column("longest", ">"), Column("hours", ">"), Column("USD", ">")]
    columns += [Column("USD/h", ">"), Column("priced")] if wide else []
    return table(columns, [_row(line, models, wide) for line in lines])


def _row(line: Offer, models: bool, wide: bool) -> list[Text]:
    time = line.step_time
    hours = "-" if time is None or time.hours is None else words.loose_span(time.hours)
    usd = "-" if time is None or time.usd is None else words.span(time.usd)
    hourly = "-" if line.usd_per_hour is None else f"{line.usd_per_hour:.2f}"
    return [
        *([_short(line.model.rpartition("/")[2], _MODEL_COLUMNS, wide)] if models else []),
        _card(line, models, wide),
        *([gib(line.gpu.usable_bytes)] if wide else []),
        Span(words.FIT_WORDS[line.fit], words.FIT_STYLES[line.fit]),
        f"{line.method.label}{f' {CHANGED}' if line.changes else ''}",
        *([gib(line.expected_bytes)] if wide else []),
        words.tokens(line.max_seq_len_tokens),
        hours,
        usd,
        *([hourly, line.price_date or "-"] if wide else []),
    ]


def _card(line: Offer, models: bool, wide: bool) -> str:
    """The card's name without what goes without saying, and marked where its memory was not read."""
    name = line.gpu.name.removeprefix("GeForce ").removesuffix(" Edition").removesuffix(" Generation")
    cards = f"{line.n_gpus} × " if line.n_gpus > 1 else ""
    return _short(f"{cards}{name}", _CARD_COLUMNS - (_MODEL_COLUMNS if models else 0), wide) + (
        "" if line.gpu.usable_is_read else f" {UNREAD}"
    )


def _short(name: str, columns: int, wide: bool) -> str:
    return name if wide or len(name) <= columns else f"{name[: columns - 1]}…"


def _remarks(found: SideBySide, shown: Sequence[Offer], others: Sequence[Offer]) -> Iterator[tuple[str, str]]:
    guessed = "" if found.asked_tokens else ", a guess: --dataset-tokens says how many they are"
    yield "hours, USD", f"for {format_count(found.dataset_tokens)} tokens once over{guessed}"
    dates = sorted({line.price_date for line in shown if line.price_date})
    if dates:
        yield "prices", f"the lowest that was recorded of each card, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
    if any(not line.gpu.usable_is_read for line in shown):
        yield UNREAD, "usable memory by the size that the card is sold by: nobody's reading of one is here, and it is usually less"
    changes = dict.fromkeys(change for line in shown for change in line.changes)
    if changes:
        yield CHANGED, f"made to fit by some of: {'; '.join(changes)}"
    if others:
        yield "too small", ", ".join(f"{line.gpu.name} ({gib(line.expected_bytes)} of {gib(line.gpu.usable_bytes)} GiB)" for line in others)


def _verdict(found: SideBySide) -> Iterator[Block]:
    some = any(cheapest(found))
    yield from (paragraph(said, "bold green" if some else "bold yellow") for said in verdicts(found))


def verdicts(found: SideBySide) -> Iterator[str]:
    """Yield of each model what to rent, or that nothing surely fits."""
    best = [*cheapest(found)]
    for line in best:
        usd = None if line.step_time is None else line.step_time.usd
        price = f", {words.span(usd)} USD for {format_count(line.dataset_tokens)} tokens" if usd else ""
        how, by = ("cheapest", ", by the middle of its price") if usd else ("smallest", "")
        yield f"{line.model}: {line.gpu.name} is the {how} here that fits{by}, with {line.method.label}{price}."
    if not best:
        yield "Nothing here surely fits."
