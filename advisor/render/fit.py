"""The answer to a question asked backwards: what was understood, what could be traded, what was considered, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Heading, Paragraph, Span, Table, bullets, entries, paragraph, table
from advisor.units import format_count, gib
from advisor.values import Fit
from advisor.values.question import Candidate, FitAnswer, Trade, Unknown

SHOWN_CANDIDATES = 12
"""Judgement: a screen's worth; `--json` has all of them."""


def fit(answer: FitAnswer) -> Iterator[Block]:
    """`answer` as a screen."""
    yield entries(_understood(answer), "bold")
    if answer.trades:
        yield Heading(f"Memory against time against money (costs are of {format_count(answer.cost_tokens)} tokens)")
        yield _trades(answer)
        yield paragraph("* what was asked   - a later row takes less memory and no more time", "dim")
    if answer.candidates:
        yield Heading(_considered(answer))
        yield _candidates(answer)
        yield from _unpriced(answer)
    if answer.memory is not None:
        yield BLANK
        yield entries([("interval", answer.memory.interval.source)], "dim")
        yield bullets(answer.memory.notes)
    yield BLANK
    fit = Fit.FITS if answer.value is not None else Fit.UNCERTAIN if answer.uncertain else Fit.DOES_NOT_FIT
    yield paragraph(answer.sentence, f"bold {words.FIT_STYLES[fit]}")


def _understood(answer: FitAnswer) -> Iterator[tuple[str, str]]:
    if answer.model is not None:
        yield "model", words.model(answer.model.id, answer.model.params, answer.model.layers)
    if answer.gpu is not None:
        yield "gpu", f"{answer.gpu.name}: {words.size(answer.gpu.usable_bytes)} usable"
    if answer.plan is not None:
        yield "plan", words.plan(answer.plan)
    if answer.assumptions:
        yield "taken as", "; ".join(answer.assumptions)


def _trades(answer: FitAnswer) -> Table:
    columns = [Column(""), Column("up to\nGiB", ">"), Column("fits"), Column("tokens/s", ">"), Column("USD", ">"), Column("the next row")]
    return table(columns, [_trade(row) for row in answer.trades])


def _trade(row: Trade) -> list[str | Span]:
    time = row.step_time
    return [
        ("*" if row.asked else " ") + ("-" if row.beaten else ""),
        gib(row.memory.high_bytes, 2),
        Span(words.FIT_WORDS[row.fit], words.FIT_STYLES[row.fit]),
        "-" if time is None else words.loose_span(time.tokens_per_s),
        "-" if time is None or time.usd is None else words.loose_span(time.usd),
        f"{row.change} ({row.cost})" if row.change else "",
    ]


def _considered(answer: FitAnswer) -> str:
    total = sum(each.fit is not None for each in answer.candidates)
    what = {Unknown.GPU: "Cards with a recorded rent, cheapest first", Unknown.GPUS: "Numbers of cards", Unknown.MODEL: "Models"}
    shown = f" ({SHOWN_CANDIDATES} of {total})" if total > SHOWN_CANDIDATES else ""
    return f"{what[answer.unknown]}{shown}"


def _candidates(answer: FitAnswer) -> Table:
    priced = [each for each in answer.candidates if each.fit is not None]
    shown = priced[:SHOWN_CANDIDATES] if answer.unknown is Unknown.GPU else priced[-SHOWN_CANDIDATES:]
    columns = [Column(""), Column("up to\nGiB", ">"), Column("of\nGiB", ">"), Column("fits")]
    if answer.unknown is Unknown.MODEL:
        return table(columns, [_candidate(each) for each in shown])
    columns += [Column("USD/h", ">"), Column("USD", ">"), Column("hours")]
    return table(columns, [[*_candidate(each), *_cost(each)] for each in shown])


def _unpriced(answer: FitAnswer) -> Iterator[Paragraph]:
    """Those of which nothing is known, and why of the first; `--json` says why of each."""
    unpriced = [each for each in answer.candidates if each.fit is None]
    if not unpriced:
        return
    named = ", ".join(each.name for each in unpriced[:SHOWN_CANDIDATES])
    more = f" and {len(unpriced) - SHOWN_CANDIDATES} more" if len(unpriced) > SHOWN_CANDIDATES else ""
    yield paragraph(f"Without a price: {named}{more}. {unpriced[0].reason}.", "dim")


def _candidate(each: Candidate) -> list[str | Span]:
    fits = Span("-") if each.fit is None else Span(words.FIT_WORDS[each.fit], words.FIT_STYLES[each.fit])
    name = each.name if each.n_gpus == 1 else f"{each.n_gpus} × {each.name}"
    sizes = ["-" if size is None else gib(size) for size in (each.high_bytes, each.usable_bytes)]
    return [name, *sizes, fits]


def _cost(each: Candidate) -> list[str]:
    time = each.step_time
    rent = "-" if each.usd_per_hour is None else f"{each.usd_per_hour:.2f}"
    known = (None, None) if time is None else (time.usd, time.hours)
    return [rent, *("-" if span is None else words.loose_span(span) for span in known)]
