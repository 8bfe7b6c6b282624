"""The next step on one screen: what to do, why, what it changes and costs, what would make it surer, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import page, words
from advisor.render.page import Column, Line, Look
from advisor.values import Level
from advisor.values.next_step import Binding, Confidence, ConfigChange, Door, Gain, NextStep, RunPrice

_CHANGES = (Column("where"), Column("setting"), Column("before"), Column("next"))
_MARKS = {Level.INFO: "", Level.WARNING: "! ", Level.ERROR: "!! "}
_STYLES = {Confidence.HIGH: "bold green", Confidence.MEDIUM: "bold", Confidence.LOW: "bold yellow"}
_CONFIDENCE = {
    Confidence.HIGH: "high: it was measured",
    Confidence.MEDIUM: "medium: published results say so of runs like these",
    Confidence.LOW: "low: facts are missing, or one study says so",
}


def next_step(answer: NextStep, look: Look) -> str:
    """`answer` as a screen of text."""
    return page.draw(_lines(answer, look), look)


def _lines(answer: NextStep, look: Look) -> Iterator[Line]:
    yield from page.heading("Next step")
    yield from page.paragraph(_headline(answer), look, _STYLES[answer.confidence])
    yield from page.entries(_basis(answer), look, "bold")
    yield from page.heading("Next experiment")
    yield from page.paragraph(answer.next_experiment, look)
    if answer.config_diff:
        yield page.BLANK
        yield from page.table(_CHANGES, [_change(change) for change in answer.config_diff], look)
        yield page.BLANK
    yield from page.entries(_terms(answer), look, "bold")
    yield from _beside(answer, look)
    yield from _sources(answer, look)


def _headline(answer: NextStep) -> str:
    binds = {
        Binding.NONE: "nothing binds",
        Binding.UNKNOWN: "it is not known yet what binds",
    }.get(answer.binding, f"{answer.binding.label} binds")
    rung = f"Stay ({answer.method.label})" if answer.rung is Door.STAY and answer.method is not None else answer.rung.label
    return f"{rung}: {binds}."


def _basis(answer: NextStep) -> list[tuple[str, str]]:
    rows = [("because", answer.reason), ("confidence", f"{_CONFIDENCE[answer.confidence]} (gate {answer.gate})")]
    if answer.current:
        rows.insert(0, ("run", answer.current))
    if len(answer.blocked_by) > 1:
        rows.append(("still open", ", ".join(binding.label for binding in answer.blocked_by) + ": no climb before these are closed"))
    if answer.then is not None:
        door = "what binds then" if answer.then.rung in (Door.STAY, Door.STOP) else answer.then.rung.label
        rows.append(("behind it", f"{door}: {answer.then.binding.label}; {answer.then.sentence}"))
    if answer.disagreement:
        rows.append(("both views", answer.disagreement))
    return rows


def _change(change: ConfigChange) -> tuple[str, str, str, str]:
    return change.where, change.setting, change.old, change.new


def _terms(answer: NextStep) -> Iterator[tuple[str, str]]:
    run = answer.run
    if answer.accept_if is not None:
        yield "accept if", answer.accept_if.sentence
    if answer.expected_gain is not None:
        yield "expected", _gain(answer.expected_gain)
    if answer.cost:
        yield "cost", answer.cost
    if answer.price is not None:
        yield "price", _price(answer.price, run.runs if run is not None else 1)


def _gain(gain: Gain) -> str:
    low, high = words.number(gain.points.low), words.number(gain.points.high)
    span = low if low == high else f"{low} to {high}"
    return f"{span} points: {gain.conditions}" + (f" [{', '.join(gain.evidence)}]" if gain.evidence else "")


def _price(price: RunPrice, runs: int) -> str:
    memory = price.memory
    fits = f", fits: {words.FIT_WORDS[price.fit]}" if price.fit is not None else ""
    parts = [f"{words.size(memory.low_bytes)} to {words.size(memory.high_bytes)} of memory{fits}"]
    if price.hours is not None:
        parts.append(f"{words.loose_span(price.hours)} hours" + (f" for all {runs} runs" if runs > 1 else ""))
    if price.usd is not None:
        parts.append(f"{words.loose_span(price.usd)} USD")
    if price.relative_step_time is not None and price.relative_step_time.high > 1:
        parts.append(f"{words.span(price.relative_step_time)} × LoRA's step time")
    if price.changes:
        parts.append(f"made to fit by {', '.join(price.changes)}")
    return "; ".join(parts)


def _beside(answer: NextStep, look: Look) -> Iterator[Line]:
    if answer.findings:
        yield from page.heading("Findings")
        rows = [
            (f"{_MARKS[finding.level]}{finding.id}", "; ".join(filter(None, (finding.message, finding.hint))))
            for finding in answer.findings
        ]
        yield from page.entries(rows, look)
    if answer.missing:
        yield from page.heading("It would be surer with")
        yield from page.bullets(answer.missing, look)
    if answer.assumptions:
        yield from page.heading("Taken as")
        yield from page.bullets(answer.assumptions, look)


def _sources(answer: NextStep, look: Look) -> Iterator[Line]:
    if not answer.facts:
        return
    yield from page.heading("It rests on")
    rows = [(fact.id, f"{fact.source} ({fact.confidence})") for fact in answer.facts]
    yield from page.entries(rows, look)
