"""One plan's memory: terms down, phases across, and what the process holds on top of the live tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from advisor.api import Priced
from advisor.render import page, words
from advisor.render.page import Column, Look, Part
from advisor.units import gib
from advisor.values import MemoryBreakdown, PhaseBytes, Term

if TYPE_CHECKING:
    from rich.text import Text


def estimate(priced: Priced, look: Look) -> str:
    """`priced` as a screen of text."""
    return page.draw(_parts(priced, look), look)


def _parts(priced: Priced, look: Look) -> Iterator[Part]:
    memory, gpu = priced.memory, priced.gpu
    understood = [("model", words.model(priced.model.id, priced.model.params, priced.model.layers))]
    if gpu is not None:
        understood.append(("gpu", f"{gpu.name}: {words.size(gpu.usable_bytes)} usable"))
    yield page.entries([*understood, ("plan", words.plan(priced.plan))], look, style="bold")
    if priced.assumptions:
        yield page.bullets(priced.assumptions, look)
    yield page.heading(f"Memory by phase, in GiB{' per GPU' if priced.plan.n_gpus > 1 else ''} (each at its highest moment)")
    yield _phases(memory)
    yield page.heading("What the card must hold")
    yield _process(memory)
    if priced.fit is not None and gpu is not None:
        yield page.blank()
        yield page.paragraph(
            f"Fits {words.size(gpu.usable_bytes)}: {words.FIT_WORDS[priced.fit]}", look, f"bold {words.FIT_STYLES[priced.fit]}"
        )
    yield page.blank()
    yield page.entries(_provenance(memory), look, style="dim")
    if memory.notes:
        yield page.bullets(memory.notes, look)


def _phases(memory: MemoryBreakdown) -> Part:
    from rich.text import Text

    terms = [term for term in Term if any(_bytes(phase, term) for phase in memory.phases)]
    columns: list[Column] = [("term", "left")]
    columns += [(phase.phase.value.replace("_", " "), "right") for phase in memory.phases]
    rows: list[Sequence[str | Text]] = [(words.term(term), *(_cell(_bytes(phase, term)) for phase in memory.phases)) for term in terms]
    total = ("allocated", *(f"{gib(phase.allocated_bytes, 2)}{'*' if phase.phase is memory.peak_phase else ''}" for phase in memory.phases))
    return page.table(columns, [*rows, tuple(Text(cell, style="bold") for cell in total)])


def _bytes(phase: PhaseBytes, term: Term) -> int:
    return sum(entry.bytes for entry in phase.terms if entry.term is term)


def _cell(size_bytes: int) -> str:
    return gib(size_bytes, 2) if size_bytes else "-"


def _process(memory: MemoryBreakdown) -> Part:
    rows = [
        (f"allocated at the peak (*{memory.peak_phase.value.replace('_', ' ')})", gib(memory.peak_allocated_bytes, 2)),
        ("+ allocator slack", gib(memory.reserved_slack_bytes, 2)),
        ("= reserved", gib(memory.peak_reserved_bytes, 2)),
        ("+ CUDA context", gib(memory.context_bytes, 2)),
        ("= process, expected", gib(memory.expected_bytes, 2)),
        ("between", f"{gib(memory.low_bytes, 2)} and {gib(memory.high_bytes, 2)}"),
    ]
    return page.table([("", "left"), ("GiB", "right")], rows)


def _provenance(memory: MemoryBreakdown) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in memory.versions.items())
    source = f"{memory.source}{f', for {versions}' if versions else ''}"
    return [("source", source), ("interval", memory.interval.source)]
