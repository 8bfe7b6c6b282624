"""The same run in other words is the same run: to sweeps, to repeats, to controls, and to what was asked for already."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import Facts, InvalidInputError, api
from advisor.evidence.focus import view_of
from advisor.evidence.rates import is_certified, rates_of
from advisor.stacks.spelling import canonical_targets, same_rate
from advisor.values.next_step import Binding

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|o_proj|gate_proj|up_proj|down_proj).*?)"
)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("all-linear",), ("all-linear",)),
        (SEVEN, ("all-linear",)),
        (tuple(reversed(SEVEN)), ("all-linear",)),
        (tuple(f"model.layers.{layer}.mlp.{name}" for layer in (0, 1) for name in SEVEN), ("all-linear",)),  # peft, under twenty modules
        ((UNSLOTH,), ("all-linear",)),
        (("v_proj", "q_proj"), ("q_proj", "v_proj")),
        ((r".*\.(q_proj|v_proj)$",), ("q_proj", "v_proj")),
        (("model.layers.0.mlp.down_proj",), ("down_proj",)),
        (("(a+)+b",), ("(a+)+b",)),  # speaks of no module: left alone, and never run
        ((r"(?!.*vision).*q_proj",), (r"(?!.*vision).*q_proj",)),
        (None, None),
    ],
)
@pytest.mark.parametrize("model", ["llama-3.1-8b", None])
def test_targets_have_one_spelling(model: str | None, targets: Any, expected: Any) -> None:
    spec = None if model is None else api.as_model(model)
    assert canonical_targets(targets, spec) == expected


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [(2e-3, 1.982e-3, True), (2e-3, 1.93e-3, True), (2e-4, 3e-4, False), (None, None, True), (None, 2e-4, False)],
)
def test_a_logged_rate_is_the_configured_one(first: float | None, second: float | None, same: bool) -> None:
    assert same_rate(first, second) is same


def run(score: float | None, rate: float, **more: Any) -> dict[str, Any]:
    return {"method": "lora", "rank": 16, "alpha": 32, "targets": "all-linear", "learning_rate": rate, "score": score, **more}


def facts(*runs: dict[str, Any], **more: Any) -> Facts:
    return Facts.model_validate({"evaluation": {"n": 1000, "target": 0.9}, "runs": list(runs), **more})


def test_a_sweep_in_two_spellings_is_one_sweep() -> None:
    known = facts(run(0.4, 1e-4), run(0.5, 3e-4, targets=SEVEN), run(0.42, 9e-4, init="True"))
    view = view_of(known)
    assert len(rates_of(view, view.run).points) == 3
    assert is_certified(view, view.run)


def test_a_trainers_logged_rate_repeats_the_configured_one() -> None:
    view = view_of(facts(run(0.50, 2e-3), run(0.52, 1.982e-3), run(0.54, 1.93e-3)))
    assert len(view.repeats(view.run)) == 3
    assert view.current_score == pytest.approx(0.52)
    assert view.run.learning_rate == 2e-3


def test_what_only_one_run_says_is_taken_for_the_others() -> None:
    view = view_of(facts(run(0.4, 1e-4, batch=16), run(0.5, 3e-4)))
    assert len(rates_of(view, view.run).points) == 2
    apart = view_of(facts(run(0.4, 1e-4, batch=16), run(0.5, 3e-4, batch=64), run(0.5, 9e-4)))
    assert len(rates_of(apart, apart.facts.runs[0]).points) == 1


def test_an_experiment_that_was_run_is_not_asked_for_again() -> None:
    first = {"model": "llama-2-7b", "evaluation": {"n": 2000, "target": 0.9}}
    runs = [run(0.5, 1e-4, epochs=3)]
    seen = set()
    for _ in range(8):
        answer = api.next_step({**first, "runs": runs})
        if answer.run is None:
            break
        asked = answer.run.model_dump_json()
        assert asked not in seen
        seen.add(asked)
        same = {name: getattr(answer.run, name) for name in ("rank", "alpha", "targets", "epochs", "data_fraction", "batch")}
        runs += [
            {"method": answer.run.method.value, "score": 0.5, "learning_rate": rate, **same}
            for rate in answer.run.learning_rates
            for _ in range(answer.run.seeds)
        ]
    assert len(seen) >= 4


def test_precision_is_a_fact() -> None:
    view = view_of(facts(run(0.4, 1e-4, precision="fp16"), run(0.5, 3e-4, precision="bf16")))
    assert len(rates_of(view, view.run).points) == 1


def test_a_model_by_its_short_name_and_by_its_hub_id_is_one_project(tmp_path: Any) -> None:
    from advisor import record

    ledger = tmp_path / "runs.sqlite"
    one = {"method": "lora", "rank": 16, "evaluations": [{"metric": "accuracy", "score": 0.5, "n": 1000}], "ledger": ledger}
    record(model="llama-3.1-8b", learning_rate=1e-4, **one)
    record(model="meta-llama/Llama-3.1-8B", learning_rate=3e-4, **one)
    answer = api.next_step(ledger=ledger, evaluation={"target": 0.9})
    assert answer.binding is Binding.LEARNING_RATE
    assert answer.run is not None
    assert len(answer.run.learning_rates) == 1  # the third point of one sweep


def test_a_folder_completes_the_run_that_a_callback_recorded() -> None:
    """The trainer's state holds the highest logged rate, and peft's config the targets by name: neither makes it another run."""
    from advisor.ledger.build import completed
    from advisor.values.run import RunRecord

    recorded = RunRecord(id=1, method="lora", rank=16, learning_rate=2e-3, target_modules=("all-linear",))
    folder = RunRecord(learning_rate=1.982e-3, target_modules=SEVEN, steps=150)
    run = completed(recorded, folder, "outputs")
    assert (run.learning_rate, run.target_modules, run.steps) == (2e-3, ("all-linear",), 150)
    with pytest.raises(InvalidInputError, match="learning_rate"):
        completed(recorded, RunRecord(learning_rate=1e-3), "outputs")
