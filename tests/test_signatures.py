"""Loss curves that cannot be right, one row a cause; and honest curves, which show nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from advisor import api
from advisor.evidence.losses import falls_in_stairs
from advisor.evidence.signatures import known_text, of_curves
from advisor.values import Method, Precision
from advisor.values.evidence import LossPoint, RunFacts
from advisor.values.next_step import Binding

VOCABULARY = 32_000
"""Llama-2's: ln 32000 = 10.37."""
LEARNS = (2.1, 1.6, 1.4, 1.3, 1.25, 1.22, 1.2, 1.19, 1.18, 1.17)


def run(losses: tuple[float, ...], **more: Any) -> RunFacts:
    points = tuple(LossPoint(step=10.0 * number, loss=loss) for number, loss in enumerate(losses))
    return RunFacts(method=more.pop("method", Method.LORA), train_losses=points, **more)


def named(losses: tuple[float, ...], others: tuple[RunFacts, ...] = (), **more: Any) -> str:
    found = of_curves(run(losses, **more), others, VOCABULARY)
    return "" if found is None else f"{found.name} {found.cure}"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (LEARNS, ""),
        ((2.0, 1.5, 3.0, 1.4, 1.3, 1.3, 1.2, 1.2, 1.2, 1.1, 1.1), ""),  # a spike that came back
        ((0.9, 0.2, 0.05, 0.03, 0.04, 0.05), ""),  # the scatter of small losses is no climb
        ((2.0, 1.5), ""),  # too short to say
        ((2.0, 1.5, math.nan), "not-finite lower"),
        ((2.0, 1.5, math.inf, 1.4), "not-finite lower"),
        ((0.0, 0.0, 0.0), "zero setup"),  # every label masked, or NaN from the first step
        ((2.0, 1.5, 0.0, 0.0), "hidden-nan lower"),  # transformers logs NaN as zero
        ((6.9007,) * 5, "constant setup"),  # artidoro/qlora issue 157
        ((2.1, 1.9, 2.3, 2.1, 1.9, 2.3, 2.1, 1.9, 2.3), "repeating setup"),
        ((11.2, 9.0, 8.0, 7.5), "at-uniform setup"),  # 10.37 is a guess among 32,000
        ((10.4, 10.3, 10.35, 10.31), "at-uniform setup"),
        ((4.31, 1.44, 7.08, 15.06, 16.02, 13.83), "climbing lower"),  # paiml/aprender pull request 2258
        ((1.6, 1.5, 1.4, 1.3, 1.2, 1.4, 1.9, 2.6, 3.4, 4.2, 4.8, 5.3), "climbing lower"),  # smooth, so that no single step is a spike
        ((2.0, 1.2, 1.0, 0.9, 1.3, 1.9, 1.95), "climbing lower"),  # back to its start
        ((2.0, 1.8, 1.7, 1.6, 1.5, 1.5, 1.4, 1.38, 1.9, 1.9, 1.9), "spiking lower"),
        ((2.0, 2.02, 1.98, 2.01, 1.99), "unmoved raise"),
    ],
)
def test_what_a_curve_gives_away(losses: tuple[float, ...], expected: str) -> None:
    assert named(losses) == expected


def test_equal_losses_of_different_set_ups_are_a_dead_flag() -> None:
    """Two runs that differ in a setting and agree in every digit: the setting was never read."""
    plain = run(LEARNS, id="plain", rank=8)
    assert named(LEARNS, (plain,), rank=8, use_rslora=True) == "dead-flag setup"
    assert named(LEARNS, (plain,), rank=8) == ""  # the same run again
    assert named(tuple(loss + 1e-3 for loss in LEARNS), (plain,), rank=8, use_rslora=True) == ""


# A loss that is no number before any update says nothing of the rate (ml-explore/mlx-lm pull request 1355); one logged later may.
@pytest.mark.parametrize(("step", "expected"), [(1.0, "nan-at-once setup"), (10.0, "not-finite lower"), (0.0, "not-finite lower")])
def test_nan_at_the_first_step(step: float, expected: str) -> None:
    points = tuple(LossPoint(step=step + number, loss=math.nan) for number in range(3))
    found = of_curves(RunFacts(method=Method.LORA, train_losses=points), (), VOCABULARY)
    assert found is not None
    assert f"{found.name} {found.cure}" == expected


# The first losses of LlamaFactory issue 7443: 128 sequences per step in 2, 4 and 32 passes; and two that differ by scatter.
@pytest.mark.parametrize(
    ("micro_batch", "first", "beside", "expected"),
    [
        (8, 13.65, (16, 6.4), "summed setup"),
        (1, 138.0, (16, 6.4), "summed setup"),
        (16, 6.4, (8, 13.65), "summed setup"),
        (8, 1.32, (16, 1.2), ""),
        (16, 13.65, (8, 6.4), "at-uniform setup"),  # the other way round it is no sum
    ],
)
def test_a_loss_that_grows_with_the_passes_is_a_sum(micro_batch: int, first: float, beside: tuple[int, float], expected: str) -> None:
    def falls(start: float) -> tuple[float, ...]:
        return (start, 0.6 * start, 0.4 * start, 0.3 * start)

    other = run(falls(beside[1]), id="other", batch=128, micro_batch=beside[0])
    assert named(falls(first), (other,), batch=128, micro_batch=micro_batch) == expected


@pytest.mark.parametrize(
    ("held_out", "precision", "expected"),
    [
        ((math.nan, math.nan), Precision.FP16_AMP, "held-out-nan precision"),  # arielnlee/Platypus issue 14
        ((1.2, math.nan), Precision.BF16, "held-out-nan evaluation"),  # no learning rate breaks evaluation alone
        ((1.2, 1.1), Precision.FP16_AMP, ""),
    ],
)
def test_evaluation_alone_that_is_no_number(held_out: tuple[float, ...], precision: Precision, expected: str) -> None:
    points = tuple(LossPoint(step=100.0 * number, loss=loss) for number, loss in enumerate(held_out))
    assert named(LEARNS, eval_losses=points, precision=precision) == expected


# huggingface/trl issue 3452 (a loss of zero at a reward that grows) and aburkov/theLMbook issue 6 (a loss that rises with the divergence).
@pytest.mark.parametrize("losses", [(0.0,) * 5, (0.0, 0.001, 0.01, 0.2, 1.5), (0.02, 0.021, 0.019, 0.02), (11.0, 12.0, 11.5)])
def test_the_loss_of_reinforcement_learning_is_no_cross_entropy(losses: tuple[float, ...]) -> None:
    assert of_curves(run(losses), (), VOCABULARY, "rl") is None
    assert of_curves(run((*losses, math.nan)), (), VOCABULARY, "rl") is not None


def test_a_policy_that_is_gone_is_told_all_the_same() -> None:
    found = of_curves(run((0.0, 0.5, 40.0, 900.0)), (), VOCABULARY, "rl")
    assert found is not None
    assert found.cure == "lower"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.6932,) * 5, "constant"),  # huggingface/trl issue 1311: an adapter that was loaded frozen
        ((0.6924, 0.6951, 0.6942, 0.6931), "unmoved"),  # huggingface/trl issue 701
        ((0.69, 0.4, 0.1, 0.0, 0.0), None),  # pairs that are told apart: issue 1236
        ((0.69, 0.6, 0.5, 0.45, 0.42), None),
    ],
)
def test_preference_tuning_begins_at_ln_2(losses: tuple[float, ...], expected: str | None) -> None:
    found = of_curves(run(losses), (), 2, "dpo")
    assert (found.name if found is not None else None) == expected


# unslothai/unsloth issue 344: 4.7581 beside 0.8759 after five steps of the same model and data.
@pytest.mark.parametrize(
    ("first", "step", "rate", "expected"), [(4.7581, 5, 1e-4, "apart"), (1.2, 5, 1e-4, ""), (4.7581, 100, 1e-4, ""), (4.7581, 5, 1e-3, "")]
)
def test_one_model_on_the_same_data_begins_alike(first: float, step: int, rate: float, expected: str) -> None:
    def falls(start: float, **more: Any) -> RunFacts:
        points = tuple(LossPoint(step=float(step * (number + 1)), loss=start * 0.95**number) for number in range(5))
        return RunFacts(method=Method.QLORA, train_losses=points, **more)

    found = of_curves(falls(first, learning_rate=rate), (falls(0.8759, learning_rate=1e-4, id="plain"),), VOCABULARY)
    assert (found.name if found is not None else "") == expected


@pytest.mark.parametrize(
    ("losses", "epochs", "expected"),
    [
        ((1.4, 0.4, 0.06, 0.008, 0.001), 1.0, True),  # huggingface/trl issue 834: the answer was not in the text
        ((1.4, 0.9, 0.8, 0.3, 0.2, 0.01, 0.001, 0.001), 3.0, False),  # the third pass knows the data by heart
        (LEARNS, 1.0, False),
        ((1.4, 0.4, 0.06, 0.008, 0.001), None, False),
    ],
)
def test_text_that_is_known_before_it_was_seen(losses: tuple[float, ...], epochs: float | None, expected: bool) -> None:
    assert (known_text(run(losses, epochs=epochs)) is not None) == expected


@pytest.mark.parametrize(
    ("losses", "epochs", "task", "overfitted"),
    [
        ((6.4776, 2.0588, 0.6284, 0.1956), 16.67, "chat", True),  # mymusise/ChatGLM-Tuning issue 89: "one or two epochs are enough"
        ((6.4776, 2.0588, 0.6284, 0.1956), 16.67, "extraction", False),  # a format may be as easy
        ((2.0, 1.2, 0.9, 0.8), 3, "chat", False),
        ((6.4776, 2.0588, 0.6284, 0.1956), 1, "chat", False),
    ],
)
def test_a_loss_that_went_to_nothing_over_passes_is_no_rate_too_low(
    losses: tuple[float, ...], epochs: float, task: str, overfitted: bool
) -> None:
    lora = {"method": "lora", "rank": 8, "learning_rate": 2e-5, "epochs": epochs, "train_losses": list(losses)}
    answer = api.next_step({"model": "llama-2-7b", "task": task, "runs": [lora]})
    assert (answer.binding is Binding.DATA_OVERFIT) == overfitted


STAIRS = (1.2, 1.1, 1.06, 1.05, 1.04, 0.82, 0.8, 0.79, 0.79, 0.78, 0.5, 0.48, 0.47, 0.47, 0.46)
"""As tloen/alpaca-lora issue 502 draws it: three passes, each at a level of its own."""


@pytest.mark.parametrize(
    ("losses", "epochs", "expected"), [(STAIRS, 3.0, True), (STAIRS, 1.0, False), (LEARNS, 3.0, False), (STAIRS[:5], 3.0, False)]
)
def test_stairs(losses: tuple[float, ...], epochs: float, expected: bool) -> None:
    points = tuple(LossPoint(step=float(number), loss=loss) for number, loss in enumerate(losses, start=1))
    assert falls_in_stairs(RunFacts(method=Method.LORA, epochs=epochs, train_losses=points)) == expected


@given(st.floats(0.5, 4), st.floats(0.05, 0.5), st.integers(8, 60))
def test_a_curve_that_falls_steadily_shows_nothing(start: float, floor: float, length: int) -> None:
    losses = tuple(floor * start + (1 - floor) * start * 0.9**step for step in range(length))
    assert named(losses) == ""


NAN = [2.0, 1.9, math.nan]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        # fp16 overflows: the type is changed, and no rate (semantic-router pull request 590)
        ({"learning_rate": 2e-4, "precision": "fp16"}, "Train in bf16 instead of fp16, at 2.0e-4"),
        # ten times below the prior, nothing told of the type
        ({"learning_rate": 2e-5}, "Train in bf16, whatever it ran in, at 2.0e-5"),
        # in bf16 and far below the prior neither a rate nor the type is left
        ({"learning_rate": 2e-5, "precision": "bf16"}, "Change no rate yet"),
        ({"learning_rate": 2e-4, "precision": "fp16", "train_losses": [2.0, 1.9, 0.0]}, "logging_nan_inf_filter"),
        ({"learning_rate": 2e-3, "precision": "bf16"}, "Lower the learning rate to 2.2e-4 and 6.7e-4"),
        # an untold rate goes below the prior of 2.9e-4, not above it
        ({}, "Lower the learning rate to 3.2e-5 and 9.5e-5"),
    ],
)
def test_what_is_done_about_nan(facts: dict[str, Any], says: str) -> None:
    answer = api.next_step(
        {"model": "llama-2-7b", "runs": [{"method": "lora", "rank": 16, "train_losses": NAN, **facts}]},
    )
    assert says in answer.next_experiment


def test_a_rate_that_broke_is_lowered_further_and_never_raised() -> None:
    broken = [{"method": "lora", "rank": 16, "learning_rate": rate, "diverged": True} for rate in (2e-3, 6.7e-4, 2.2e-4)]
    answer = api.next_step({"model": "llama-2-7b", "runs": broken})
    assert answer.run is not None
    assert max(answer.run.learning_rates) < 2.2e-4


def test_a_loss_that_never_moves_far_above_the_prior_is_not_raised() -> None:
    flat = {"method": "lora", "rank": 16, "learning_rate": 5e-3, "train_losses": [2.0, 2.02, 1.98, 2.01]}
    answer = api.next_step({"model": "llama-2-7b", "runs": [flat]})
    assert answer.run is not None
    assert max(answer.run.learning_rates) < 5e-3


# The prior of rank 16 on 4,096 hidden units is 2.9e-4 (fact LR3); two steps of a sweep are 3 and 9 times.
@pytest.mark.parametrize(
    ("facts", "rates"),
    [
        ({"learning_rate": 2e-6, "train_losses": [2.0, 2.02, 1.98, 2.01]}, (9.5e-5, 2.9e-4, 8.6e-4)),  # 143 times too low
        ({"learning_rate": 2e-5, "train_losses": [2.0, 2.02, 1.98, 2.01]}, (6e-5, 1.8e-4)),  # 14 times: two steps come near
        ({"learning_rate": 5e-2, "diverged": True}, (9.5e-5, 2.9e-4, 8.6e-4)),  # 170 times too high
    ],
)
def test_a_rate_far_off_is_swept_about_the_prior(facts: dict[str, Any], rates: tuple[float, ...]) -> None:
    answer = api.next_step({"model": "llama-2-7b", "runs": [{"method": "lora", "rank": 16, **facts}]})
    assert answer.run is not None
    assert answer.run.learning_rates == pytest.approx(rates, rel=0.02)


def test_both_losses_low_and_no_score_asks_about_the_template() -> None:
    low = {"train_losses": [2.0, 0.9, 0.5, 0.3], "eval_losses": [2.0, 1.0, 0.6, 0.5]}
    facts = {"model": "llama-2-7b", "evaluation": {"base": 0.2, "n": 1000, "target": 0.5}}
    answer = api.next_step({**facts, "runs": [{"method": "lora", "rank": 16, "learning_rate": 2e-4, "score": 0.21, **low}]})
    assert answer.binding is Binding.OPTIMISATION_BUG
    assert "chat template" in answer.next_experiment
    assert answer.run is None


def test_a_four_bit_run_that_stands_still_beside_a_sixteen_bit_one_is_a_fault() -> None:
    runs = [
        {"id": "16", "method": "lora", "rank": 16, "learning_rate": 1e-4, "train_losses": [0.81, 0.07, 0.04]},
        {"id": "4", "method": "qlora", "rank": 16, "learning_rate": 1e-4, "train_losses": [6.9, 6.9, 6.9]},
    ]
    answer = api.next_step({"model": "llama-2-7b", "runs": runs, "current": "4"})
    assert "not the price of 4 bit" in answer.reason
    assert answer.run is None


CURVE = [2.0, 1.5, 1.3, 1.2]


# What users said of a model, the check that told in the thread, and the fact that names it.
@pytest.mark.parametrize(
    ("facts", "run", "says", "fact"),
    [
        ({"complaint": "never-stops"}, {}, "modules_to_save", "E1"),  # QwenLM/Qwen3 issue 1064
        ({"complaint": "never stops"}, {"epochs": 50}, "eos_token_id", "E1"),  # unslothai/unsloth issue 416
        ({"complaint": "repeats"}, {"epochs": 50}, "Train for 4 epochs", "E8"),  # hiyouga/LlamaFactory issue 1450
        ({"complaint": "repeats"}, {"epochs": 2}, "end token", "E1"),
        ({"complaint": "garbage"}, {"learning_rate": 1e-3}, "Lower the learning rate", "E6"),
        ({"complaint": "garbage"}, {"learning_rate": 1e-5, "precision": "bf16"}, "Change no rate yet", "E6"),
        ({"complaint": "like_base"}, {}, "get_peft_model makes a fresh one", "E3"),  # huggingface/peft issue 793
        ({"complaint": "merged-differs"}, {}, "experts", "E2"),  # NVIDIA-NeMo/Automodel issue 1226
        # a curve says more than a complaint
        ({"complaint": "never-stops"}, {"train_losses": [2.0, 1.9, math.nan], "precision": "fp16"}, "Train in bf16", "E4"),
    ],
)
def test_a_complaint_asks_for_the_check_that_tells(facts: dict[str, Any], run: dict[str, Any], says: str, fact: str) -> None:
    lora = {"method": "lora", "rank": 16, "alpha": 32, "learning_rate": 2e-4, "train_losses": CURVE, "score": 0.9}
    answer = api.next_step({"model": "llama-2-7b", "evaluation": {"n": 500, "target": 0.8}, **facts, "runs": [lora | run]})
    assert says in answer.next_experiment
    assert fact in {each.id for each in answer.facts}
    assert answer.binding in (Binding.OPTIMISATION_BUG, Binding.LEARNING_RATE, Binding.DATA_OVERFIT)


# huggingface/peft issue 793, tloen/alpaca-lora issue 459; two scores of nothing are a floor, and a far lower rate may have moved nothing.
@pytest.mark.parametrize(
    ("score", "base", "rate", "was_not_there"),
    [(0.52, 0.52, 2e-4, True), (0.0, 0.0, 2e-4, False), (0.52, 0.52, 2e-5, False), (0.54, 0.52, 2e-4, False)],
)
def test_the_very_score_of_the_untuned_model(score: float, base: float, rate: float, was_not_there: bool) -> None:
    lora = {"method": "lora", "rank": 16, "learning_rate": rate, "score": score}
    answer = api.next_step({"model": "llama-2-7b", "evaluation": {"n": 500, "base": base, "target": 0.8}, "runs": [lora]})
    assert ("exactly what the untuned model does" in answer.reason) == was_not_there


# QwenLM/Qwen3 issue 1064: full learns the end token, LoRA at a usual rate nothing; TinyLLaVA_Factory's 24 points may be the rate.
@pytest.mark.parametrize(
    ("lora", "rate", "task", "fault"), [(0.05, 2e-4, "chat", True), (0.6, 2e-4, "chat", False), (0.05, 2e-4, "knowledge", False)]
)
def test_what_no_method_explains_is_a_fault(lora: float, rate: float, task: str, fault: bool) -> None:
    runs = [
        {"id": "full", "method": "full", "learning_rate": 1e-5, "epochs": 3, "score": 0.84},
        {"id": "lora", "method": "lora", "rank": 16, "alpha": 32, "learning_rate": rate, "epochs": 3, "score": lora},
    ]
    answer = api.next_step({"model": "llama-2-7b", "task": task, "evaluation": {"n": 500}, "runs": runs, "current": "lora"})
    assert ("so a fault of the set-up" in answer.reason) == fault


# Fifty passes over running text: memorised, unless the loss says that nothing was learned.
@pytest.mark.parametrize(
    ("losses", "task", "fewer"),
    [([], "chat", True), ([2.0, 1.0, 0.5, 0.3], "chat", True), ([2.0, 1.9, 1.7, 1.6], "chat", False), ([], "extraction", False)],
)
def test_fifty_passes(losses: list[float], task: str, fewer: bool) -> None:
    lora = {"method": "lora", "rank": 16, "learning_rate": 2e-5, "epochs": 50, "train_losses": losses}
    answer = api.next_step({"model": "llama-2-7b", "task": task, "runs": [lora]})
    assert ("Train for 4 epochs" in answer.next_experiment) == fewer


def test_without_a_complaint_the_target_is_reached() -> None:
    lora = {"method": "lora", "rank": 16, "learning_rate": 2e-4, "train_losses": CURVE, "score": 0.9}
    assert api.next_step({"evaluation": {"n": 500, "target": 0.8}, "complaint": "", "runs": [lora]}).binding is Binding.NONE


# One setting differs: huggingface/transformers issue 15020 (loss 2.21 and 2.86 at 16 and 256), meta-pytorch/torchtune issue 2254.
@pytest.mark.parametrize(
    ("setting", "worse", "better", "binding"),
    [
        ("batch", 256, 16, Binding.BATCH),
        ("precision", "bf16", "fp32", Binding.OPTIMISATION_BUG),
        ("targets", "q_proj,v_proj", "all-linear", Binding.TARGET_MODULES),
    ],
)
def test_a_better_run_that_differs_in_one_setting_settles_it(setting: str, worse: Any, better: Any, binding: Binding) -> None:
    def runs(gain: float) -> list[dict[str, Any]]:
        both = [("worse", worse, 0.5), ("better", better, 0.5 + gain)]
        same = {"method": "lora", "rank": 16, "alpha": 32, "learning_rate": 2e-4, "epochs": 3, "lr_tuned": True}
        return [{**same, "id": name, setting: value, "score": score} for name, value, score in both]

    facts = {"model": "llama-2-7b", "evaluation": {"n": 2000, "target": 0.7}, "current": "worse"}
    answer = api.next_step({**facts, "runs": runs(0.1)})
    assert (answer.binding, "Go on from run better" in answer.next_experiment) == (binding, True)
    assert "Go on from run better" not in api.next_step({**facts, "runs": runs(0.01)}).next_experiment


@pytest.mark.parametrize(
    ("scores", "n", "unsteady"),
    [
        ((0.55, 0.75, 0.64), 100, True),  # haotian-liu/LLaVA issue 961: identical runs, twenty points apart
        ((0.55, 0.57, 0.56), 100, False),
        ((0.50, 0.59, 0.54), 30, False),  # thirty items scatter as much
    ],
)
def test_a_run_that_scatters_is_steadied_first(scores: tuple[float, ...], n: int, unsteady: bool) -> None:
    runs = [{"id": str(number), "method": "lora", "rank": 16, "learning_rate": 2e-4, "score": score} for number, score in enumerate(scores)]
    answer = api.next_step({"model": "llama-2-7b", "evaluation": {"n": n}, "runs": runs})
    assert (answer.binding is Binding.EVALUATION_NOISE) == unsteady


# A card that does not compute in bf16 is not sent there (modelscope/ms-swift issue 5580 ran on a V100).
@pytest.mark.parametrize(
    ("gpu", "precision", "says"),
    [
        ("v100-32gb", "fp16", "Train in fp16-amp instead of fp16"),
        ("v100-32gb", "fp16-amp", "Train in fp32 instead of fp16-amp"),
        ("a100-80gb", "fp16-amp", "Train in bf16 instead of fp16-amp"),
    ],
)
def test_a_wider_type_is_one_that_the_card_has(gpu: str, precision: str, says: str) -> None:
    lora = {"method": "lora", "rank": 8, "learning_rate": 5e-5, "precision": precision, "train_losses": NAN}
    assert says in api.next_step({"model": "llama-2-7b", "gpu": gpu, "runs": [lora]}).next_experiment
