"""Simulated projects of a known cause follow the advice: some seeds of benchmarks/closed_loop.py."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.closed_loop import CAUSES, Outcome, Setup, best_rate, follow, true_score, tuned

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
