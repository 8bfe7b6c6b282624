"""Predicted against measured: the errors in sum, then every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from advisor.accuracy import AccuracyReport, BoundaryCheck, Comparison, Summary
from advisor.render import page, words
from advisor.render.page import BLANK, Cell, Column, Line, Look, Span
from advisor.units import gib
from advisor.values import Fit

_SUMMARY = (
    Column("grade"),
    Column("memory"),
    Column("readings", ">"),
    Column("median\nerror", ">"),
    Column("worst\nbelow", ">"),
    Column("worst\nabove", ">"),
    Column("below\nmeasured", ">"),
    Column("inside\ninterval", ">"),
)
_RUN = (
    Column("model"),
    Column("method"),
    Column("batch\n× tokens", ">"),
    Column("memory"),
    Column("measured\nGiB", ">"),
    Column("predicted\nGiB", ">"),
    Column("error"),
)
_NARROW_NAME = 18


def accuracy(report: AccuracyReport, look: Look) -> str:
    """`report` as a screen of text."""
    return page.draw(_lines(report, look), look)


def markdown(report: AccuracyReport) -> str:
    """The summary as a Markdown table, for the README."""
    lines = ["| grade | memory | readings | median error | worst below | worst above | inside interval |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in report.summaries:
        cells = [row.grade, row.metric.value, str(row.n), words.percent(row.median_absolute_error), words.signed_percent(row.worst_under)]
        cells += [words.signed_percent(row.worst_over), words.percent(row.coverage, 0)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _boundary_sentence(report.boundaries), ""])


def _lines(report: AccuracyReport, look: Look) -> Iterator[Line]:
    yield from page.heading("Errors of the closed form on measured runs (like with like)")
    yield from page.table(_SUMMARY, map(_summary, report.summaries), look)
    if report.summaries_with_apart != report.summaries:
        yield from page.heading("The same, with the runs listed apart")
        yield from page.table(_SUMMARY, map(_summary, report.summaries_with_apart), look)
    yield from page.heading("Does it fit?")
    yield from page.paragraph(_boundary_sentence(report.boundaries), look)
    yield from page.paragraph("Below, ! marks a measurement outside the interval.", look, "dim")
    together = [item for item in report.comparisons if not item.apart]
    for group in dict.fromkeys(item.group for item in together):
        yield from page.heading(group)
        yield from page.table(_RUN, [_run(item, look) for item in together if item.group == group], look)
    yield from _apart([item for item in report.comparisons if item.apart], look)
    yield from _not_scored(report, look)


def _summary(row: Summary) -> tuple[Cell, ...]:
    errors = (words.percent(row.median_absolute_error), words.signed_percent(row.worst_under), words.signed_percent(row.worst_over))
    return row.grade, row.metric.value, str(row.n), *errors, words.percent(row.share_under, 0), words.percent(row.coverage, 0)


def _run(item: Comparison, look: Look) -> tuple[Cell, ...]:
    name = item.model.rpartition("/")[2]
    error = words.signed_percent(item.relative_error).rjust(len("−99.9 %"))
    return (
        name if look.wide or len(name) <= _NARROW_NAME else name[: _NARROW_NAME - 1] + "…",
        item.method,
        f"{item.micro_batch_size} × {item.seq_len_tokens:,}",
        item.metric.value,
        gib(item.measured_bytes, 2),
        gib(item.predicted_bytes, 2),
        error if item.inside else Span(f"{error} !", "yellow"),
    )


def _boundary_sentence(checks: Sequence[BoundaryCheck]) -> str:
    completed = [check for check in checks if check.measured_fits]
    failed = [check for check in checks if not check.measured_fits]
    return (
        f"{len(completed)} runs completed: {_count(completed, Fit.FITS)} were called a fit, {_count(completed, Fit.UNCERTAIN)} unsure, "
        f"{_count(completed, Fit.DOES_NOT_FIT)} too large. {len(failed)} ran out of memory: {_count(failed, Fit.DOES_NOT_FIT)} were called "
        f"too large, {_count(failed, Fit.UNCERTAIN)} unsure, {_count(failed, Fit.FITS)} a fit."
    )


def _count(checks: Sequence[BoundaryCheck], fit: Fit) -> int:
    return sum(check.predicted is fit for check in checks)


def _apart(items: Sequence[Comparison], look: Look) -> Iterator[Line]:
    for reason in dict.fromkeys(item.apart for item in items):
        yield from page.heading("Listed apart")
        yield from page.paragraph(reason, look)
        yield BLANK
        yield from page.table(_RUN, [_run(item, look) for item in items if item.apart == reason], look)


def _not_scored(report: AccuracyReport, look: Look) -> Iterator[Line]:
    if report.not_scored:
        yield from page.heading(f"{len(report.not_scored)} published runs are not scored")
        counts = Counter(row.reason for row in report.not_scored).most_common()
        yield from page.table((Column("runs", ">"), Column("because")), [(str(count), reason) for reason, count in counts], look)
