"""What a sweep found, by model and cards: how many rows fit, how many do not, and what has no price."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.blocks import BLANK, Block, Column, Heading, bullets, paragraph, table
from advisor.values import Fit
from advisor.values.sweep import SweepGroup, SweepReport

SHOWN_GROUPS = 40
"""Judgement: two screens; `--json` has all of them, the file every row."""
_FITS = {0: Fit.FITS, 1: Fit.DOES_NOT_FIT, 3: Fit.UNCERTAIN}


def sweep(report: SweepReport) -> Iterator[Block]:
    """`report` as a screen."""
    columns = [*(Column(name, ">") for name in ("fit", "do not", "cannot tell", "no price")), Column("on"), Column("model")]
    yield table(columns, [_group(group) for group in report.groups[:SHOWN_GROUPS]])
    if len(report.groups) > SHOWN_GROUPS:
        yield paragraph(f"and {len(report.groups) - SHOWN_GROUPS} more", "dim")
    reasons = list(dict.fromkeys(reason for group in report.groups for reason in group.reasons))
    if reasons:
        yield Heading("Why some have no price")
        yield bullets(reasons[:SHOWN_GROUPS])
    yield BLANK
    found = report.verdicts
    resumed = f"; {report.resumed:,} pieces were there from before" if report.resumed else ""
    text = (
        f"{found.fits:,} of {found.rows:,} plans of {report.kinds:,} kinds fit, {found.no:,} do not, of {found.cannot_tell:,} it cannot be "
        f"told, {found.unpriced:,} have no price; written to {report.out}{resumed}."
    )
    yield paragraph(text, f"bold {words.FIT_STYLES[_FITS[report.exit_code]]}")


def _group(group: SweepGroup) -> list[str]:
    gpu = group.gpu if group.n_gpus == 1 else f"{group.n_gpus} × {group.gpu}"
    found = group.verdicts
    return [*(f"{count:,}" for count in (found.fits, found.no, found.cannot_tell, found.unpriced)), gpu, group.model]
