"""Laws of the next step, whatever the facts: it answers, it never climbs past an open check, never up the rank without end."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from advisor import Facts, NextStep
from advisor.evidence import next_step
from advisor.evidence.focus import view_of
from advisor.evidence.rates import is_certified
from advisor.values import Method, Task
from advisor.values.next_step import Binding, Door

CLIMBS = {Door.DORA, Door.QDORA, Door.FULL}
LARGEST_RANK = 256
ALL = ("all-linear",)

# Drawing facts takes long on two busy cores, which is no reason to fail.
patient = settings(suppress_health_check=[HealthCheck.too_slow])

maybe_score = st.none() | st.floats(0, 1).map(lambda score: round(score, 3))
curves = st.lists(st.floats(0.01, 12) | st.just(float("nan")), max_size=12).map(tuple)
rates = st.none() | st.floats(1e-7, 1e-1)


@st.composite
def run_facts(draw: st.DrawFn) -> dict[str, Any]:
    method = draw(st.sampled_from(Method))
    oom = draw(st.booleans()) and draw(st.booleans())
    known: dict[str, Any] = {
        "method": method.value,
        "learning_rate": draw(rates),
        "lr_tuned": draw(st.booleans()),
        "batch": draw(st.none() | st.sampled_from((4, 16, 64, 256))),
        "steps": draw(st.none() | st.integers(1, 5000)),
        "epochs": draw(st.none() | st.sampled_from((0.5, 1, 3))),
        "data_fraction": draw(st.sampled_from((0.25, 0.5, 1.0, 1.0))),
        "score": None if oom else draw(maybe_score),
        "oom": oom,
        "diverged": draw(st.booleans()) and draw(st.booleans()),
        "train_losses": draw(curves),
        "eval_losses": draw(curves),
        "forgetting": draw(st.none() | st.floats(0, 0.5)),
        "lr_sweep": draw(st.lists(st.tuples(st.floats(1e-6, 1e-2), st.floats(0, 1)), max_size=4)),
        "scores_by_epoch": draw(st.lists(st.tuples(st.floats(0.5, 8), st.floats(0, 1)), max_size=3)),
    }
    if method.has_adapter:
        known |= {
            "rank": draw(st.none() | st.sampled_from((1, 8, 16, 64, 256, 1024))),
            "alpha": draw(st.none() | st.sampled_from((8.0, 32.0, 128.0))),
            "use_rslora": draw(st.booleans()),
            "targets": draw(st.none() | st.sampled_from((("q_proj", "v_proj"), ALL))),
        }
    return known


@st.composite
def aims(draw: st.DrawFn) -> dict[str, float | None]:
    """Target and untuned model's score; a target below the latter is refused as a contradiction where a run lies between."""
    base, target = draw(maybe_score), draw(maybe_score)
    if base is not None and target is not None:
        base, target = sorted((base, target))
    return {"target": target, "base": base}


@st.composite
def facts(draw: st.DrawFn, fewest: int = 0, runs: int = 4) -> Facts:
    return Facts.model_validate(
        {
            "unit": "share",
            "params_per_rank": draw(st.none() | st.just(2_498_560)),
            "task": draw(st.none() | st.sampled_from(Task)),
            "objective": draw(st.none() | st.sampled_from(("sft", "dpo", "rl"))),
            "dataset_tokens": draw(st.none() | st.integers(10**5, 10**11)),
            "evaluation": {"n": draw(st.none() | st.integers(20, 20_000)), **draw(aims())},
            "runs": draw(st.lists(run_facts(), min_size=fewest, max_size=runs)),
            "complaint": draw(st.sampled_from(("", "", "forgetting"))),
            "rank_cap": draw(st.none() | st.sampled_from((8, 16, 64))),
            "serving": draw(st.none() | st.sampled_from(("merged", "unmerged"))),
            "spare_runs": draw(st.integers(0, 3)),
        }
    )


@patient
@given(facts())
def test_every_set_of_facts_gets_an_answer_that_survives_json(known: Facts) -> None:
    answer = next_step(known)
    assert answer.reason
    assert answer.next_experiment
    text = json.dumps(answer.model_dump(mode="json"), allow_nan=False)
    assert NextStep.model_validate_json(text) == answer


@patient
@given(facts())
def test_no_rung_is_climbed_while_the_rate_is_open(known: Facts) -> None:
    answer, view = next_step(known), view_of(known)
    if answer.rung in CLIMBS and view.focus is not None and view.focus.method not in (Method.DORA, Method.QDORA):
        assert is_certified(view, view.focus)
        assert Binding.LEARNING_RATE not in answer.blocked_by


@patient
@given(facts())
def test_the_rank_rises_by_one_step_of_four_and_ends_at_256(known: Facts) -> None:
    answer, view = next_step(known), view_of(known)
    if answer.run is None or answer.run.rank is None or view.focus is None or view.focus.rank is None:
        return
    tried = max(run.rank or 0 for run in known.runs)
    assert answer.run.rank <= max(tried, min(4 * view.focus.rank, LARGEST_RANK, known.rank_cap or LARGEST_RANK))


@patient
@given(facts())
def test_reinforcement_learning_is_never_sent_to_full_fine_tuning(known: Facts) -> None:
    assert next_step(known.model_copy(update={"objective": "rl"})).rung is not Door.FULL


@patient
@given(facts(fewest=1))
def test_a_run_out_of_memory_is_answered_with_memory(known: Facts) -> None:
    runs = (*known.runs, known.runs[0].model_copy(update={"oom": True, "score": None, "id": ""}))
    answer = next_step(known.model_copy(update={"runs": runs}))
    assert answer.binding is Binding.MEMORY
    assert answer.run is None or answer.run.rank in (runs[-1].rank, 16)


@patient
@given(facts(runs=1), st.integers(20, 20_000))
def test_more_items_never_turn_a_gap_into_noise(known: Facts, n: int) -> None:
    known = known.model_copy(update={"evaluation": known.evaluation.model_copy(update={"n": n})})
    many = known.model_copy(update={"evaluation": known.evaluation.model_copy(update={"n": 100 * n})})
    gate_two = [next_step(each) for each in (known, many)]
    noisy = [answer.gate == "R2" and answer.binding is Binding.EVALUATION_NOISE for answer in gate_two]
    assert noisy in ([False, False], [True, True], [True, False])


@patient
@given(facts())
def test_percent_and_shares_get_the_same_answer(known: Facts) -> None:
    percent = Facts.model_validate(_times_100(known.model_dump(mode="json")) | {"unit": "percent"})
    one, other = next_step(known), next_step(percent)
    assert (one.binding, one.rung, one.gate, one.reason) == (other.binding, other.rung, other.gate, other.reason)


SCORES = {"score", "target", "base", "retention"}


def _times_100(data: Any, key: str = "") -> Any:
    """Every score of a dump; losses and shares of other things are left alone."""
    if isinstance(data, dict):
        return {name: _times_100(value, name) for name, value in data.items()}
    if isinstance(data, list):
        return [_times_100(value, key) for value in data]
    return 100 * data if key in SCORES and data is not None else data
