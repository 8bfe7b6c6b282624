"""The next step on one screen: what to do, why, what it changes and costs, what would make it surer, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Heading, bullets, entries, paragraph, table
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


def next_step(answer: NextStep) -> Iterator[Block]:
    """`answer` as a screen: why first, then the experiment, and which door last."""
    yield entries(_basis(answer), "bold")
    yield from _beside(answer)
    yield Heading("Next experiment")
    yield paragraph(answer.next_experiment)
    if answer.config_diff:
        yield BLANK
        yield table(_CHANGES, [_change(change) for change in answer.config_diff])
        yield BLANK
    yield entries(_terms(answer), "bold")
    yield Heading("Next step")
    yield paragraph(headline(answer), _STYLES[answer.confidence])


def headline(answer: NextStep) -> str:
    """Return which door, and what binds."""
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
    if answer.facts:
        rows.append(
            ("rests on", f"[{', '.join(fact.id for fact in answer.facts)}]: advise explain {answer.facts[0].id} says where it stands")
        )
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


def _beside(answer: NextStep) -> Iterator[Block]:
    if answer.findings:
        yield Heading("Findings")
        rows = [
            (f"{_MARKS[finding.level]}{finding.id}", "; ".join(filter(None, (finding.message, finding.hint))))
            for finding in answer.findings
        ]
        yield entries(rows)
    if answer.missing:
        yield Heading("It would be surer with")
        yield bullets(answer.missing)
    if answer.assumptions:
        yield Heading("Taken as")
        yield bullets(answer.assumptions)
