"""Exit codes of a checked file by its findings: an error ends with 1, whatever the memory says."""

from __future__ import annotations

import pytest

from advisor.values import Finding, Fit, Level
from advisor.values.check import CheckReport


@pytest.mark.parametrize(
    ("levels", "stops", "fit", "code"),
    [
        ([], "", Fit.FITS, 0),
        ([], "", None, 0),
        ([], "", Fit.DOES_NOT_FIT, 1),
        ([], "", Fit.UNCERTAIN, 3),
        ([Level.INFO, Level.WARNING], "", Fit.FITS, 0),
        ([Level.INFO, Level.ERROR], "", Fit.FITS, 1),
        ([Level.ERROR, Level.INFO], "", Fit.UNCERTAIN, 1),
        ([Level.ERROR], "", None, 1),
        ([], "it would not start", Fit.FITS, 1),
    ],
)
def test_an_error_among_the_findings_is_1(levels: list[Level], stops: str, fit: Fit | None, code: int) -> None:
    findings = tuple(Finding(id="made-up", level=level, message="made up") for level in levels)
    assert CheckReport.model_construct(findings=findings, stops=stops, fit=fit).exit_code == code
