"""A checked configuration as a screen, and as annotations for GitHub Actions."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.blocks import BLANK, Block, Heading, entries, paragraph
from advisor.shown import shown
from advisor.values import Finding, Fit, Level
from advisor.values.check import CheckReport

_MARKS = {Level.INFO: "", Level.WARNING: "! ", Level.ERROR: "!! "}
_COMMANDS = {Level.INFO: "notice", Level.WARNING: "warning", Level.ERROR: "error"}


def check(report: CheckReport) -> Iterator[Block]:
    """`report` as a screen."""
    yield entries(_understood(report), "bold")
    order = sorted(report.findings, key=lambda finding: -list(Level).index(finding.level))
    if order:
        yield Heading("Findings")
        rows = [(_MARKS[finding.level] + finding.id, words.advised(finding.message, finding.hint)) for finding in order]
        yield entries(rows)
    yield BLANK
    yield paragraph(*verdict(report))


def _understood(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "config", f"{report.config} ({report.stack.value})"
    yield "model", words.model(report.model.id, report.model.params, report.model.layers)
    if report.gpu is not None:
        cards = f"{report.plan.n_gpus} × " if report.plan.n_gpus > 1 else ""
        yield "gpu", f"{cards}{report.gpu.name}: {words.size(report.gpu.usable_bytes)} usable{' each' if cards else ''}"
    yield "plan", words.plan(report.plan)
    yield "profile", report.profile
    if report.assumptions:
        yield "taken as", "; ".join(report.assumptions)


def verdict(report: CheckReport) -> tuple[str, str]:
    """Return one line, whether it starts and fits and what is not priced, and its style."""
    per_card = " per GPU" if report.plan.n_gpus > 1 else ""
    between = f"between {words.size(report.low_bytes)} and {words.size(report.high_bytes)}"
    size = f"{words.size(report.expected_bytes)} expected{per_card}, {between}"
    reason = f"; {report.reason}" if report.reason else ""
    if report.stops:
        return f"Would not start: {report.stops}", f"bold {words.FIT_STYLES[Fit.DOES_NOT_FIT]}"
    if report.fit is None or report.gpu is None:
        return f"{size}{reason}; say the card with --gpu", "bold"
    sentence = {Fit.FITS: "Fits", Fit.UNCERTAIN: "May or may not fit", Fit.DOES_NOT_FIT: "Does not fit"}[report.fit]
    return f"{sentence}: {size}, of {words.size(report.gpu.usable_bytes)}{reason}", f"bold {words.FIT_STYLES[report.fit]}"


def github(report: CheckReport) -> str:
    """One workflow command a finding: GitHub shows it at the file. Information is shown as a notice."""
    return "".join(f"{_annotation(report.config, finding)}\n" for finding in report.findings)


def _annotation(file: str, finding: Finding) -> str:
    message = words.advised(finding.message, finding.hint)
    return f"::{_COMMANDS[finding.level]} file={_property(file)},title={_property(finding.id)}::{_data(message)}"


def _data(text: str) -> str:
    return shown(text, also="\r\n").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
