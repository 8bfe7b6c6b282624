"""One plan's memory: terms down, phases across, and what the process holds on top of the live tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from advisor.api import Priced
from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Heading, Span, Text, bullets, entries, paragraph, table
from advisor.render.traced import side_by_side
from advisor.units import format_share, gib
from advisor.values import Fit, MemoryBreakdown, PhaseBytes, Term

if TYPE_CHECKING:
    from advisor.tape.breakdown import Holder


SHOWN_HOLDERS = 20


def estimate(priced: Priced) -> Iterator[Block]:
    """`priced` as a screen."""
    memory, gpu = priced.memory, priced.gpu
    yield entries(_understood(priced), "bold")
    yield from breakdown(memory, " per GPU" if priced.plan.n_gpus > 1 else "")
    if priced.fit is not None and gpu is not None:
        yield BLANK
        style = f"bold {words.FIT_STYLES[priced.fit]}"
        known = memory.fit_probability if priced.fit is not Fit.DOES_NOT_FIT else None
        likely = f" (at least {format_share(known)} likely)" if known else ""
        yield paragraph(f"Fits {words.size(gpu.usable_bytes)}: {words.FIT_WORDS[priced.fit]}{likely}", style)


def breakdown(memory: MemoryBreakdown, per_card: str = "") -> Iterator[Block]:
    """Yield memory by term and phase, what the process adds, and where the numbers come from."""
    yield Heading(f"Memory by phase, in GiB{per_card} (each at its highest moment)")
    yield _phases(memory)
    yield Heading("What the card must hold")
    yield _process(memory)
    yield BLANK
    yield entries(_provenance(memory), "dim")
    yield bullets(memory.notes)


def explained(priced: Priced, holders: Sequence[Holder]) -> Iterator[Block]:
    """The same, and which modules hold what at the peak."""
    yield from estimate(priced)
    yield from _holders(holders)


def versus(priced: Priced, traced: MemoryBreakdown) -> Iterator[Block]:
    """The same, with the dry run of the plan beside it, term by term."""
    yield from estimate(priced)
    yield Heading("Beside the dry run")
    yield from side_by_side(priced.memory, traced)


def _holders(holders: Sequence[Holder]) -> Iterator[Block]:
    rows = [(words.size(row.bytes), str(row.count), words.term(row.term), row.module) for row in holders[:SHOWN_HOLDERS]]
    yield Heading(f"What holds the peak (the largest {len(rows)} of {len(holders)})")
    yield table([Column("bytes", ">"), Column("tensors", ">"), Column("term"), Column("module")], rows)


def _understood(priced: Priced) -> Iterator[tuple[str, str]]:
    yield "model", words.model(priced.model.id, priced.model.params, priced.model.layers)
    if priced.gpu is not None:
        yield "gpu", f"{priced.gpu.name}: {words.size(priced.gpu.usable_bytes)} usable"
    yield "plan", words.plan(priced.plan)
    if priced.assumptions:
        yield "taken as", "; ".join(priced.assumptions)


def _phases(memory: MemoryBreakdown) -> Block:
    terms = [term for term in Term if any(_bytes(phase, term) for phase in memory.phases)]
    columns = [Column("term"), *(Column(words.phase(phase.phase), ">") for phase in memory.phases)]
    rows: list[Sequence[Text]] = [(words.term(term), *(_cell(_bytes(phase, term)) for phase in memory.phases)) for term in terms]
    peaks = (f"{gib(phase.allocated_bytes, 2)}{'*' if phase.phase is memory.peak_phase else ''}" for phase in memory.phases)
    return table(columns, [*rows, [Span(cell, "bold") for cell in ("allocated", *peaks)]])


def _bytes(phase: PhaseBytes, term: Term) -> int:
    return sum(entry.bytes for entry in phase.terms if entry.term is term)


def _cell(size_bytes: int) -> str:
    return gib(size_bytes, 2) if size_bytes else "-"


def _process(memory: MemoryBreakdown) -> Block:
    rows = [
        (f"allocated at the peak (*{words.phase(memory.peak_phase)})", gib(memory.peak_allocated_bytes, 2)),
        ("+ allocator slack", gib(memory.reserved_slack_bytes, 2)),
        ("= reserved", gib(memory.peak_reserved_bytes, 2)),
        ("+ CUDA context", gib(memory.context_bytes, 2)),
        *([("+ communicators (NCCL)", gib(memory.communicator_bytes, 2))] if memory.communicator_bytes else []),
        ("= process, expected", gib(memory.expected_bytes, 2)),
        ("between", f"{gib(memory.low_bytes, 2)} and {gib(memory.high_bytes, 2)}"),
    ]
    return table([Column(""), Column("GiB", ">")], rows)


def _provenance(memory: MemoryBreakdown) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in memory.versions.items())
    source = f"{memory.source}{f', for {versions}' if versions else ''}"
    return [("source", source), ("interval", memory.interval.source)]
