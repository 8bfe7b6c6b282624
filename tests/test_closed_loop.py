"""Simulated projects of a known cause follow the advice: some seeds of benchmarks/closed_loop.py."""

from __future__ import annotations

from functools import cache

import pytest

from advisor import NextStep
from advisor.values import Range
from advisor.values.next_step import Acceptance, Gain
from benchmarks.closed_loop import CAUSES, Outcome, Setup, best_rate, follow, is_silent, true_score, tuned

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
