"""A trained adapter on one screen: its update by kind of module, what a lower rank would keep, what follows and what does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import median

from advisor.render import words
from advisor.render.blocks import BLANK, Block, Code, Column, Heading, Span, Text, bullets, entries, paragraph, table
from advisor.units import MIB, format_count
from advisor.values.adapter import AdapterReport, ModuleState, ModuleUpdate, TruncatedAdapter
from advisor.values.advice import Finding, Level

_STATES = {ModuleState.FAINT: "faint", ModuleState.UNTRAINED: "untrained", ModuleState.NOT_FINITE: "not finite"}
_COLUMNS = (
    Column("rank", ">"),
    Column("norm of\nupdate", ">"),
    Column("effective\nrank", ">"),
    Column("stable\nrank", ">"),
    Column("k90", ">"),
    Column("k95", ">"),
    Column("energy\nat r/2", ">"),
)


def adapter(report: AdapterReport, every_module: bool = False) -> Iterator[Block]:
    """`report` as a screen; with `every_module` one line for each instead of one for each kind."""
    yield entries(_understood(report), style="bold")
    yield Heading("The update, module by module" if every_module else "The update by kind of module (medians)")
    yield _modules(report.modules) if every_module else _kinds(report.modules)
    if report.energy:
        yield Heading("Energy kept if every module were cut to a lower rank")
        yield _energy(report)
    if report.findings:
        yield Heading("Findings")
        yield entries([(_mark(finding), _said(finding)) for finding in report.findings])
    if report.test is not None:
        yield Heading("The test that decides: cut it and evaluate again")
        yield Code(f"  {report.test.command}")
        yield paragraph(f"Keeps {report.test.energy_kept:.3f} of the energy. Then {report.test.then}.")
    if report.cannot_tell:
        yield Heading("What these numbers cannot tell")
        yield bullets([_said(caveat) for caveat in report.cannot_tell])
    yield BLANK
    yield paragraph(
        "energy: share of the squared singular values; k90, k95: ranks that hold 90 and 95 % of it; effective rank: exp of the entropy "
        "of the singular values' shares; stable rank: energy over that of the largest.",
        "dim",
    )


def _understood(report: AdapterReport) -> list[tuple[str, str]]:
    ranks = sorted({module.rank for module in report.modules})
    rank = f"rank {report.rank}" if ranks == [report.rank] else f"ranks {', '.join(map(str, ranks))}"
    scale = " with rsLoRA" if report.use_rslora else ""
    base = f", on {report.base_model}" if report.base_model else ""
    beside = f"; beside them: {_few(report.other_tensors)}" if report.other_tensors else ""
    kinds = len({module.kind for module in report.modules})
    return [
        ("adapter", report.path),
        ("method", f"{report.method.label} {rank}, alpha {words.number(report.alpha)}{scale}{base}"),
        (
            "holds",
            f"{format_count(report.params)} parameters in {len(report.modules)} modules of {kinds} kinds, "
            f"{_size(report.file_bytes)}{beside}",
        ),
    ]


def _size(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes" if size_bytes < MIB // 10 else words.size(size_bytes)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _kinds(modules: Sequence[ModuleUpdate]) -> Block:
    kinds: dict[str, list[ModuleUpdate]] = {}
    for module in modules:
        kinds.setdefault(module.kind, []).append(module)
    rows = [(kind, str(len(members)), *_row(members), _states(members)) for kind, members in kinds.items()]
    return table([Column("kind"), Column("", ">"), *_COLUMNS, Column("beware")], rows)


def _modules(modules: Sequence[ModuleUpdate]) -> Block:
    rows = [(*_row([module]), f"{_short(module.name)} {_STATES.get(module.state, '')}".rstrip()) for module in modules]
    return table([*_COLUMNS, Column("module")], rows)


def _row(modules: Sequence[ModuleUpdate]) -> tuple[Text, ...]:
    ranks = sorted({module.rank for module in modules})
    norms = [module.update_norm for module in modules if module.update_norm is not None]
    spectra = [module.spectrum for module in modules if module.spectrum is not None]
    rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    norm = words.number(median(norms)) if norms else "-"
    if not spectra:
        return (rank, norm, "-", "-", "-", "-", "-")
    halves = [module.energy_at(max(1, module.rank // 2)) for module in modules if module.spectrum is not None]
    return (
        rank,
        norm,
        f"{median(spectrum.effective_rank for spectrum in spectra):.1f}",
        f"{median(spectrum.stable_rank for spectrum in spectra):.1f}",
        f"{median(spectrum.rank_for_90 for spectrum in spectra):.0f}",
        f"{median(spectrum.rank_for_95 for spectrum in spectra):.0f}",
        f"{median(halves):.3f}",
    )


def _states(modules: Sequence[ModuleUpdate]) -> Text:
    counts = [f"{sum(module.state is state for module in modules)} {name}" for state, name in _STATES.items()]
    return Span(", ".join(count for count in counts if not count.startswith("0 ")), "yellow")


def _energy(report: AdapterReport) -> Block:
    columns = [Column("rank", ">"), Column("whole adapter", ">"), Column("middle module", ">"), Column("lowest", ">"), Column("which")]
    rows = [
        (str(kept.rank), f"{kept.pooled:.3f}", f"{kept.median:.3f}", f"{kept.lowest:.3f}", _short(kept.lowest_module))
        for kept in report.energy
    ]
    return table(columns, rows)


def _mark(finding: Finding) -> str:
    return {Level.ERROR: "!! ", Level.WARNING: "! ", Level.INFO: ""}[finding.level] + finding.id


def _said(finding: Finding) -> str:
    evidence = f" [{', '.join(finding.evidence)}]" if finding.evidence else ""
    return words.advised(finding.message + evidence, finding.hint)


def _short(name: str) -> str:
    """ "layers.31.mlp.down_proj": from the word before the first number, so that deep names fit a line."""
    match = re.search(r"[^.]+\.\d+\..+$", name)
    return match.group() if match else name


def truncated(written: TruncatedAdapter) -> Iterator[Block]:
    """What was written where, and what to do with it."""
    before = format_count(written.params_before)
    yield entries(
        [
            ("written", f"{written.path} ({_size(written.file_bytes)}, fp32)"),
            ("rank", f"{written.rank}, alpha {words.number(written.alpha)}: the scale is as before"),
            ("keeps", f"{written.energy_kept:.4f} of the energy; {format_count(written.params)} of {before} parameters"),
        ],
        style="bold",
    )
    yield paragraph(
        "Evaluate it on the items that the original was evaluated on, and record the score: "
        f"advise record --run N --truncated-rank {written.rank} --score … --n …",
    )
