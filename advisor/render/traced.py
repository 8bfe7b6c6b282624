"""The closed form beside the dry run, term by term, and what that says of a verdict."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.advice import advice
from advisor.render.blocks import BLANK, Block, Column, Heading, entries, paragraph, table
from advisor.render.summary import summary
from advisor.units import format_difference, gib
from advisor.values import MemoryBreakdown, Term
from advisor.values.advice import TracedAdvice

_COLUMNS = (Column("at the peak, in GiB"), Column("closed form", ">"), Column("dry run", ">"), Column("difference", ">"))


def traced_advice(found: TracedAdvice, full: bool = False) -> Iterator[Block]:
    """The answer's own screen, and the dry run of its verdict under it."""
    yield from advice(found.advice) if full else summary(found.advice)
    if found.memory is not None:
        yield from _check(found, found.memory)


def _check(found: TracedAdvice, memory: MemoryBreakdown) -> Iterator[Block]:
    chosen, gpu = found.advice.chosen, found.advice.gpu
    if chosen is None or found.fit is None:
        return
    yield Heading(f"Dry run of {chosen.plan.method.label}")
    stands = "The verdict stands" if found.stands else "The dry run disagrees"
    said = f"{stands}: between {gib(memory.low_bytes)} and {gib(memory.high_bytes)} GiB of {words.size(gpu.usable_bytes)} usable, "
    style = f"bold {words.FIT_STYLES[found.fit]}"
    yield paragraph(f"{said}expected {gib(memory.expected_bytes)}; fits: {words.FIT_WORDS[found.fit]}", style)
    yield BLANK
    yield from side_by_side(chosen.memory, memory)


def side_by_side(closed: MemoryBreakdown, traced: MemoryBreakdown) -> Iterator[Block]:
    """Both breakdowns at their own peaks."""
    terms = {memory.source: {term.term: term.bytes for term in memory.terms} for memory in (closed, traced)}
    ours, theirs = terms[closed.source], terms[traced.source]
    rows = [_row(words.term(term), ours.get(term, 0), theirs.get(term, 0)) for term in Term if ours.get(term) or theirs.get(term)]
    rows.append(_row("allocated", closed.peak_allocated_bytes, traced.peak_allocated_bytes))
    rows.append(_row("reserved", closed.peak_reserved_bytes, traced.peak_reserved_bytes))
    rows.append(_row("process", closed.process_bytes, traced.process_bytes))
    yield table(_COLUMNS, rows)
    yield BLANK
    versions = ", ".join(f"{name} {version}" for name, version in traced.versions.items())
    phases = f"{words.phase(closed.peak_phase)} (closed form), {words.phase(traced.peak_phase)} (dry run)"
    yield entries([("peak in", phases), ("dry run of", versions), ("interval", traced.interval.source)], "dim")


def _row(label: str, closed_bytes: int, traced_bytes: int) -> tuple[str, ...]:
    difference = format_difference(closed_bytes / traced_bytes - 1) if traced_bytes else "-"
    return label, gib(closed_bytes, 3), gib(traced_bytes, 3), difference
