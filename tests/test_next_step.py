"""Published cases, and what the next step must say of each. Scores, rates and sizes as in the fact that is named."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import Fit, NextStep, api
from advisor.values.next_step import Binding, Confidence, Door

ALL = ("all-linear",)
GEMMA_RATES = (1.1e-5, 2e-5, 3.6e-5, 6.3e-5, 1.1e-4, 2e-4, 3.6e-4, 6.3e-4, 1.1e-3, 2e-3, 3.6e-3, 6.3e-3)
GEMMA_SCORES = (6.88, 9.12, 10.79, 13.23, 15.65, 17.54, 19.73, 20.46, 19.83, 13.33, 1.48, 0.0)
GEMMA_SWEEP = [list(row) for row in zip(GEMMA_RATES, GEMMA_SCORES, strict=True)]
"""LoRA at batch 64: fact LR20."""
MAGICODER, METAMATH, STARCODER, OPENWEBMATH = 72_970_000, 103_000_000, 20_000_000_000, 16_000_000_000
"""Training tokens: facts B4, B5, C5."""


def run(method: str, rank: int | None = None, score: float | None = None, rate: float | None = None, **more: Any) -> dict[str, Any]:
    return {"method": method, "rank": rank, "score": score, "learning_rate": rate, **more}


def step(**facts: Any) -> NextStep:
    return api.next_step(facts)


def dora_table(current: str) -> dict[str, Any]:
    """LLaMA-7B at one learning rate for every rank: fact C11."""
    rows = zip((4, 8, 16, 32, 64), (39.5, 40.7, 70.9, 74.7, 65.8), strict=True)
    runs = [run("lora", rank, score, 3e-4, alpha=2 * rank, id=f"r{rank}") for rank, score in rows]
    return {"model": "llama-7b", "unit": "percent", "evaluation": {"target": 78}, "runs": runs, "current": current}


PEFT_BENCHMARK = [run("lora", 32, 48.2, 1e-4), run("dora", 32, 48.1, 1e-4), run("full", None, 49.4, 1e-5)]
"""Llama-3.2-3B on MetaMathQA, 1,319 items: facts D2, F3."""
ORCA = [run("full", None, 0.26, 1e-5), run("qlora", 64, 0.118, 1e-5), run("qdora", 64, 0.312, 1e-5, id="qdora")]
"""Llama-2-7B on Orca-Math, 500 items: fact D14."""
PHI2 = [run("qlora", 64, 60.2, 2e-4), run("lora", 64, 64.8, 2e-4)]
"""Phi-2 on GSM8K: fact Q5."""

# (name, facts, constraint, rung)
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # The list of the evidence file, in its order.
    (
        "1 a rate for full fine-tuning, D14",
        {"model": "llama-2-7b", "task": "math", "evaluation": {"n": 500, "target": 0.26}, "runs": [ORCA[1]]},
        "learning_rate",
        "stay",
    ),
    (
        "3 far below the optimum, LR20",
        {"model": "gemma-3-1b-pt", "task": "math", "unit": "percent", "evaluation": {"target": 20}}
        | {"runs": [run("lora", 128, 9.1, 2e-5, alpha=128, batch=64)]},
        "learning_rate",
        "stay",
    ),
    (
        "4 at the optimum after one epoch, B11",
        {"model": "gemma-3-1b-pt", "task": "math", "unit": "percent", "evaluation": {"target": 23, "n": 5000}, "dataset_tokens": 26_100_000}
        | {"runs": [run("lora", 128, 20.5, 6.3e-4, alpha=128, batch=64, epochs=1, lr_sweep=GEMMA_SWEEP)]},
        "undertrained",
        "stay",
    ),
    (
        "4 the same, nothing told of epochs, data and items, B10",
        {"model": "gemma-3-1b-pt", "task": "math", "unit": "percent", "evaluation": {"target": 23}}
        | {"runs": [run("lora", 128, 20.5, 6.3e-4, alpha=128, batch=64, lr_sweep=GEMMA_SWEEP)]},
        "data",
        "stay",
    ),
    (
        "5 rate below the prior and attention only, T1",
        {"model": "llama-3.2-3b", "task": "math", "evaluation": {"target": 52, "n": 1319}}
        | {"runs": [run("lora", 32, 48.2, 1e-4, alpha=64, targets="q_proj,v_proj", batch=4, steps=5000)]},
        "learning_rate",
        "stay",
    ),
    (
        "6 rank 16 for 73 million tokens, B4",
        {"model": "llama-2-7b", "task": "code", "dataset_tokens": MAGICODER, "evaluation": {"target": 0.47}}
        | {"runs": [run("lora", 16, 0.358, 2e-4, targets=ALL, lr_tuned=True)]},
        "capacity",
        "stay",
    ),
    (
        "8 continued pre-training at full fine-tuning's rate, C5",
        {"model": "llama-2-7b", "task": "knowledge", "dataset_tokens": STARCODER, "evaluation": {"target": 0.263}}
        | {"runs": [run("lora", 256, 0.224, 1e-5, targets=ALL)]},
        "learning_rate",
        "stay",
    ),
    (
        "8 the same once the rate is closed",
        {"model": "llama-2-7b", "task": "knowledge", "dataset_tokens": STARCODER, "evaluation": {"target": 0.263}}
        | {"runs": [run("lora", 256, 0.224, 2e-4, targets=ALL, lr_tuned=True)]},
        "capacity",
        "full_ft",
    ),
    (
        "10 reinforcement learning fell below its start, LR11",
        {
            "model": "Qwen3.5-4B",
            "task": "rl",
            "evaluation": {"n": 500, "base": 0.688, "target": 0.92},
            "runs": [run("lora", 32, 0.326, 2e-4)],
        },
        "learning_rate",
        "stay",
    ),
    ("12 out of memory on a small card", {"model": "llama-2-7b", "gpu": "16GB", "runs": [run("lora", 16, oom=True)]}, "memory", "qlora"),
    (
        "15 three methods, one evaluation, D2",
        {"model": "llama-3.2-3b", "task": "math", "evaluation": {"n": 1319}, "runs": PEFT_BENCHMARK},
        "evaluation_noise",
        "stay",
    ),
    (
        "15 the same with the best as the target",
        {"model": "llama-3.2-3b", "task": "math", "evaluation": {"n": 1319, "target": 49.4}, "runs": PEFT_BENCHMARK},
        "evaluation_noise",
        "stay",
    ),
    (
        "18 narrow extraction is done, Q11",
        {"task": "extraction", "examples": 2000, "evaluation": {"base": 55, "target": 90}, "runs": [run("lora", 8, 91)]},
        "none",
        "stop",
    ),
    # More of what is published.
    ("QDoRA beats full fine-tuning, N8", {"model": "llama-2-7b", "evaluation": {"n": 500}, "runs": ORCA}, "evaluation_noise", "stay"),
    (
        "QDoRA against full fine-tuning as the target, N8",
        {"model": "llama-2-7b", "evaluation": {"n": 500, "target": 0.26}, "runs": ORCA, "current": "qdora"},
        "evaluation_noise",
        "stay",
    ),
    (
        "rank 256 reaches full fine-tuning, B4",
        {"model": "llama-2-7b", "dataset_tokens": MAGICODER, "evaluation": {"target": 0.497, "n": 164}}
        | {"runs": [run("lora", 256, 0.498, 1e-4, targets=ALL, lr_tuned=True)]},
        "none",
        "stop",
    ),
    (
        "rank 64 within a standard error of full fine-tuning, B5",
        {"model": "llama-2-7b", "task": "math", "dataset_tokens": METAMATH, "evaluation": {"target": 0.642, "n": 1319}}
        | {"runs": [run("lora", 64, 0.624, 2e-4, targets=ALL, lr_tuned=True)]},
        "evaluation_noise",
        "stay",
    ),
    (
        "rank 16 for 103 million tokens, B5",
        {"model": "llama-2-7b", "task": "math", "dataset_tokens": METAMATH, "evaluation": {"target": 0.642, "n": 1319}}
        | {"runs": [run("lora", 16, 0.58, 2e-4, targets=ALL, lr_tuned=True)]},
        "capacity",
        "stay",
    ),
    (
        "the same with 768 sequences per step, B1",
        {"model": "llama-2-7b", "task": "math", "dataset_tokens": METAMATH, "evaluation": {"target": 0.642, "n": 1319}}
        | {"runs": [run("lora", 16, 0.58, 2e-4, targets=ALL, lr_tuned=True, batch=768)]},
        "batch",
        "stay",
    ),
    (
        "mathematics in scale, four times full fine-tuning's rate, C16",
        {"model": "llama-2-7b", "task": "cpt", "dataset_tokens": OPENWEBMATH, "evaluation": {"target": 0.293, "n": 1319}}
        | {"runs": [run("lora", 256, 0.203, 4e-5, targets=ALL, batch=192)]},
        "learning_rate",
        "stay",
    ),
    ("one rate for all ranks: the best of them, C11", dora_table(""), "learning_rate", "stay"),
    ("one rate for all ranks: the lowest failed to train, C11", dora_table("r4"), "optimisation_bug", "stay"),
    ("one rate for all ranks: the highest was hurt, C11", dora_table("r64"), "learning_rate", "stay"),
    (
        "twice the rank at one rate brings nothing, C10",
        {"model": "llama-3.2-3b", "task": "math", "evaluation": {"target": 52, "n": 1319}}
        | {"runs": [run("lora", 32, 48.2, 2e-4, alpha=64, targets=ALL), run("lora", 64, 48.5, 2e-4, alpha=128, targets=ALL)]},
        "learning_rate",
        "stay",
    ),
    (
        "twice the rank at one alpha hurts, S5",
        {"model": "llama-2-7b", "evaluation": {"target": 0.6, "n": 1000}}
        | {"runs": [run("qlora", 8, 0.5, 3e-4, alpha=16), run("qlora", 16, 0.45, 3e-4, alpha=16)]},
        "scale",
        "stay",
    ),
    (
        "alpha 32 at rank 256, S1",
        {"model": "llama-2-7b", "evaluation": {"target": 0.5, "n": 1000}, "runs": [run("lora", 256, 0.3, 2e-4, alpha=32)]},
        "scale",
        "stay",
    ),
    (
        "reinforcement learning with rank-stabilised scaling, LR11",
        {"model": "Qwen3.5-4B", "task": "rl", "evaluation": {"n": 500, "base": 0.688}}
        | {"runs": [run("lora", 32, 0.408, 4e-5, alpha=32, use_rslora=True)]},
        "learning_rate",
        "stay",
    ),
    (
        "4 bit against a 16-bit control, Q5",
        {"model": "phi-2", "task": "math", "gpu": "80GB", "evaluation": {"target": 66.8, "n": 1319}, "runs": PHI2},
        "quantisation",
        "lora",
    ),
    (
        "4 bit, arithmetic, no control yet, Q5",
        {"model": "phi-2", "task": "math", "gpu": "80GB", "evaluation": {"target": 66.8, "n": 1319}, "runs": [PHI2[0]]},
        "quantisation",
        "lora",
    ),
    (
        "only arithmetic falls short under 4 bit, Q6",
        {"model": "llama-2-7b", "gpu": "80GB", "evaluation": {"target": 34.0, "n": 1319}, "runs": [run("qlora", 64, 20.5, 1e-4)]}
        | {"other_scores": [{"metric": "MMLU", "score": 48.8, "target": 49.5}]},
        "quantisation",
        "lora",
    ),
    (
        "4 bit although the 16-bit base fits",
        {"model": "llama-3.1-8b", "task": "chat", "gpu": "80GB", "evaluation": {"target": 0.6, "n": 2000}, "dataset_tokens": 5_000_000}
        | {"runs": [run("qlora", 16, 0.5, 2e-4, lr_tuned=True, epochs=3, targets=ALL)]},
        "quantisation",
        "lora",
    ),
    (
        "390 steps at batch 128, C12",
        {"model": "llama-2-7b", "task": "chat"}
        | {"runs": [run("qlora", 256, 0.5, 3e-4, alpha=512, batch=128, steps=390, lr_tuned=True)]}
        | {"evaluation": {"target": 0.6, "n": 1000}},
        "batch",
        "stay",
    ),
    (
        "rank 512 after 256, 390 steps at batch 128, C12",
        {"model": "llama-2-7b", "task": "chat", "evaluation": {"n": 1000}}
        | {"runs": [run("qlora", r, s, 3e-4, alpha=2 * r, batch=128, steps=390) for r, s in ((256, 0.5), (512, 0.45))]},
        "batch",
        "stay",
    ),
    (
        "rank 1 is as good as 32 in reinforcement learning, C15",
        {"task": "rl", "evaluation": {"n": 500, "base": 0.688}} | {"runs": [run("lora", 1, 0.932, 2e-5), run("lora", 32, 0.93, 2e-5)]},
        "evaluation_noise",
        "stay",
    ),
    (
        "50 items, N3",
        {"evaluation": {"n": 50}, "runs": [run("lora", 32, 0.44, 2e-4), run("dora", 32, 0.52, 2e-4)]},
        "evaluation_noise",
        "stay",
    ),
    (
        "attention alone at rank 256, T2",
        {"model": "llama-3.1-8b", "evaluation": {"n": 2000, "target": 0.7}}
        | {"runs": [run("lora", 256, 0.6, 2e-4, lr_tuned=True, targets="q_proj,k_proj,v_proj,o_proj")]},
        "target_modules",
        "stay",
    ),
    (
        "PiSSA at LoRA's rate, LR8",
        {"model": "llama-2-7b", "evaluation": {"n": 1319, "target": 0.5}} | {"runs": [run("lora", 128, 0.3, 2e-4, init="pissa")]},
        "learning_rate",
        "stay",
    ),
    (
        "4 bit and rank 256 ran out of memory",
        {"model": "llama-70b", "gpu": "80GB", "runs": [run("qlora", 256, oom=True)]},
        "memory",
        "stay",
    ),
    (
        "two epochs worse than one, B7",
        {"model": "llama-2-7b", "task": "chat", "evaluation": {"target": 0.6, "n": 1000}}
        | {"runs": [run("lora", 256, 0.5, 3e-4, alpha=512, epochs=1), run("lora", 256, 0.45, 3e-4, alpha=512, epochs=2)]},
        "data_overfit",
        "stay",
    ),
    (
        "the score peaked at epoch 4 of 16, B4",
        {"model": "llama-2-7b", "task": "code", "evaluation": {"target": 0.6}}
        | {"runs": [run("lora", 64, 0.33, 2e-4, scores_by_epoch=[[1, 0.249], [2, 0.339], [4, 0.417], [8, 0.392], [16, 0.33]])]},
        "data_overfit",
        "stay",
    ),
    (
        "half of the data is much worse, B10",
        {"model": "gemma-3-1b-pt", "task": "math", "evaluation": {"target": 0.3, "n": 5000}}
        | {"runs": [run("lora", 128, 0.205, 6.3e-4), run("lora", 128, 0.129, 6.3e-4, data_fraction=0.25)]},
        "data",
        "stay",
    ),
    (
        "rank-stabilised rank 64 forgets, F8",
        {"model": "llama-3.2-3b", "task": "math", "complaint": "forgetting", "evaluation": {"n": 1319}}
        | {"runs": [run("lora", 32, 48.2, 1e-4, forgetting=0.05), run("lora", 64, 52.6, 1e-4, use_rslora=True, forgetting=0.111)]},
        "forgetting",
        "stay",
    ),
    (
        "the target is reached, the general benchmark is not what it was, F7",
        {"model": "llama-2-7b", "evaluation": {"target": 50, "n": 1319}, "retention_base": 46.0, "retention_n": 14000}
        | {"runs": [run("lora", 256, 52, 8e-4, retention=41.0)]},
        "forgetting",
        "stay",
    ),
    (
        "LoRA, full fine-tuning and DoRA are alike, D8",
        {"task": "chat", "evaluation": {"n": 5000}}
        | {"runs": [run("lora", 128, 66.9, 2e-4), run("full", None, 66.5, 2e-5), run("dora", 128, 67.6, 2e-4)]},
        "evaluation_noise",
        "stay",
    ),
    (
        "a rank step with its own rate brings nothing: rank is not the limit, C20",
        {"model": "llama-3.2-3b", "dataset_tokens": 30_000_000, "evaluation": {"target": 60, "n": 1319}}
        | {"runs": [run("lora", 16, 48.2, 2e-4, alpha=32, targets=ALL, lr_tuned=True, epochs=3)]}
        | {
            "runs": [
                run("lora", r, s, lr, alpha=2 * r, targets=ALL, lr_tuned=True, epochs=3)
                for r, s, lr in ((16, 48.2, 2e-4), (64, 48.9, 1e-4))
            ]
        },
        "data",
        "stay",
    ),
    (
        "rank 256 won and still falls short on a billion tokens, C6",
        {"model": "llama-2-7b", "dataset_tokens": 1_000_000_000, "evaluation": {"target": 0.5, "n": 1000}}
        | {"runs": [run("lora", r, s, lr, targets=ALL, lr_tuned=True) for r, s, lr in ((64, 0.35, 2e-4), (256, 0.42, 1e-4))]},
        "capacity",
        "full_ft",
    ),
    (
        "capacity is suspected and serving caps the rank",
        {"model": "llama-2-7b", "dataset_tokens": MAGICODER, "evaluation": {"target": 0.5, "n": 1000}, "rank_cap": 16}
        | {"runs": [run("lora", 16, 0.358, 2e-4, targets=ALL, lr_tuned=True, epochs=4)]},
        "capacity",
        "dora",
    ),
    ("no run yet, the 16-bit base does not fit", {"model": "llama-70b", "gpu": "80GB"}, "memory", "qlora"),
    ("no run yet, it fits", {"model": "llama-3.1-8b", "gpu": "80GB"}, "unknown", "lora"),
    (
        "the loss is NaN",
        {"model": "llama-2-7b", "runs": [run("lora", 16, rate=2e-4, train_losses=[2.0, 3.0, float("nan")])]},
        "optimisation_bug",
        "stay",
    ),
    (
        "4 bit ran out of memory with everything on",
        {"runs": [run("qlora", 16, oom=True, micro_batch=1, gradient_checkpointing=True)]},
        "memory",
        "stop",
    ),
    ("full fine-tuning ran out of memory", {"model": "llama-3.1-8b", "gpu": "40GB", "runs": [run("full", oom=True)]}, "memory", "lora"),
]


@pytest.mark.parametrize(("facts", "binding", "rung"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_published_cases(facts: dict[str, Any], binding: str, rung: str) -> None:
    answer = step(**facts)
    assert (answer.binding.value, answer.rung.value) == (binding, rung), answer.reason


def case(name: str) -> NextStep:
    return step(**next(facts for title, facts, *_ in CASES if title.startswith(name)))


def test_a_rate_far_too_low_promises_what_the_published_curve_says() -> None:
    gain = case("3 far below").expected_gain
    assert gain is not None
    assert gain.points.low >= 8


def test_the_rate_is_closed_before_the_targets_and_rank_is_not_named() -> None:
    answer = case("5 rate below")
    assert answer.blocked_by == (Binding.LEARNING_RATE, Binding.TARGET_MODULES)
    assert answer.run is not None
    assert answer.run.rank == 32


def test_the_rank_goes_up_one_step_of_four_with_rates_of_its_own() -> None:
    answer = case("6 rank 16")
    assert answer.run is not None
    assert (answer.run.rank, answer.run.alpha, answer.run.learning_rates) == (64, 128, (1e-4, 5e-5))
    assert "DoRA" in answer.disagreement


def test_the_second_step_ends_at_256() -> None:
    runs = [run("lora", r, s, 2e-4, targets=ALL, lr_tuned=True) for r, s in ((16, 0.358), (64, 0.417))]
    answer = step(model="llama-2-7b", dataset_tokens=MAGICODER, evaluation={"target": 0.497}, runs=runs)
    assert (answer.binding, answer.confidence) == (Binding.CAPACITY, Confidence.HIGH)
    assert answer.run is not None
    assert answer.run.rank == 256


def test_behind_the_rate_lies_full_fine_tuning_in_deep_pre_training() -> None:
    answer = case("8 continued pre-training")
    assert answer.then is not None
    assert (answer.then.rung, answer.then.binding) == (Door.FULL, Binding.CAPACITY)


def test_a_collapse_in_reinforcement_learning_is_cured_at_a_tenth() -> None:
    answer = case("10 reinforcement")
    assert answer.run is not None
    assert 2e-5 in answer.run.learning_rates
    assert max(answer.run.learning_rates) < 2e-4
    assert answer.then is None or answer.then.rung is not Door.FULL


def test_a_lower_rank_is_refused_when_memory_binds() -> None:
    answer = case("12 out of memory")
    assert "rank-no-cure" in [finding.id for finding in answer.findings]
    assert answer.run is not None
    assert (answer.run.rank, answer.run.gradient_checkpointing) == (16, True)
    assert answer.price is not None
    assert answer.price.memory.high_bytes < 16e9
    assert {"load_in_4bit", "gradient_checkpointing"} <= {change.setting for change in answer.config_diff}


def test_a_lower_rank_is_offered_only_where_it_weighs() -> None:
    answer = case("4 bit and rank 256")
    assert answer.run is not None
    assert answer.run.rank == 64
    assert answer.price is not None
    assert answer.price.fit is Fit.FITS


def test_the_unknown_model_is_said_to_be_missing() -> None:
    assert any("Qwen3.5-4B" in line for line in case("10 reinforcement").missing)


@pytest.mark.parametrize("name", ["one rate for all ranks: the best", "twice the rank at one rate", "a rank step with its own rate"])
def test_the_rank_trap_is_a_finding(name: str) -> None:
    assert "rank-trap" in [finding.id for finding in case(name).findings]


@pytest.mark.parametrize(("name", "expected"), [("one rate for all ranks: the best", False), ("a rank step with its own rate", True)])
def test_the_rank_trap_is_judged_only_where_the_rate_was_tuned(name: str, expected: bool) -> None:
    trap = next(finding for finding in case(name).findings if finding.id == "rank-trap")
    assert ("the limit is elsewhere" in trap.hint) is expected


def test_memory_that_no_longer_binds_leads_back_to_lora() -> None:
    answer = case("4 bit although")
    assert answer.disagreement
    assert ("load_in_4bit", "False (16-bit base)") in [(change.setting, change.new) for change in answer.config_diff]


def test_with_a_card_too_small_for_16_bit_the_quantisation_error_is_trained_for() -> None:
    answer = step(
        model="llama-2-7b",
        task="math",
        gpu="12GB",
        evaluation={"target": 0.4, "n": 1319},
        runs=[run("qlora", 64, 0.2, 2e-4, lr_tuned=True)],
    )
    assert (answer.binding, answer.rung) == (Binding.QUANTISATION, Door.STAY)
    assert answer.run is not None
    assert answer.run.init == "loftq"


def climb(**more: Any) -> dict[str, Any]:
    """Facts that ask for DoRA: two runs to spare, everything before it closed."""
    facts = {
        "model": "llama-2-7b",
        "dataset_tokens": 5_000_000,
        "evaluation": {"target": 0.7, "n": 1000},
        "spare_runs": 2,
        "runs": [run("lora", 16, 0.5, 2e-4, targets=ALL, lr_tuned=True, epochs=3)],
    }
    return facts | more


@pytest.mark.parametrize(
    ("more", "rung"),
    [
        ({}, "dora"),
        ({"serving": "unmerged"}, "stay"),
        ({"spare_runs": 0}, "stay"),
        ({"evaluation": {"target": 0.6, "n": 100}}, "stay"),
        ({"evaluation": {"target": 0.6}}, "stay"),
        ({"runs": [*climb()["runs"], run("dora", 16, 0.505, 2e-4, targets=ALL, lr_tuned=True, epochs=3)]}, "stay"),
        ({"runs": [*climb()["runs"], run("full", None, 0.49, 2e-5, lr_tuned=True)]}, "stay"),
    ],
    ids=["to spare", "served unmerged", "none to spare", "few items", "unknown items", "tried", "as good as full"],
)
def test_dora_opens_only_where_it_may_pay(more: dict[str, Any], rung: str) -> None:
    assert step(**climb(**more)).rung.value == rung


def test_dora_is_accepted_over_two_seeds_and_its_thin_evidence_is_said() -> None:
    answer = step(**climb())
    assert answer.accept_if is not None
    assert answer.accept_if.seeds == 2
    assert "0.1 points" in answer.disagreement
    assert {"D2", "D15"} <= {fact.id for fact in answer.facts}


@pytest.mark.parametrize(
    ("control", "binding", "rung"),
    [
        (None, "data", "stay"),
        (0.40, "data", "stay"),  # half of the data is ten points worse
        (0.495, "unknown", "full_ft"),  # no sign of it, which proves nothing at 1,000 items: the next door
    ],
)
def test_the_end_of_the_ladder_is_data_or_the_task(control: float | None, binding: str, rung: str) -> None:
    runs = climb()["runs"] + ([] if control is None else [run("lora", 16, control, 2e-4, targets=ALL, epochs=3, data_fraction=0.5)])
    answer = step(**climb(spare_runs=0, runs=runs))
    assert (answer.binding.value, answer.rung.value) == (binding, rung)


def test_full_fine_tuning_opens_when_the_cheaper_doors_are_closed() -> None:
    runs = [
        *climb()["runs"],
        run("dora", 16, 0.505, 2e-4, targets=ALL, lr_tuned=True, epochs=3),
        run("lora", 16, 0.495, 2e-4, targets=ALL, epochs=3, data_fraction=0.5),
    ]
    answer = step(**climb(runs=runs))
    assert (answer.rung, answer.binding) == (Door.FULL, Binding.UNKNOWN)
    assert answer.run is not None
    assert answer.run.learning_rates == (6.7e-6, 2e-5, 6e-5)


def test_full_fine_tuning_is_taken_when_its_own_sweep_shows_it_better() -> None:
    runs = [*climb()["runs"], run("full", None, 0.6, 2e-5, lr_tuned=True)]
    answer = step(**climb(runs=runs))
    assert (answer.rung, answer.confidence) == (Door.FULL, Confidence.HIGH)


@pytest.mark.parametrize(
    ("adapter", "binding"),
    [
        ({"rank": 16, "energy_at_half": 0.97}, "capacity"),  # a spectrum says nothing of the score: 42.3 fell to 31.7 at .98
        ({"rank": 16, "energy_at_half": 0.6}, "capacity"),
        ({"rank": 16, "truncated_rank": 8, "truncated_score": 0.357}, "data"),  # not in use: closed without a run
        ({"rank": 16, "truncated_rank": 8, "truncated_score": 0.30}, "capacity"),
        ({"rank": 32, "energy_at_half": 0.97}, "capacity"),  # of another run
        ({"rank": 16, "untrained_modules": ["q_proj"]}, "optimisation_bug"),
    ],
)
def test_the_adapter_file_closes_or_keeps_the_question_of_rank(adapter: dict[str, Any], binding: str) -> None:
    runs = [run("lora", 16, 0.358, 2e-4, targets=ALL, lr_tuned=True, epochs=4)]
    facts = {"model": "llama-2-7b", "dataset_tokens": MAGICODER, "evaluation": {"target": 0.5, "n": 1000}}
    assert step(**facts, runs=runs, adapter=adapter).binding.value == binding


def test_a_sweep_at_its_edge_goes_on_outward_on_the_same_data() -> None:
    sweep = [[2e-4, 0.30], [6e-4, 0.36], [1.8e-3, 0.45]]
    answer = step(model="llama-2-7b", evaluation={"target": 0.6, "n": 2000}, runs=[run("lora", 16, 0.45, 1.8e-3, lr_sweep=sweep)])
    assert answer.binding is Binding.LEARNING_RATE
    assert answer.run is not None
    assert answer.run.learning_rates == (5.4e-3,)
    assert answer.run.data_fraction == 1.0


def test_a_run_that_the_sweep_beats_is_told_its_better_rate() -> None:
    sweep = [[1e-4, 0.30], [3e-4, 0.45], [9e-4, 0.40]]
    facts = {"model": "llama-2-7b", "evaluation": {"target": 0.6, "n": 2000}}
    answer = step(**facts, runs=[run("lora", 16, 0.30, 1e-4, lr_sweep=sweep)])
    assert (answer.binding, answer.confidence) == (Binding.LEARNING_RATE, Confidence.HIGH)
    assert answer.run is not None
    assert answer.run.learning_rates == (3e-4,)


def test_a_rate_won_on_a_part_of_the_data_is_lowered_for_all_of_it() -> None:
    """Fact LR15: a third less for four times the data."""
    pilots = [run("lora", 16, score, rate, data_fraction=0.25) for rate, score in ((1e-4, 0.30), (3e-4, 0.45), (9e-4, 0.40))]
    answer = step(model="llama-2-7b", evaluation={"target": 0.6, "n": 2000}, runs=[*pilots, run("lora", 16, 0.31, 1e-4)])
    assert (answer.binding, answer.confidence) == (Binding.LEARNING_RATE, Confidence.HIGH)
    assert answer.run is not None
    assert answer.run.learning_rates == (2.1e-4,)


def test_losses_still_falling_ask_for_more_steps_once_the_rate_is_closed() -> None:
    falling = [[step, 2.0 - 0.01 * step] for step in range(0, 100, 5)]
    runs = [run("lora", 16, 0.5, 2e-4, targets=ALL, lr_tuned=True, train_losses=falling, eval_losses=falling, epochs=2)]
    answer = step(model="llama-2-7b", dataset_tokens=5_000_000, evaluation={"target": 0.7, "n": 1000}, runs=runs)
    assert answer.binding is Binding.UNDERTRAINED
    assert answer.run is not None
    assert answer.run.epochs == 4


def test_flat_and_close_losses_point_at_capacity_without_a_token_count() -> None:
    flat = [[step, 1.2 + 2.0 * 0.8**step] for step in range(0, 100, 5)]
    runs = [run("lora", 64, 0.5, 2e-4, targets=ALL, lr_tuned=True, train_losses=flat, eval_losses=flat, epochs=3)]
    answer = step(model="llama-2-7b", evaluation={"target": 0.7, "n": 1000}, runs=runs)
    assert (answer.binding, answer.confidence) == (Binding.CAPACITY, Confidence.MEDIUM)


def test_preference_tuning_has_no_published_prior_and_is_only_asked_for_a_sweep() -> None:
    answer = step(model="llama-2-7b", objective="dpo", evaluation={"target": 0.7, "n": 1000}, runs=[run("lora", 16, 0.5, 5e-6)])
    assert (answer.binding, answer.confidence) == (Binding.LEARNING_RATE, Confidence.LOW)


def test_the_price_counts_every_run_of_a_sweep() -> None:
    facts = {"model": "llama-2-7b", "gpu": "A100 80GB", "dataset_tokens": 20_000_000, "evaluation": {"target": 0.5, "n": 1000}}
    one = step(**facts, runs=[run("lora", 16, 0.3, 2e-4, lr_tuned=True, targets=ALL, epochs=1)])
    three = step(**facts, runs=[run("lora", 16, 0.3, 1e-5, targets=ALL, epochs=1)])
    assert one.run is not None
    assert three.run is not None
    assert (one.run.runs, three.run.runs) == (1, 3)
    assert one.price is not None
    assert three.price is not None
    assert one.price.hours is not None
    assert three.price.hours is not None
    # two epochs on all of the data against three runs on a quarter of it
    assert three.price.hours.high == pytest.approx(one.price.hours.high * 0.75 / 2)


def test_every_answer_cites_facts_with_their_sources() -> None:
    for _, facts, *_ in CASES:
        answer = step(**facts)
        assert answer.facts
        assert all(fact.source and fact.confidence in ("high", "medium") for fact in answer.facts)
