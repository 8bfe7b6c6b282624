"""What a sweep found, by model and cards: how many rows fit, how many do not, and what has no price."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import page, words
from advisor.render.page import BLANK, Column, Line, Look
from advisor.values import Fit
from advisor.values.sweep import SweepGroup, SweepReport

SHOWN_GROUPS = 40
"""Judgement: two screens; `--json` has all of them, the file every row."""
_FITS = {0: Fit.FITS, 1: Fit.DOES_NOT_FIT, 3: Fit.UNCERTAIN}


def sweep(report: SweepReport, look: Look) -> str:
    """`report` as a screen of text."""
    return page.draw(_lines(report, look), look)


def _lines(report: SweepReport, look: Look) -> Iterator[Line]:
    columns = [Column("model"), Column("gpu"), *(Column(name, ">") for name in ("fit", "do not", "cannot tell", "no price"))]
    yield from page.table(columns, [_group(group) for group in report.groups[:SHOWN_GROUPS]], look)
    if len(report.groups) > SHOWN_GROUPS:
        yield from page.paragraph(f"and {len(report.groups) - SHOWN_GROUPS} more", look, "dim")
    reasons = list(dict.fromkeys(reason for group in report.groups for reason in group.reasons))
    if reasons:
        yield from page.heading("Why some have no price")
        yield from page.bullets(reasons[:SHOWN_GROUPS], look)
    yield BLANK
    found = report.verdicts
    resumed = f"; {report.resumed:,} pieces were there from before" if report.resumed else ""
    text = (
        f"{found.fits:,} of {found.rows:,} plans of {report.kinds:,} kinds fit, {found.no:,} do not, of {found.cannot_tell:,} it cannot be "
        f"told, {found.unpriced:,} have no price; written to {report.out}{resumed}."
    )
    yield from page.paragraph(text, look, f"bold {words.FIT_STYLES[_FITS[report.exit_code]]}")


def _group(group: SweepGroup) -> list[str]:
    gpu = group.gpu if group.n_gpus == 1 else f"{group.n_gpus} × {group.gpu}"
    found = group.verdicts
    return [group.model, gpu, *(f"{count:,}" for count in (found.fits, found.no, found.cannot_tell, found.unpriced))]
