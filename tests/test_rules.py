"""Rules: facts in, ids out. Each row is a situation and what must be, and must not be, noticed."""

from __future__ import annotations

from typing import Any

import pytest
from samples import price_by

from advisor.architectures import spec_from_config
from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.ladder import advise, request_from
from advisor.ladder.rules import RULES
from advisor.ladder.rules_capacity import rank_sized
from advisor.units import GIB, MIB
from advisor.values import (
    Finding,
    GpuSpec,
    Interval,
    Level,
    MemoryBreakdown,
    Method,
    ModelSpec,
    Phase,
    PhaseBytes,
    Plan,
    Request,
    Task,
    Term,
    TermBytes,
)

IDS = {
    "fit-uncertain",
    "fits-tightly",
    "rank-no-cure",
    "rank-heavy",
    "kbit-upcast",
    "math-attention",
    "quantized-not-smaller",
    "experts-not-modules",
    "full-states",
    "full-pure-bf16",
    "interval-wide",
    "estimate-note",
    "batch-room",
    "quantized-needlessly",
    "qlora-price",
    "qlora-arithmetic",
    "dora-before-evidence",
    "dora-dropout",
    "dora-serving",
    "dora-without-experts",
    "qlora-merge",
    "rank-high",
    "alpha-small",
    "capacity-deep-cpt",
    "capacity-cpt",
    "capacity-suspect",
    "capacity-test",
    "capacity-ample",
    "rl-rank-and-rate",
    "seq-beyond-positions",
    "bf16-unsupported",
    "fp16-weights-trained",
    "batch-high",
    "targets-without-mlp",
    "loss-not-in-stack",
    "attention-unsupported",
}
"""Every id that a rule may yield. Scripts match on them: removing or renaming one is a breaking change."""


def found(model: str, gpu: str | GpuSpec, **options: Any) -> dict[str, Finding]:
    card = gpu if isinstance(gpu, GpuSpec) else load_gpu(gpu)
    findings = advise(load_model(model), card, request_from(options)).findings
    assert {finding.id for finding in findings} <= IDS
    return {finding.id: finding for finding in findings}


# The closed form prices these; the rows are far from every edge.
ROWS: list[tuple[str, str, dict[str, Any], set[str], set[str]]] = [
    # model, card, options, noticed, not noticed
    (
        "llama-70b",
        "80GB",
        {},
        {"rank-no-cure", "kbit-upcast", "math-attention", "full-states", "qlora-price", "qlora-merge"},
        {"qlora-arithmetic", "rank-high"},
    ),
    ("llama-70b", "80GB", {"stack": "trl"}, {"qlora-price"}, {"kbit-upcast", "math-attention"}),
    ("llama-70b", "80GB", {"attention": "flash"}, {"kbit-upcast"}, {"math-attention"}),
    ("llama-3.2-1b", "T4", {}, {"math-attention"}, {"kbit-upcast"}),
    ("llama-3.2-1b", "T4", {"attention": "mem_efficient"}, set(), {"math-attention"}),
    ("llama-3.2-1b", "L4", {}, set(), {"math-attention"}),
    ("llama-2-7b", "T4", {}, set(), {"math-attention"}),  # as many keys as queries
    ("llama-3-8b", "16GB", {}, {"qlora-arithmetic", "qlora-price"}, {"quantized-needlessly"}),
    ("llama-3-8b", "16GB", {"task": "chat"}, {"qlora-price"}, {"qlora-arithmetic"}),
    ("llama-3-8b", "80GB", {}, {"batch-room"}, {"qlora-price", "rank-no-cure", "full-states", "rank-high", "fits-tightly"}),
    ("llama-3-8b", "80GB", {"batch_size": 16}, set(), {"batch-room"}),
    ("llama-3-8b", "80GB", {"method": "qlora"}, {"quantized-needlessly", "qlora-price"}, set()),
    ("llama-3-8b", "80GB", {"method": "dora"}, {"dora-before-evidence", "dora-dropout", "dora-serving"}, {"qlora-price"}),
    ("llama-3-8b", "80GB", {"rank": 63}, set(), {"rank-high"}),
    ("llama-3-8b", "80GB", {"rank": 64}, {"rank-high"}, {"alpha-small"}),
    ("llama-3-8b", "80GB", {"rank": 64, "alpha": 16}, {"rank-high", "alpha-small"}, set()),
    ("llama-3-8b", "80GB", {"rank": 8, "alpha": 1}, set(), {"alpha-small"}),
    ("llama-3-8b", "80GB", {"seq_len": 8192, "checkpointing": True}, set(), {"seq-beyond-positions"}),
    ("llama-3-8b", "80GB", {"seq_len": 8193, "checkpointing": True}, {"seq-beyond-positions"}, set()),
    ("llama-3.2-1b", "t4", {}, {"bf16-unsupported"}, set()),
    ("llama-3.2-1b", "t4", {"precision": "bf16"}, {"bf16-unsupported"}, set()),
    ("llama-3.2-1b", "24GB", {}, set(), {"bf16-unsupported"}),
    ("llama-3.2-1b", "24GB", {"method": "full", "precision": "fp16"}, {"fp16-weights-trained"}, set()),
    ("llama-3.2-1b", "80GB", {"grad_accum": 128}, set(), {"batch-high"}),
    ("llama-3.2-1b", "80GB", {"grad_accum": 129}, {"batch-high"}, set()),
    ("llama-3.2-1b", "80GB", {"grad_accum": 129, "method": "full"}, set(), {"batch-high"}),
    ("llama-3.2-1b", "80GB", {"target_modules": "q_proj,v_proj"}, {"targets-without-mlp"}, set()),
    ("llama-3.2-1b", "80GB", {"target_modules": "q_proj,down_proj"}, set(), {"targets-without-mlp"}),
    ("llama-3.2-1b", "80GB", {"loss": "chunked"}, {"loss-not-in-stack"}, set()),
    ("llama-3.2-1b", "80GB", {"loss": "chunked", "stack": "trl"}, set(), {"loss-not-in-stack"}),
    ("llama-3.2-1b", "80GB", {"loss": "fused"}, set(), {"loss-not-in-stack"}),
    ("gemma-2-9b", "80GB", {"attention": "sdpa"}, {"attention-unsupported"}, set()),
    ("gemma-2-9b", "80GB", {}, set(), {"attention-unsupported"}),
    ("llama-3.2-1b", "80GB", {"task": "rl", "dataset_tokens": 10**9}, {"rl-rank-and-rate"}, {"capacity-cpt", "capacity-suspect"}),
    ("llama-3.2-1b", "80GB", {}, {"full-pure-bf16"}, {"full-states"}),
    ("llama-3.2-1b", "80GB", {"precision": "bf16-amp"}, set(), {"full-pure-bf16"}),
    ("llama-3-8b", "80GB", {"method": "full"}, {"full-pure-bf16"}, set()),
    ("llama-3-8b", "80GB", {}, {"full-pure-bf16"}, set()),
    ("llama-70b", "80GB", {}, set(), {"full-pure-bf16"}),
    ("mixtral-8x7b", "80GB", {"stack": "trl", "method": "qlora"}, {"experts-not-modules"}, set()),
    ("llama-3-8b", "80GB", {"method": "qlora"}, set(), {"experts-not-modules"}),
]


@pytest.mark.parametrize(("model", "gpu", "options", "noticed", "silent"), ROWS, ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in ROWS])
def test_what_is_noticed(model: str, gpu: str, options: dict[str, Any], noticed: set[str], silent: set[str]) -> None:
    ids = set(found(model, gpu, **options))
    assert noticed <= ids
    assert not silent & ids


# Llama-3-8B has 2,621,440 LoRA parameters per rank (fact T7): 41.9 M at rank 16, 671 M at rank 256.
@pytest.mark.parametrize(
    ("tokens", "options", "id", "rank"),
    [
        (5_000_000, {}, "capacity-ample", 8),
        (26_000_000, {}, "capacity-test", 16),
        (100_000_000, {}, "capacity-suspect", 64),
        (100_000_000, {"rank": 64}, "capacity-test", 64),
        (100_000_000, {"task": "math"}, "capacity-suspect", 128),
        (400_000_000, {}, "capacity-suspect", 256),
        (1_000_000_000, {}, "capacity-cpt", 256),
        (20_000_000_000, {}, "capacity-deep-cpt", 256),
    ],
)
def test_capacity_ratio(tokens: int, options: dict[str, Any], id: str, rank: int) -> None:
    findings = found("llama-3-8b", "80GB", dataset_tokens=tokens, **{"rank": 16, **options})
    assert [name for name in findings if name.startswith("capacity")] == [id]
    numbers = findings[id].numbers
    assert numbers["params_per_rank"] == 2_621_440
    assert numbers["rho"] == pytest.approx(options.get("rank", 16) * 2_621_440 / tokens)
    assert numbers["rank_sized_to_data"] == rank


@pytest.mark.parametrize(
    ("tokens", "task", "rank"),
    # method-evidence examples for Llama-3.1-8B on all linear layers; clipped to 8 and 256
    [
        (5_000_000, None, 8),
        (26_000_000, None, 16),
        (100_000_000, None, 64),
        (400_000_000, None, 256),
        (10**9, None, 256),
        (1, Task.CODE, 8),
    ],
)
def test_rank_sized_to_the_data(tokens: int, task: Task | None, rank: int) -> None:
    assert rank_sized(tokens, 2_621_440, task) == rank


def test_what_keeping_fp32_weights_costs() -> None:
    """Llama 3.2 1B has 1,235,814,400 parameters: two more bytes each for Kahan's compensation, twice the states with fp32 weights."""
    numbers = found("llama-3.2-1b", "80GB")["full-pure-bf16"].numbers
    rungs = advise(load_model("llama-3.2-1b"), load_gpu("80GB"), Request()).rungs
    rung = next(rung for rung in rungs if rung.plan.method is Method.FULL)
    assert numbers["kahan_bytes"] - rung.memory.expected_bytes == 2 * 1_235_814_400
    assert numbers["fp32_weights_bytes"] - rung.memory.expected_bytes > 8 * 1_235_814_400


def test_numbers_of_the_main_job() -> None:
    findings = found("llama-70b", "80GB")
    full = findings["full-states"].numbers
    assert full["pure_16bit_bytes"] == 8 * 70_553_706_496
    assert full["fp32_master_bytes"] == 16 * 70_553_706_496
    cure = findings["rank-no-cure"].numbers
    assert (cure["rank"], cure["lower_rank"]) == (16, 8)
    # half of the adapter: fp32 weights and gradients, and what the optimizer keeps of it
    assert 8 * 103_546_880 <= cure["saved_bytes"] <= 20 * 103_546_880
    assert cure["saved_bytes"] < cure["missing_bytes"] / 20
    upcast = findings["kbit-upcast"].numbers
    assert upcast["extra_bytes"] > 2 * 2 * 128_256 * 8192, "two more bytes for each parameter of embedding and head"


def test_every_finding_is_of_use() -> None:
    seen: set[str] = set()
    for model, gpu, options, _, _ in ROWS:
        for finding in found(model, gpu, **options).values():
            assert "\n" not in finding.message + finding.hint
            assert finding.message
            assert finding.hint or finding.numbers or finding.id == "estimate-note", finding.id
            seen.add(finding.id)
    assert len(seen) >= 20


def test_rules_are_an_ordered_tuple_of_functions_with_reasons() -> None:
    assert len(set(RULES)) == len(RULES)
    assert all(rule.__doc__ for rule in RULES)


# --- rules that speak of the estimate itself, on a made-up one -----------------------------------------------------------------------


def memory(plan: Plan, margin: float, notes: tuple[str, ...] = ()) -> MemoryBreakdown:
    """10 GiB and 1 MiB for each token, whatever the method."""
    size = 10 * GIB + plan.micro_batch_size * plan.seq_len_tokens * MIB + plan.rank * MIB
    phase = PhaseBytes(phase=Phase.BACKWARD, terms=(TermBytes(term=Term.ACTIVATIONS, bytes=size),))
    interval = Interval(low_share=margin, high_share=margin, source="made up")
    return MemoryBreakdown(source="estimate", phases=(phase,), reserved_slack_bytes=0, context_bytes=0, interval=interval, notes=notes)


@pytest.mark.parametrize(
    ("gib", "margin", "options", "noticed"),
    [
        (12.5, 0.0, {"seq_len": 2048}, {"fits-tightly": Level.WARNING}),
        (20.0, 0.0, {"seq_len": 2048}, {}),
        (12.2, 0.1, {"seq_len": 2048}, {"fit-uncertain": Level.WARNING, "rank-no-cure": Level.INFO}),
        (20.0, 0.2, {}, {"interval-wide": Level.WARNING}),
        (6.0, 0.0, {}, {"rank-no-cure": Level.INFO}),
        (12.2, 0.0, {"rank": 1024, "seq_len": 2048}, {"rank-heavy": Level.WARNING}),
        (6.0, 0.0, {"rank": 1}, {}),
        (20.0, 0.0, {"method": "lora"}, {}),
    ],
)
def test_rules_about_the_estimate(
    gib: float, margin: float, options: dict[str, Any], noticed: dict[str, Level], monkeypatch: pytest.MonkeyPatch
) -> None:
    price_by(monkeypatch, lambda model, plan, gpu: memory(plan, margin))
    watched = {"fits-tightly", "fit-uncertain", "interval-wide", "rank-no-cure", "rank-heavy"}
    card = GpuSpec(name="card", vendor="nvidia", usable_bytes=round(gib * GIB), usable_source="test")
    findings = found("llama-70b", card, **options)
    assert {id: finding.level for id, finding in findings.items() if id in watched} == noticed


def test_quantising_that_saves_nothing_is_said() -> None:
    with pytest.MonkeyPatch.context() as patch:
        price_by(patch, lambda model, plan, gpu: memory(plan, 0))
        card = GpuSpec(name="card", vendor="nvidia", usable_bytes=40 * GIB, usable_source="test")
        findings = found("llama-3-8b", card, checkpointing=True)
    assert findings["quantized-not-smaller"].numbers["lora_bytes"] == findings["quantized-not-smaller"].numbers["qlora_bytes"]


def test_notes_of_the_estimate_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    price_by(monkeypatch, lambda model, plan, gpu: memory(plan, 0, ("one", "two")))
    answer = advise(load_model("llama-3-8b"), load_gpu("80GB"), Request())
    assert [finding.message for finding in answer.findings if finding.id == "estimate-note"] == ["one", "two"]


def test_full_rank_matrices_of_a_tiny_model_can_be_asked_for() -> None:
    """Rank as high as the smallest matrix: the warning, not a refusal."""
    config = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 64,
    }
    model: ModelSpec = spec_from_config(config, id="tiny", source="made by hand")
    answer = advise(model, load_gpu("80GB"), request_from({"rank": 128}))
    assert "rank-high" in {finding.id for finding in answer.findings}
