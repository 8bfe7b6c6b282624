"""One plan's memory: terms down, phases across, and what the process holds on top of the live tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from advisor.api import Priced
from advisor.render import page, words
from advisor.render.page import BLANK, Cell, Column, Line, Look, Span
from advisor.render.traced import side_by_side
from advisor.units import gib
from advisor.values import Fit, MemoryBreakdown, PhaseBytes, Term

if TYPE_CHECKING:
    from advisor.tape.breakdown import Holder


SHOWN_HOLDERS = 20


def estimate(priced: Priced, look: Look) -> str:
    """`priced` as a screen of text."""
    return page.draw(_lines(priced, look), look)


def explained(priced: Priced, holders: Sequence[Holder], look: Look) -> str:
    """The same, and which modules hold what at the peak."""
    return page.draw([*_lines(priced, look), *_holders(holders, look)], look)


def versus(priced: Priced, traced: MemoryBreakdown, look: Look) -> str:
    """The same, with the dry run of the plan beside it, term by term."""
    return page.draw([*_lines(priced, look), *page.heading("Beside the dry run"), *side_by_side(priced.memory, traced, look)], look)


def _holders(holders: Sequence[Holder], look: Look) -> Iterator[Line]:
    rows = [(words.size(row.bytes), str(row.count), words.term(row.term), row.module) for row in holders[:SHOWN_HOLDERS]]
    yield from page.heading(f"What holds the peak (the largest {len(rows)} of {len(holders)})")
    yield from page.table([Column("bytes", ">"), Column("tensors", ">"), Column("term"), Column("module")], rows, look)


def _lines(priced: Priced, look: Look) -> Iterator[Line]:
    memory, gpu = priced.memory, priced.gpu
    yield from page.entries(_understood(priced), look, "bold")
    yield from page.heading(f"Memory by phase, in GiB{' per GPU' if priced.plan.n_gpus > 1 else ''} (each at its highest moment)")
    yield from _phases(memory, look)
    yield from page.heading("What the card must hold")
    yield from _process(memory, look)
    if priced.fit is not None and gpu is not None:
        yield BLANK
        style = f"bold {words.FIT_STYLES[priced.fit]}"
        known = memory.fit_probability if priced.fit is not Fit.DOES_NOT_FIT else None
        likely = f" (at least {words.percent(known, 0)} likely)" if known else ""
        yield from page.paragraph(f"Fits {words.size(gpu.usable_bytes)}: {words.FIT_WORDS[priced.fit]}{likely}", look, style)
    yield BLANK
    yield from page.entries(_provenance(memory), look, "dim")
    yield from page.bullets(memory.notes, look)


def _understood(priced: Priced) -> Iterator[tuple[str, str]]:
    yield "model", words.model(priced.model.id, priced.model.params, priced.model.layers)
    if priced.gpu is not None:
        yield "gpu", f"{priced.gpu.name}: {words.size(priced.gpu.usable_bytes)} usable"
    yield "plan", words.plan(priced.plan)
    if priced.assumptions:
        yield "taken as", "; ".join(priced.assumptions)


def _phases(memory: MemoryBreakdown, look: Look) -> list[Line]:
    terms = [term for term in Term if any(_bytes(phase, term) for phase in memory.phases)]
    columns = [Column("term"), *(Column(words.phase(phase.phase), ">") for phase in memory.phases)]
    rows: list[Sequence[Cell]] = [(words.term(term), *(_cell(_bytes(phase, term)) for phase in memory.phases)) for term in terms]
    peaks = (f"{gib(phase.allocated_bytes, 2)}{'*' if phase.phase is memory.peak_phase else ''}" for phase in memory.phases)
    return page.table(columns, [*rows, [Span(cell, "bold") for cell in ("allocated", *peaks)]], look)


def _bytes(phase: PhaseBytes, term: Term) -> int:
    return sum(entry.bytes for entry in phase.terms if entry.term is term)


def _cell(size_bytes: int) -> str:
    return gib(size_bytes, 2) if size_bytes else "-"


def _process(memory: MemoryBreakdown, look: Look) -> list[Line]:
    rows = [
        (f"allocated at the peak (*{words.phase(memory.peak_phase)})", gib(memory.peak_allocated_bytes, 2)),
        ("+ allocator slack", gib(memory.reserved_slack_bytes, 2)),
        ("= reserved", gib(memory.peak_reserved_bytes, 2)),
        ("+ CUDA context", gib(memory.context_bytes, 2)),
        ("= process, expected", gib(memory.expected_bytes, 2)),
        ("between", f"{gib(memory.low_bytes, 2)} and {gib(memory.high_bytes, 2)}"),
    ]
    return page.table([Column(""), Column("GiB", ">")], rows, look)


def _provenance(memory: MemoryBreakdown) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in memory.versions.items())
    source = f"{memory.source}{f', for {versions}' if versions else ''}"
    return [("source", source), ("interval", memory.interval.source)]
