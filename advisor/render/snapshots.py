"""A dry run beside a card's own history: phases, why the peaks differ, and what one side alone allocates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.accuracy.snapshots import Difference, PeakPart, Place, SnapshotReport, SnapshotReports
from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Heading, bullets, entries, paragraph, table
from advisor.units import MIB, format_difference

SHOWN = 12
"""Rows of a table; --json has all."""
_PHASES = (Column("highest moment of"), Column("card\nMiB", ">"), Column("dry run\nMiB", ">"), Column("error", ">"))
_PARTS = (Column("MiB", ">"), Column("of", ">"), Column("why"), Column("what and where"))
_ALONE = (Column("MiB", ">"), Column("of", ">"), Column("largest\nMiB", ">"), Column("who"), Column("where"))


def snapshots(found: SnapshotReports) -> Iterator[Block]:
    """The reports as a screen."""
    for report in found.reports:
        yield from _report(report)
    if found.not_compared:
        yield Heading("Not compared")
        yield bullets([f"{entry.id}: {entry.reason}" for entry in found.not_compared])


def _report(report: SnapshotReport) -> Iterator[Block]:
    yield Heading(report.id)
    counts = f"{report.allocations_on_card:,} on the card, {report.allocations_in_trace:,} in the dry run"
    both = f"{report.matched:,} in the same order, {report.moved:,} in another"
    rows = [("run", f"{report.model}, {report.method}, on {report.gpu}"), ("allocations", f"{counts}: both make {both}")]
    other = {name: number for name, number in report.traced_versions.items() if report.versions.get(name, number) != number}
    if other:
        rows.append(("versions", "the dry run is of others: " + ", ".join(f"{name} {number}" for name, number in other.items())))
    yield entries(rows)
    yield BLANK
    phases = [
        (words.phase(entry.phase), _mib(entry.card_bytes), _mib(entry.trace_bytes), format_difference(entry.relative_error, 2))
        for entry in report.phases
    ]
    if report.card_reserved_bytes is not None:
        off = report.trace_reserved_bytes / report.card_reserved_bytes - 1
        phases.append(("reserved", _mib(report.card_reserved_bytes), _mib(report.trace_reserved_bytes), format_difference(off, 2)))
    yield table(_PHASES, phases)
    total = sum(part.bytes for part in report.parts)
    yield Heading(f"Why the peaks in {words.phase(report.peak_phase)} differ: card less dry run {_mib(total)} MiB")
    yield from _limited(_PARTS, [_part(part) for part in report.parts])
    yield Heading("Allocated by one side alone, over the whole run")
    yield from _limited(_ALONE, [_difference(entry) for entry in report.differences])


def _limited(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[Block]:
    if not rows:
        yield paragraph("nothing")
        return
    yield table(columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        yield paragraph(f"and {len(rows) - SHOWN:,} smaller kinds: --json has all", "dim")


def _part(part: PeakPart) -> tuple[str, str, str, str]:
    where = "" if part.place is None else _where(part.place)
    what = ", ".join(filter(None, (part.term.replace("_", " "), where)))
    return _mib(part.bytes), f"{part.count:,}" if part.count else "", part.why, what


def _difference(entry: Difference) -> tuple[str, str, str, str, str]:
    where = f"{words.phase(entry.place.phase)}: {_where(entry.place)}"
    return _mib(entry.bytes), f"{entry.count:,}", _mib(entry.largest_bytes), entry.where, where


def _where(place: Place) -> str:
    near = f"after {place.near}" if place.near else ""
    return ", ".join(filter(None, (place.module, place.site, near))) or "no place told"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.2f}".replace("-", "−")
