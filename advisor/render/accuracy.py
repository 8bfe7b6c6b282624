"""Predicted against measured: the errors of each tier in sum, then every run with both predictions beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from advisor.accuracy import ALL, CLOSED_FORM, WIDE, AccuracyReport, BoundaryCheck, Comparison, Coverage, Summary, TimeCoverage
from advisor.render.blocks import BLANK, Block, Column, Heading, Span, Text, bullets, paragraph, table, wide_or_narrow
from advisor.units import format_difference, format_share, gib
from advisor.values import Fit

_SUMMARY = (
    Column("tier"),
    Column("grade"),
    Column("memory"),
    Column("readings", ">"),
    Column("median\nerror", ">"),
    Column("worst\nbelow", ">"),
    Column("worst\nabove", ">"),
    Column("inside\ninterval", ">"),
)
_RELEASES = (_SUMMARY[0], Column("release"), *_SUMMARY[2:])
_RUN = (
    Column("model"),
    Column("method"),
    Column("batch\n× tokens", ">"),
    Column("memory"),
    Column("measured\nGiB", ">"),
)
_COVERAGE = (
    Column("tier"),
    Column("kind of plan"),
    Column("runs", ">"),
    Column("sources,\ncards", ">"),
    Column("inside", ">"),
    Column("made\nwithout", ">"),
    Column("width", ">"),
)
_REPLAYED = (
    Column("kind of plan"),
    Column("dry runs", ">"),
    Column("models", ">"),
    Column("inside", ">"),
    Column("made\nwithout", ">"),
    Column("width", ">"),
)
_TIMES = (
    Column("runs", ">"),
    Column("sources,\ncards", ">"),
    Column("inside", ">"),
    Column("width", ">"),
    Column("median\nerror", ">"),
    Column("time of a step"),
)
_NARROW_NAME = 15
_SMALL = 0.001
"""Below it an error is shown with one digit more."""
_COVERAGE_MARKS = (
    "wide: so few sources and cards ran the kind that its interval is widened and says so; what it holds is no proof. "
    "! more, or fewer, inside than between 85 and 97 % allows"
)
_MARKS = "! measured outside the interval, ~ listed apart: the run differs from the plan for a known reason, below"


def accuracy(reports: Sequence[AccuracyReport]) -> Iterator[Block]:
    """The tiers' reports as a screen."""
    yield Heading("Errors on measured runs (like with like)")
    yield table(_SUMMARY, [_summary_cells(named) for report in reports for named in _named(report)])
    releases = [named for report in reports for named in _named_releases(report)]
    if releases:
        yield Heading("The same by the release of transformers that ran")
        yield table(_RELEASES, map(_release_cells, releases))
    changed = [named for report in reports for named in _named_with_apart(report)]
    if changed:
        yield Heading("What changes with the runs that are listed apart")
        yield table(_SUMMARY, map(_summary_cells, changed))
    yield Heading("Intervals by kind of plan: runs inside, and with intervals made without the run's source and card")
    yield table(_COVERAGE, [_coverage_cells(report, row) for report in reports for row in report.coverages])
    yield BLANK
    yield paragraph(_COVERAGE_MARKS, "dim")
    replayed = [_covered(row) for report in reports for row in report.replayed]
    if replayed:
        yield Heading("The closed form against dry runs: inside bounds from dry runs, and from those of other models")
        yield table(_REPLAYED, replayed)
    times = [_time_cells(row) for report in reports for row in report.times]
    if times:
        yield Heading("Times of a step, by rates that were read off other runs")
        yield table(_TIMES, times)
    yield BLANK
    yield bullets([sentence for report in reports for sentence in _sentences(report)])
    yield BLANK
    yield paragraph(_MARKS, "dim")
    columns = (*_RUN, *(Column(_tier(report).replace(" ", "\n")) for report in reports))
    by_reading = [{_key(item): item for item in report.comparisons} for report in reports]
    readings = {key: item for tier in by_reading for key, item in tier.items()}
    for group in dict.fromkeys(item.group for item in readings.values()):
        members = [(item, [tier.get(key) for tier in by_reading]) for key, item in readings.items() if item.group == group]
        wide, narrow = (table(columns, [_run(*member, wide=wide) for member in members]) for wide in (True, False))
        yield Heading(group)
        yield wide_or_narrow([wide], [narrow])
    for report in reports:
        yield from _apart(report)
    yield from _not_scored(reports)


def markdown(reports: Sequence[AccuracyReport]) -> str:
    """The summary as Markdown tables, for the README; coverage by kind of plan is on the screen."""
    lines = ["| tier | grade | memory | readings | median error | worst below | worst above | inside interval |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|")
    lines += [f"| {' | '.join(cells)} |" for report in reports for cells in map(_summary_cells, _named(report))]
    lines += ["", "| tier | kind of plan | runs | sources and cards | inside interval | made without source and card | median width |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    lines += [f"| {' | '.join(_coverage_cells(report, row))} |" for report in reports for row in report.coverages if _in_markdown(row)]
    return "\n".join([*lines, "", *(f"- {sentence}" for report in reports for sentence in _sentences(report)), ""])


def _in_markdown(row: Coverage) -> bool:
    """Each kind that enough sources and cards ran, and the others together, and all."""
    return not row.wide or row.kind in (WIDE, ALL)


def _tier(report: AccuracyReport) -> str:
    return "closed form" if report.tier == CLOSED_FORM else "dry run"


def _named(report: AccuracyReport) -> list[tuple[str, Summary]]:
    return [(_tier(report), row) for row in report.summaries]


def _named_with_apart(report: AccuracyReport) -> list[tuple[str, Summary]]:
    return [(_tier(report), row) for row in report.summaries_with_apart if row not in report.summaries]


def _named_releases(report: AccuracyReport) -> list[tuple[str, Summary]]:
    return [(_tier(report), row) for row in report.releases]


def _release_cells(named: tuple[str, Summary]) -> tuple[str, ...]:
    tier, _, *others = _summary_cells(named)
    return tier, named[1].release, *others


def _summary_cells(named: tuple[str, Summary]) -> tuple[str, ...]:
    tier, row = named
    median = format_share(row.median_absolute_error, 2 if row.median_absolute_error < _SMALL else 1)
    errors = (median, format_difference(row.worst_under), format_difference(row.worst_over))
    return tier, row.grade, row.metric.value, str(row.n), *errors, format_share(row.coverage)


def _coverage_cells(report: AccuracyReport, row: Coverage) -> tuple[str, ...]:
    return _tier(report), *_covered(row)


def _covered(row: Coverage) -> tuple[str, ...]:
    inside, left_out, width = (format_share(share) for share in (row.inside, row.inside_left_out, row.median_width))
    groups = f"wide: {row.n_groups}" if row.wide and row.kind != WIDE else str(row.n_groups)
    return row.kind, str(row.n), groups, inside, f"{left_out} !" if row.off else left_out, width


def _time_cells(row: TimeCoverage) -> tuple[str, ...]:
    side = "" if row.on_the_wrong_side is None else f"; {row.on_the_wrong_side} expected faster that were slower"
    inside, error = format_share(row.inside), format_share(row.median_error)
    return str(row.runs), str(row.groups), inside, f"{row.median_width:.1f} ×", error, row.what + side


def _key(item: Comparison) -> tuple[str, str, int]:
    return item.id, item.metric.value, item.seq_len_tokens


def _run(item: Comparison, predictions: Sequence[Comparison | None], wide: bool) -> tuple[Text, ...]:
    name = item.model.rpartition("/")[2]
    return (
        name if wide or len(name) <= _NARROW_NAME else name[: _NARROW_NAME - 1] + "…",
        item.method,
        f"{item.micro_batch_size} × {item.seq_len_tokens:,}",
        item.metric.value,
        gib(item.measured_bytes, 2),
        *map(_error, predictions),
    )


def _error(item: Comparison | None) -> Text:
    if item is None:
        return "-"
    error = format_difference(item.relative_error).rjust(len("−99.9 %"))
    if item.apart:
        return Span(f"{error} ~", "dim")
    return error if item.inside else Span(f"{error} !", "yellow")


def _sentences(report: AccuracyReport) -> Iterator[str]:
    if report.boundaries:
        yield f"{_tier(report)}: {' '.join(_boundary_sentences(report.boundaries))}"


def _boundary_sentences(checks: Sequence[BoundaryCheck]) -> Iterator[str]:
    completed = [check for check in checks if check.measured_fits]
    failed = [check for check in checks if not check.measured_fits]
    if completed:
        fit, unsure, too_large = (_count(completed, fit) for fit in (Fit.FITS, Fit.UNCERTAIN, Fit.DOES_NOT_FIT))
        yield f"{len(completed)} runs completed: {fit} were called a fit, {unsure} unsure, {too_large} too large."
    if failed:
        too_large, unsure, fit = (_count(failed, fit) for fit in (Fit.DOES_NOT_FIT, Fit.UNCERTAIN, Fit.FITS))
        kinds = ", ".join(f"{count} {kind.replace(', ', ' on ')}" for kind, count in Counter(check.kind for check in failed).most_common())
        yield f"{len(failed)} ran out of memory ({kinds}): {too_large} were called too large, {unsure} unsure, {fit} a fit."


def _count(checks: Sequence[BoundaryCheck], fit: Fit) -> int:
    return sum(check.predicted is fit for check in checks)


def _apart(report: AccuracyReport) -> Iterator[Block]:
    items = [item for item in report.comparisons if item.apart]
    if items:
        yield Heading(f"Listed apart, {_tier(report)}")
        reasons = Counter({item.id: item.apart for item in items}.values())
        yield table((Column("runs", ">"), Column("because")), [(str(count), reason) for reason, count in reasons.items()])


def _not_scored(reports: Sequence[AccuracyReport]) -> Iterator[Block]:
    """Those of the first tier, and of each other tier what it refuses besides."""
    told: set[str] = set()
    for report in reports:
        rows = [row for row in report.not_scored if row.id not in told]
        told |= {row.id for row in rows}
        if rows:
            yield Heading(f"{len(rows)} published runs are not scored{'' if report is reports[0] else f', {_tier(report)}'}")
            counts = Counter(row.reason.removeprefix(f"{row.id}: ") for row in rows).most_common()
            yield table((Column("runs", ">"), Column("because")), [(str(count), reason) for reason, count in counts])
