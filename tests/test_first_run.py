"""The first run, sized to the data: what `advise` and `advise next` both say, and what a budget leaves of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from advisor import NextStep, api
from advisor.errors import InvalidInputError
from advisor.ladder.first_run import first_run, pilot_share
from advisor.values import Method, Task

LLAMA = api.as_model("llama-3.1-8b")
"""2,621,440 LoRA parameters for each unit of rank (fact T7)."""


def first(**facts: Any) -> NextStep:
    return api.next_step({"model": "llama-3.1-8b", **facts})


# The ranks are the method evidence's own examples (section 2), clipped to 8 and 256.
@pytest.mark.parametrize(
    ("tokens", "task", "rank", "epochs"),
    [
        (None, None, 16, None),
        (5_000_000, None, 8, 3),
        (26_000_000, None, 16, 3),
        (100_000_000, None, 64, 3),
        (100_000_000, Task.MATH, 128, 3),
        (400_000_000, None, 256, 3),
        (1_000_000_000, None, 256, 1),  # the scale of continued pre-training: even rank 256 has fewer parameters than tokens
        (1_000_000_000, Task.RL, 16, None),
    ],
)
def test_rank_and_passes_are_sized_to_the_data(tokens: int | None, task: Task | None, rank: int, epochs: float | None) -> None:
    sized = first_run(LLAMA, Method.LORA, task, tokens)
    assert (sized.rank, sized.alpha, sized.epochs) == (rank, 2 * rank, epochs)


def test_the_rates_fall_with_the_root_of_the_rank() -> None:
    """Facts LR5 and S2: halved for four times the rank where alpha grows with it."""
    small, large = (first_run(LLAMA, Method.LORA, None, tokens) for tokens in (26_000_000, 100_000_000))
    assert large.rank == 4 * small.rank
    assert large.rates == pytest.approx([rate / 2 for rate in small.rates])


@given(st.integers(10**5, 10**12), st.sampled_from((4, 16, 64)), st.floats(0.5, 8))
def test_pilots_end_at_a_thousand_steps(tokens: int, batch: int, epochs: float) -> None:
    share = pilot_share(tokens, batch, 2048, epochs)
    assert 0 < share <= 0.25
    steps = share * tokens * epochs / (batch * 2048)
    assert steps <= 1000 * 1.5 or share == 0.25  # the share has one digit
    assert share == 0.25 or steps >= 1000 / 1.5


def test_twenty_billion_tokens_are_not_swept_by_the_quarter() -> None:
    """Three runs on a quarter of them were 396 to 983 hours."""
    answer = first(gpu="h100", dataset_tokens=20_000_000_000, task="knowledge")
    assert answer.price is not None
    assert answer.price.hours is not None
    assert answer.price.hours.high < 24


@pytest.mark.parametrize(
    "facts", [{"dataset_tokens": 100_000_000, "task": "math"}, {"dataset_tokens": 5_000_000}, {"dataset_tokens": 2 * 10**10}]
)
def test_advise_and_next_say_the_same(facts: dict[str, Any]) -> None:
    from advisor.ladder.learning_rate import show

    answer = first(gpu="80GB", **facts)
    advice = api.advise("llama-3.1-8b", "80GB", **facts)
    assert answer.run is not None
    said = advice.next_experiment
    assert f"r={answer.run.rank}," in said
    assert all(show(rate) in said for rate in answer.run.learning_rates)
    assert f"{100 * answer.run.data_fraction:.2g} %" in said
    assert {rung.plan.rank for rung in advice.rungs if rung.plan.method.has_adapter} == {answer.run.rank}
    assert f"r={answer.run.rank}," in advice.snippet
    assert f"learning_rate={show(answer.run.learning_rates[1])}" in advice.snippet
    assert any(line.startswith(f"rank: {answer.run.rank}, sized to ") for line in advice.assumptions)


def test_a_rank_that_was_asked_for_stays() -> None:
    advice = api.advise("llama-3.1-8b", "80GB", dataset_tokens=100_000_000, task="math", rank=8)
    assert {rung.plan.rank for rung in advice.rungs if rung.plan.method.has_adapter} == {8}
    assert "r=8," in advice.next_experiment
    assert not any(line.startswith("rank:") for line in advice.assumptions)


# 8,192 × 14,336 and so on: 2,621,440 LoRA parameters for each unit of rank of Llama 3.1 8B (counted by hand in test_rules.py).
@pytest.mark.parametrize(("tokens", "task", "rank"), [(5_000_000, None, 8), (100_000_000, None, 64), (20 * 10**9, "knowledge", 256)])
def test_the_rank_that_the_data_ask_for_is_not_called_high(tokens: int, task: str | None, rank: int) -> None:
    advice = api.advise("llama-3.1-8b", "80GB", dataset_tokens=tokens, task=task)
    assert advice.rungs[0].plan.rank == rank
    assert "rank-high" not in {finding.id for finding in advice.findings}
    assert not any("rank 1024" in line or "rank 512" in line for line in advice.would_change)


def test_a_budget_holds_the_pilots() -> None:
    facts = {"gpu": "h100", "dataset_tokens": 500_000_000, "task": "chat"}
    free, held = first(**facts), first(**facts, budget_usd=10)
    assert free.price is not None
    assert held.price is not None
    assert free.price.usd is not None
    assert held.price.usd is not None
    assert free.price.usd.high > 10 >= held.price.usd.high * 0.9
    assert "10 USD pay for no more" in held.next_experiment
    assert "pay for no more" not in first(**facts, budget_usd=10_000).next_experiment


@pytest.mark.parametrize(("budget", "items"), [(None, None), (10.0, 500), (10_000.0, 5_000), (1.0, None)])
def test_budget_and_items_say_the_same_to_advise_and_next(budget: float | None, items: int | None) -> None:
    common = {"dataset_tokens": 500_000_000, "task": "chat"}
    answer = first(gpu="h100", **common, budget_usd=budget, evaluation={"n": items})
    advice = api.advise("llama-3.1-8b", "h100", **common, budget=budget, eval_items=items)
    held, shown = re.search(r", as \S+ USD pay for no more: up to \S+ USD on \S+ %", answer.next_experiment), "which show a gain of"
    assert (held is not None) == (budget in (10.0, 1.0))
    assert answer.run is not None
    assert f"{100 * answer.run.data_fraction:.2g} %" in advice.next_experiment
    assert held is None or held.group() in advice.next_experiment
    of_items = re.search(rf" of [a-z ]*\S+ items, {shown} \S+ points", answer.next_experiment)
    assert of_items is not None
    assert of_items.group() in advice.next_experiment


def test_a_budget_without_data_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--budget: hours and USD are those of a data set"):
        api.advise("llama-3.1-8b", "h100", budget=10)


@pytest.mark.parametrize(("n", "points"), [(None, "at least 1,306 items"), (500, "a gain of 4.9 points"), (5000, "a gain of 1.6 points")])
def test_the_evaluation_is_told_what_it_can_show(n: int | None, points: str) -> None:
    assert points in first(evaluation={"n": n}).next_experiment


def test_schedule_warm_up_and_passes_are_said() -> None:
    text = first(dataset_tokens="30M").next_experiment
    assert re.search(r"for 3 epochs, cosine schedule, 3 % warm-up", text)


# By hand: a pilot of a thousand steps of 16 sequences of 2,048 tokens is 32.8 million tokens, as a share of the data times the passes, to
# one digit, and a quarter at most; the steps are of that share.
PILOT_WORDS = [
    (11_000_000, "on 25 % of the data for 3 epochs (about 252 steps each"),
    (110_000_000, "on 10 % of the data for 3 epochs (about 1,007 steps each"),  # 0.0993
    (1_100_000_000, "on 3 % of the data for one pass (about 1,007 steps each"),  # 0.0298
    (3_300_000_000, "on 1 % of the data for one pass (about 1,007 steps each"),  # 0.0099
]


@pytest.mark.parametrize(("tokens", "words"), PILOT_WORDS)
def test_the_sentence_of_the_pilots_is_right_by_hand(tokens: int, words: str) -> None:
    assert words in api.advise("llama-3.1-8b", "80GB", dataset_tokens=tokens).next_experiment
