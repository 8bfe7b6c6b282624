"""Simulated projects of a known cause follow the advice: some seeds of benchmarks/closed_loop.py."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from advisor import NextStep
from advisor.values import Range
from advisor.values.next_step import Acceptance, Gain
from benchmarks.closed_loop import (
    CAUSES,
    SEEDS as BENCHMARK_SEEDS,
    SIZES,
    WAYS,
    Outcome,
    Setup,
    best_rate,
    cells,
    follow,
    is_silent,
    played,
    row,
    true_score,
    tuned,
)

SEEDS = range(3)


@cache
def outcomes(cause: str) -> tuple[Outcome, ...]:
    return tuple(follow(cause, 5000, seed) for seed in SEEDS)


@pytest.mark.parametrize("cause", CAUSES)
def test_the_target_is_reached(cause: str) -> None:
    """The benchmark's aim is 80 % of all projects; of three seeds at most one may end short, by the scatter of its scores."""
    assert sum(outcome.reached for outcome in outcomes(cause)) >= len(SEEDS) - 1, [outcome.last for outcome in outcomes(cause)]


@pytest.mark.parametrize("cause", CAUSES)
def test_no_experiment_is_asked_for_twice(cause: str) -> None:
    assert [outcome.twice for outcome in outcomes(cause)] == [0] * len(SEEDS)


@pytest.mark.parametrize("cause", CAUSES)
def test_no_experiment_hides_that_it_cannot_show_its_gain(cause: str) -> None:
    assert [outcome.silent for outcome in outcomes(cause)] == [0] * len(SEEDS)


HIDES = [
    # two standard errors, the published gain's upper end, the sentence, whether it hides something
    (4.6, 3.1, "Keep it only if it wins by at least 2 standard errors (4.6 points)", True),
    (4.6, 3.1, "Keep it only if it wins by at least 4.6 points; that is more than the 3.1 points to be expected: about 3,000 items", False),
    (4.6, 3.1, "Keep it only if it wins by at least 4.6 points; that is more than the 3.1 points to be expected", True),
    (2.9, 3.1, "Keep it only if it wins by at least 2 standard errors (2.9 points)", False),
    (4.6, 3.1, "Keep it unless it scores less by 2 standard errors (4.6 points)", False),
]


@pytest.mark.parametrize(("threshold", "gain", "sentence", "hides"), HIDES)
def test_what_hiding_is(threshold: float, gain: float, sentence: str, hides: bool) -> None:
    step = NextStep.model_construct(
        accept_if=Acceptance(standard_errors=2, difference=threshold, items_needed=3000, sentence=sentence),
        expected_gain=Gain(points=Range(low=0, high=gain, source="test"), conditions="test"),
    )
    assert is_silent(step) is hides


PAGE = Path(__file__).parent.parent / "docs" / "advice.md"


def rows_of(name: str) -> list[list[str]]:
    """Cells of a table of the page, without its head."""
    lines = PAGE.read_text(encoding="utf-8").partition(f"<!-- table: {name} -->\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def reached(cell: str) -> int:
    return int(cell.partition(" of ")[0])


@pytest.mark.parametrize("cause", [pytest.param(cause, marks=() if cause == "undertrained" else pytest.mark.slow) for cause in CAUSES])
def test_the_page_shows_the_benchmarks_figures(cause: str) -> None:
    made = row(cells(cause, [played(cause, n, BENCHMARK_SEEDS) for n in SIZES]))
    assert made in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_totals_of_the_page_are_those_of_its_rows() -> None:
    """Each row has as many projects as the others, so that means of rows are means of all."""
    by_cause, totals = rows_of("causes"), {name: cells for name, *cells in rows_of("totals")}
    assert [cause for cause, *_ in by_cause] == [*CAUSES]
    assert reached(totals["advice"][0]) == sum(reached(one) + reached(other) for _, one, other, *_ in by_cause)
    for at, way in enumerate(WAYS[1:], start=6):
        assert reached(totals[way][0]) == sum(reached(cells[at]) for cells in by_cause)
    for at, total in ((4, 1), (5, 2)):
        assert float(totals["advice"][total]) == pytest.approx(sum(float(cells[at]) for cells in by_cause) / len(by_cause), abs=0.11)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_fault_costs_what_is_published(cause: str) -> None:
    """The oracle itself: the faulty project scores less than the same one without its fault, by two to thirty points."""
    from benchmarks.closed_loop import target_of

    project = CAUSES[cause]
    assert 2 <= target_of(cause, project) - true_score(project, project.first) + 1 <= 30


def test_the_oracles_best_rate_follows_the_published_laws() -> None:
    assert best_rate(Setup(rank=64, alpha=128), 2e-4) == pytest.approx(best_rate(Setup(), 2e-4) / 2)  # LR5: halved for four times the rank
    assert best_rate(Setup(rank=64, alpha=32), 2e-4) == best_rate(Setup(), 2e-4)  # LR4: not at a fixed alpha
    project = CAUSES["scale"]
    assert true_score(project, tuned(Setup())) > true_score(project, tuned(Setup(), off=3.2)) > true_score(project, tuned(Setup(), off=6))
