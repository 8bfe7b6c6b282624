"""Results where Python shows them: a line at a prompt, the screen by `print`, HTML in a notebook's cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import singledispatch

from advisor.errors import MissingExtraError
from advisor.ladder import classify
from advisor.render import words
from advisor.render.advice import bar_parts, cited
from advisor.render.blocks import BLANK, Block, Code, Heading, Paragraph, Span, Stacked, bullets, entries, paragraph
from advisor.render.check import check, verdict as check_verdict
from advisor.render.comparison import comparison, verdicts
from advisor.render.estimate import breakdown
from advisor.render.fit import fit
from advisor.render.heat_map import heat_map
from advisor.render.html import body, folded, fragment
from advisor.render.look import look_of_stdout
from advisor.render.next_step import headline, next_step
from advisor.render.summary import summary
from advisor.render.terminal import draw
from advisor.values import Advice, MemoryBreakdown, Rung
from advisor.values.check import CheckReport
from advisor.values.next_step import NextStep
from advisor.values.offer import SideBySide
from advisor.values.question import FitAnswer


@singledispatch
def line(value: object) -> str:
    """Return the verdict of a result, in one line. Raises TypeError for what is none."""
    raise TypeError(f"{type(value).__name__} is no result")


@line.register
def _(value: Advice) -> str:
    return value.verdict.sentence


@line.register
def _(value: Rung) -> str:
    return f"{value.plan.method.label}: {words.FIT_SENTENCES[value.fit]}, {_size(value.memory)}"


@line.register
def _(value: MemoryBreakdown) -> str:
    if value.usable_bytes is None:
        return _size(value)
    verdict = words.FIT_SENTENCES[classify(value, value.usable_bytes)].capitalize()
    return f"{verdict}: {_size(value)}"


@line.register
def _(value: NextStep) -> str:
    return headline(value)


@line.register
def _(value: CheckReport) -> str:
    return check_verdict(value)[0]


@line.register
def _(value: FitAnswer) -> str:
    return value.sentence


@line.register
def _(value: SideBySide) -> str:
    return " ".join(verdicts(value))


@singledispatch
def screen(value: object) -> Iterator[Block]:
    """Yield the blocks of a result, its verdict last. Raises TypeError for what is none."""
    raise TypeError(f"{type(value).__name__} is no result")


screen.register(Advice, summary)
screen.register(NextStep, next_step)
screen.register(CheckReport, check)
screen.register(FitAnswer, fit)
screen.register(SideBySide, comparison)


@screen.register
def _(value: MemoryBreakdown) -> Iterator[Block]:
    yield from breakdown(value)
    yield BLANK
    yield paragraph(line(value), "bold")


@screen.register
def _(value: Rung) -> Iterator[Block]:
    yield entries(_of_rung(value), "bold")
    yield from whole_bar(value)
    if value.changes:
        yield Heading("Changed to make it fit")
        yield bullets(f"{change.what} ({change.cost})" for change in value.changes)
    yield BLANK
    yield paragraph(line(value), f"bold {words.FIT_STYLES[value.fit]}")


def text(value: object) -> str:
    """Return a result as the command line prints it, without colour."""
    return draw(screen(value), look_of_stdout()._replace(colour=False)).rstrip("\n")


def html(value: object) -> str:
    """Return a result as HTML for a notebook's cell: the verdict first, then the screen, and what it leaves out folded away."""
    blocks = verdicts_first(value) if isinstance(value, SideBySide) else verdict_first(screen(value))
    more = _folded(value) if isinstance(value, Advice) else _heat_map(value) if isinstance(value, SideBySide) else ()
    return fragment(blocks, *more)


def _heat_map(value: SideBySide) -> Iterator[str]:
    """Yield what fits as a figure, where the extra `report` that draws it is installed."""
    with suppress(MissingExtraError):
        yield heat_map(value)


def verdict_first(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks of a screen, which ends in its verdict, with the verdict before everything else.

    The price of a plan without a card has no verdict, and stays as it is.
    """
    listed = list(blocks)
    verdict_at = max((number for number, block in enumerate(listed) if isinstance(block, Paragraph)), default=0)
    start = verdict_at - 1 if verdict_at and isinstance(listed[verdict_at - 1], Heading) else verdict_at
    return [*listed[start:], *listed[:start]]


def verdicts_first(value: SideBySide) -> list[Block]:
    """Return the blocks of models side by side, with what is said of each model before the table."""
    blocks = [*comparison(value)]
    start = len(blocks) - len([*verdicts(value)])
    return [*blocks[start:], *blocks[:start]]


def whole_bar(rung: Rung) -> Iterator[Block]:
    """Yield what a rung takes, every term against the card's line, with the interval."""
    memory = rung.memory
    usable_bytes = memory.expected_bytes + rung.headroom_bytes
    yield paragraph(f"{rung.plan.method.label}: {_size(memory)}, at its peak in {words.phase(memory.peak_phase)}")
    yield Stacked(tuple(bar_parts(rung)), usable_bytes, memory.low_bytes, memory.high_bytes)


def _folded(answer: Advice) -> Iterator[str]:
    yield folded("Every rung, term by term", body(block for rung in answer.rungs for block in whole_bar(rung)))
    yield folded("Taken as", body([bullets(answer.assumptions)]))
    if answer.snippet:
        yield folded("The plan as Python", body([Code(answer.snippet, "python")]))


def _of_rung(rung: Rung) -> Iterator[tuple[str, str | Span]]:
    yield "plan", words.plan(rung.plan)
    yield "quality", cited(rung.quality, rung.quality_evidence)
    if rung.why_not:
        yield "why not", rung.why_not


def _size(memory: MemoryBreakdown) -> str:
    of = "" if memory.usable_bytes is None else f", of {words.size(memory.usable_bytes)}"
    return f"{words.size(memory.expected_bytes)} expected, between {words.size(memory.low_bytes)} and {words.size(memory.high_bytes)}{of}"
