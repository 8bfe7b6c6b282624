"""The answer in a screenful that ends in the verdict: what was guessed, every rung in a line, the chosen one as a bar, what next."""

from __future__ import annotations

import re
from collections.abc import Iterator

from advisor.render import words
from advisor.render.advice import bar_parts, cited, rung_name, verdict
from advisor.render.blocks import BLANK, Block, Column, Span, Stacked, Text, entries, paragraph, table
from advisor.units import gib
from advisor.values import Advice, Level, Rung

LINE_COLUMNS = 89
"""Of a text beside its label, on a screen of a hundred columns."""
GUESSED_LINES, CHANGED_LINES, WOULD_CHANGE_LINES, NEXT_LINES = 5, 2, 3, 2
"""How much of each a screenful holds: the whole has 35 lines of a hundred columns, and `--full` leaves nothing out."""

_IN_BRACKETS = re.compile(r" \([^()]*\)")
_MEANT = re.compile(" → | = ")
"""Between a name and what it was taken to mean."""


def summary(answer: Advice) -> Iterator[Block]:
    """`answer` in at most 35 lines of a hundred columns, the verdict and the command of its plan last."""
    yield entries(_asked(answer), "bold")
    yield BLANK
    yield _rungs(answer)
    yield BLANK
    yield from _bar(answer)
    yield entries(_around(answer), "bold")
    yield BLANK
    yield from verdict(answer)


def _asked(answer: Advice) -> Iterator[tuple[str, str]]:
    model, gpu = answer.model, answer.gpu
    cards = "" if answer.n_gpus == 1 else f"{answer.n_gpus} × "
    yield "model", f"{words.model(model.id, model.params, model.layers)}, {words.size(model.weights_16bit_bytes)} in 16 bit"
    yield "gpu", f"{cards}{gpu.name}: {words.size(gpu.usable_bytes)} usable{' each' if cards else ''}"
    said = (model.id, f"{gpu.name}: {words.size(gpu.usable_bytes)} usable")
    guesses = [_IN_BRACKETS.sub("", text) for text in answer.assumptions]
    guesses = [text for text in guesses if _MEANT.split(text)[-1] not in said]
    if guesses:
        yield "guessed", _whole_texts(guesses, GUESSED_LINES)


def _whole_texts(texts: list[str], lines: int) -> str:
    """As many of the texts as fit the lines, and what shows the others."""
    joined = "; ".join(texts)
    while len(texts) > 1 and len(joined) > lines * (LINE_COLUMNS - 4):
        texts = texts[:-1]
        joined = "; ".join([*texts, "--full has the rest"])
    return joined


def _rungs(answer: Advice) -> Block:
    """One line a rung: memory, and the time and the price that are known."""
    timed = any(rung.step_time for rung in answer.rungs)
    priced = any(rung.step_time is not None and rung.step_time.usd for rung in answer.rungs)
    per_card = " a GPU" if answer.n_gpus > 1 else ""
    columns = [Column("rung"), Column("fits"), Column(f"GiB{per_card}", ">"), Column("between", ">"), Column("headroom", ">")]
    columns += [Column("s/step" if timed else "step × LoRA", ">")]
    columns += [Column("hours", ">"), Column("USD", ">")] if priced else []
    rows = [[*_room(answer, rung), _step(rung, timed), *(_price(rung) if priced else ())] for rung in answer.rungs]
    return table(columns, rows)


def _room(answer: Advice, rung: Rung) -> list[Text]:
    memory = rung.memory
    between = f"{gib(memory.low_bytes)}–{gib(memory.high_bytes)}"
    fits = Span(words.FIT_WORDS[rung.fit], words.FIT_STYLES[rung.fit])
    return [rung_name(answer, rung), fits, gib(memory.expected_bytes), between, words.signed_gib(rung.headroom_bytes)]


def _step(rung: Rung, timed: bool) -> str:
    if timed:
        return "-" if rung.step_time is None else words.loose_span(rung.step_time.seconds_per_step)
    return "-" if rung.relative_step_time is None else words.span(rung.relative_step_time)


def _price(rung: Rung) -> tuple[str, str]:
    time = rung.step_time
    hours = "-" if time is None or time.hours is None else words.loose_span(time.hours)
    return hours, "-" if time is None or time.usd is None else words.span(time.usd)


def _bar(answer: Advice) -> Iterator[Block]:
    rung = answer.focus
    memory = rung.memory
    size = f"{gib(memory.expected_bytes)} GiB, between {gib(memory.low_bytes)} and {gib(memory.high_bytes)}"
    yield paragraph(f"{rung.plan.method.label} at its peak, in {words.phase(memory.peak_phase)}: {size}, of {gib(answer.gpu.usable_bytes)}")
    yield Stacked(tuple(bar_parts(rung)), answer.gpu.usable_bytes, memory.low_bytes, memory.high_bytes)


def _around(answer: Advice) -> Iterator[tuple[str, str]]:
    """What was changed, noticed and would change the answer, and what to do next."""
    if answer.focus.changes:
        yield "changed" if answer.chosen else "tried", _changes(answer.focus)
    noticed = [finding.id for finding in answer.findings if finding.level is not Level.INFO]
    if noticed:
        yield "beware", f"{', '.join(noticed)} (advise explain ID; --full)"
    for number, text in enumerate(_first_lines(answer.would_change)):
        yield "limits" if number == 0 else "", text
    yield "next", _next(answer)


def _changes(rung: Rung) -> str:
    """What was changed and what it costs; where that is too long, what was changed."""
    told = "; ".join(f"{change.what} ({change.cost})" for change in rung.changes)
    if len(told) <= CHANGED_LINES * LINE_COLUMNS:
        return told
    return "; ".join([*(change.what for change in rung.changes), "--full has the costs"])


def _first_lines(texts: tuple[str, ...]) -> Iterator[str]:
    """The first of the texts, while they fit."""
    left = WOULD_CHANGE_LINES
    for text in texts:
        left -= -(-len(text) // LINE_COLUMNS)
        if left < 0:
            return
        yield text


def _next(answer: Advice) -> str:
    """The next experiment, or its first clauses where all of it is too long."""
    clauses = cited(answer.next_experiment, answer.next_evidence).split("; ")
    while len(clauses) > 1 and len("; ".join(clauses)) > NEXT_LINES * LINE_COLUMNS:
        clauses.pop()
    return "; ".join(clauses)
