"""Public threads in which somebody asked what to do next, and what would have helped (data/decision_threads.json, each with its link)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from advisor import NextStep, api

THREADS = json.loads((Path(__file__).parent / "data" / "decision_threads.json").read_text(encoding="utf-8"))
NAMES = [thread["name"] for thread in THREADS]


def rates_of(answer: NextStep) -> tuple[float, ...]:
    return answer.run.learning_rates if answer.run is not None else ()


def unmet(answer: NextStep, wanted: dict[str, Any]) -> list[str]:
    """What the experiment should do and does not: rates below or within a range, words said or not said, rungs not climbed."""
    rates, said = rates_of(answer), answer.next_experiment
    holds = {
        "lr_below": lambda most: bool(rates) and max(rates) < most,
        "lr_covers": lambda span: any(span[0] <= rate <= span[1] for rate in rates),
        "says": lambda pattern: re.search(pattern, said) is not None,
        "not_says": lambda pattern: re.search(pattern, said) is None,
        "rung_not": lambda rungs: answer.rung.value not in rungs,
        "no_rates": lambda _: len(rates) < 2,
        "finds": lambda name: name in {finding.id for finding in answer.findings},
    }
    return [f"{name} {value}" for name, value in wanted.items() if not holds[name](value)]


@pytest.mark.parametrize("thread", THREADS, ids=NAMES)
def test_the_constraint_is_the_one_that_bound(thread: dict[str, Any]) -> None:
    answer = api.next_step(thread["facts"])
    assert answer.binding.value in thread["binding_any_of"], answer.reason
    assert {answer.binding.value, answer.rung.value}.isdisjoint(thread["avoid"])


@pytest.mark.parametrize("thread", THREADS, ids=NAMES)
def test_the_experiment_is_one_that_helps(thread: dict[str, Any]) -> None:
    answer = api.next_step(thread["facts"])
    assert unmet(answer, thread["experiment"]) == [], answer.next_experiment


def test_the_threads_ask_something_of_the_experiment() -> None:
    assert sum(bool(thread["experiment"]) for thread in THREADS) >= len(THREADS) - 1
