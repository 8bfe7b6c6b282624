"""Public reports of trainings that ran, or ran out of memory, put to the product: never a false fit, nor an answer about something else.

tests/data/field_reports.json holds for each the link, the facts, what happened, the files as the report has them (@scripts/… for one of
tests/data/scripts), and the questions with the exit codes that are right or honest: 0 fits, 1 does not, 2 refused, 3 cannot tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.run import run

DATA = Path(__file__).parent / "data"
REPORTS = json.loads((DATA / "field_reports.json").read_bytes())


def asked(report: dict[str, Any], number: int) -> Any:
    """One question. Where `records` is set the model has no tables: its training step is recorded, which takes minutes."""
    marks = pytest.mark.slow if report.get("records") else ()
    return pytest.param(report, number, id=f"{report['id']}-{number}", marks=marks)


@pytest.mark.parametrize(("report", "number"), [asked(report, number) for report in REPORTS for number in range(len(report["asks"]))])
def test_a_report_is_answered_rightly_or_not_at_all(
    report: dict[str, Any],
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in report["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((DATA / text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ask = report["asks"][number]
    exit_code = run([word.replace("~", " ") for word in ask["arguments"].split()])
    said = capsys.readouterr()
    assert exit_code in ask["exits"], said.out + said.err
    if "says" in ask:
        assert ask["says"] in said.out + said.err
    if "not_beside_a_fit" in ask:
        assert exit_code != 0 or ask["not_beside_a_fit"] not in said.out


def test_every_report_says_where_it_stands_and_what_happened() -> None:
    assert len({report["id"] for report in REPORTS}) == len(REPORTS) >= 25
    for report in REPORTS:
        assert report["link"].startswith("https://")
        assert report["happened"]
        assert all(0 <= code <= 3 for ask in report["asks"] for code in ask["exits"])
