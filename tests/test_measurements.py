"""The measured runs: every row loads, says where it is from, and what is scored maps to a plan."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from advisor.accuracy import MeasuredPlan, Measurement, Metric, closed_form, measurements, plan_of, recorded_dry_run, recorded_in
from advisor.devices import load_gpu
from advisor.errors import UnsupportedError
from advisor.hub import load_model
from advisor.units import MIB
from advisor.values import Attention, DType, Loss, Masters, Method, Optimizer, Plan, Quantization, Sharding, Stack

ROWS = measurements()
BY_ID = {row.id: row for row in ROWS}
SCORED = [row for row in ROWS if row.scored]
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")

# id → the plan it ran, field by field where it is not Plan's default
PLANS = {
    "rtx4080-Qwen2.5-7B-Instruct_qlora_s1024_b1_r16_steps2": Plan(
        method=Method.QLORA,
        rank=16,
        alpha=16,
        target_modules=QKVO,
        quantization=Quantization.NF4,
        double_quant=True,
        kbit_prepare=True,
        optimizer=Optimizer.PAGED_ADAMW_8BIT,
        seq_len_tokens=1024,
        stack=Stack.PLAIN,
    ),
    "peft-metamathqa-lora--llama-3.2-3B-rank32-dora-2026-07-15": Plan(
        method=Method.DORA,
        rank=32,
        alpha=64,
        target_modules=("q_proj", "v_proj"),
        micro_batch_size=4,
        seq_len_tokens=683,
        gradient_checkpointing=False,
        padding=True,
        kv_cache_in_outputs=True,
        stack=Stack.PLAIN,
    ),
    "peft-metamathqa-full-finetuning--llama-3.2-3B-lr_0.00001-2025-06-20": Plan(
        method=Method.FULL,
        micro_batch_size=4,
        seq_len_tokens=683,
        gradient_checkpointing=False,
        padding=True,
        kv_cache_in_outputs=True,
        stack=Stack.PLAIN,
    ),
    "fitcheck-t4-0915-smollm2-360m-nf4-eager-bs1-s4096": Plan(
        method=Method.QLORA,
        rank=32,
        alpha=64,
        target_modules=QKVO,
        base_dtype=DType.FP16,
        quantization=Quantization.NF4,
        double_quant=False,
        kbit_prepare=True,
        seq_len_tokens=4096,
        attention=Attention.EAGER,
        stack=Stack.PLAIN,
    ),
    "fitcheck-t4-0915-tinyllama-1.1b-chat-v1.0-none-sdpa-bs2-s1024": Plan(
        method=Method.LORA,
        rank=32,
        alpha=64,
        target_modules=QKVO,
        base_dtype=DType.FP16,
        micro_batch_size=2,
        seq_len_tokens=1024,
        attention=Attention.MEM_EFFICIENT,
        stack=Stack.PLAIN,
    ),
    "fmsacc-main-mistral-7b-v0.1-none-full-1gpu-bs4-bfloat16": Plan(
        method=Method.FULL, micro_batch_size=4, seq_len_tokens=4096, attention=Attention.FLASH
    ),
    "fmsacc-main-mistral-7b-v0.1-accelerated-peft-bnb-qlora-1gpu-bs8-bfloat16": Plan(
        method=Method.QLORA,
        rank=16,
        alpha=16,
        target_modules=QKVO,
        quantization=Quantization.NF4,
        autocast=True,
        micro_batch_size=8,
        seq_len_tokens=4096,
        attention=Attention.FLASH,
    ),
    "fmsacc-liger-mistral-7b-v0.1-foak-fast-kernels-full-4gpu-bs8-bfloat16": Plan(
        method=Method.FULL,
        autocast=True,
        micro_batch_size=8,
        seq_len_tokens=4096,
        attention=Attention.FLASH,
        loss=Loss.IN_PLACE,
        n_gpus=4,
        sharding=Sharding.FSDP1,
        masters=Masters.LIFTED,
        use_reentrant=True,
    ),
    "fmsacc-main-llama-2-70b-hf-none-lora-2gpu-bs2-bfloat16": Plan(
        rank=16,
        alpha=16,
        target_modules=QKVO,
        micro_batch_size=2,
        seq_len_tokens=4096,
        attention=Attention.FLASH,
        n_gpus=2,
        sharding=Sharding.FSDP1,
        use_reentrant=True,
    ),
    "fmsacc-liger-mistral-7b-v0.1-foak-fast-kernels-liger-full-1gpu-bs32-bfloat16": Plan(
        method=Method.FULL,
        autocast=True,
        micro_batch_size=32,
        seq_len_tokens=4096,
        attention=Attention.FLASH,
        loss=Loss.FUSED,
    ),
}

# id, metric, length, bytes: transcribed numbers
READINGS = [
    ("rtx4080-Qwen2.5-0.5B-Instruct_lora_s1024_b1_r16_steps3", Metric.ALLOCATED, None, 3256014707),
    ("rtx4080-Qwen2.5-0.5B-Instruct_lora_s1024_b1_r16_steps3", Metric.RESERVED, None, 4074742848),
    ("peft-metamathqa-lora--llama-3.2-3B-rank32-2025-06-17", Metric.RESERVED, 683, 22273851392),
    ("peft-metamathqa-lora--llama-3.2-3B-rank32-2025-06-19", Metric.RESERVED, 683, 22273851392),
    ("peft-metamathqa-lora--llama-3.2-3B-rank32-2025-06-19", Metric.RESERVED, 485, 17710763212),
    ("fmsacc-main-mistral-7b-v0.1-none-lora-1gpu-bs4-bfloat16", Metric.ALLOCATED, None, 26704571904),
    ("fmsacc-main-mistral-7b-v0.1-none-lora-1gpu-bs4-bfloat16", Metric.PROCESS, None, 29576 * MIB),
    ("fitcheck-t4-0916-tinyllama-1.1b-chat-v1.0-nf4-sdpa-bs1-s1024", Metric.PROCESS, None, round(2174.875 * MIB)),
    ("litgpt-hub-gemma-2b-lora-1xa10g", Metric.ALLOCATED, None, 12_620_000_000),
    ("qwen-1.8b-full-parameter-1024", Metric.UNKNOWN, None, 43_500_000_000),
]


def test_every_row_loads_and_ids_are_unique():
    assert len(ROWS) == len(measurements()) == 454
    assert [row_id for row_id, count in Counter(row.id for row in ROWS).items() if count > 1] == []
    assert Counter(row.kind for row in ROWS) == {"run": 356, "boundary": 98}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_has_a_source_and_a_reason_or_a_plan(row):
    assert row.source
    assert row.scored or row.reason
    assert row.kind == "boundary" or row.readings
    if row.card is not None:
        assert load_gpu(row.card).name == row.card
    if row.scored:
        lengths = {reading.seq_len_tokens for reading in row.readings} or {None}
        plans = [plan_of(row, length) for length in lengths]
        assert all(plan.n_gpus == row.n_gpus and (row.peft_config or plan.method.value == row.settings.method) for plan in plans)
        assert row.card is not None


def test_what_is_scored():
    """The RTX 4080, L40S and T4 rows and the A100 rows without GPTQ; boundaries whose plan is known."""
    counts = Counter((row.source.removeprefix("github.com/"), row.kind, row.grade) for row in SCORED)
    assert counts == {
        ("DaoyuanLi2816/can-i-finetune-this", "run", "A"): 4,
        ("huggingface/peft", "run", "A"): 13,
        ("Anassbzdd/fitcheck", "run", "A"): 26,
        ("Anassbzdd/fitcheck", "run", "B"): 3,
        ("foundation-model-stack/fms-acceleration", "run", "A"): 16,
        ("foundation-model-stack/fms-acceleration", "run", "B"): 69,
        ("Anassbzdd/fitcheck", "boundary", "A"): 4,
        ("foundation-model-stack/fms-acceleration", "boundary", "B"): 33,
    }


@pytest.mark.parametrize(("row_id", "plan"), PLANS.items())
def test_rows_map_to_plans(row_id, plan):
    row = BY_ID[row_id]
    lengths = [reading.seq_len_tokens for reading in row.readings if reading.seq_len_tokens]
    assert plan_of(row, max(lengths, default=None)) == plan


@pytest.mark.parametrize(("row_id", "metric", "length", "size_bytes"), READINGS)
def test_transcribed_numbers(row_id, metric, length, size_bytes):
    found = [reading.bytes for reading in BY_ID[row_id].readings if (reading.metric, reading.seq_len_tokens) == (metric, length)]
    assert found == [size_bytes]


def test_stages_are_kept():
    stages = {stage.name: stage for stage in BY_ID["rtx4080-Qwen2.5-7B-Instruct_qlora_s1024_b1_r16_steps2"].stages}
    assert stages["after_load"].allocated_bytes == 7742752293
    assert stages["after_first_backward"].max_allocated_bytes == 10709823075
    assert len(stages) == 8


def test_readings_that_mean_something_else_are_not_scored():
    for row in ROWS:
        for reading in row.readings:
            assert reading.scored or reading.reason, row.id
            if reading.bytes_high or reading.metric is Metric.UNKNOWN or "nvidia-smi sample" in reading.what:
                assert not reading.scored, row.id
            if "mean of" in reading.what or "percentile" in reading.what:
                assert reading.scored == (row.stated["empty_cache_every_n_steps"] == 1), row.id


def test_a_row_that_leaves_something_out_names_it():
    row = BY_ID["fmsacc-main-mistral-7b-v0.1-none-lora-1gpu-bs4-bfloat16"]
    silent = row.model_copy(update={"settings": row.settings.model_copy(update={"attention": None, "alpha": None})})
    with pytest.raises(UnsupportedError, match="attention, alpha not stated"):
        plan_of(silent)
    unknown = row.model_copy(update={"settings": row.settings.model_copy(update={"method": "lomo"})})
    with pytest.raises(UnsupportedError, match="lomo is not one of the priced methods"):
        plan_of(unknown)


def test_an_adapter_that_no_plan_says_is_for_the_dry_run_alone():
    row = BY_ID["peft-metamathqa-ia3--llama-3.2-3B-default-2026-01-10"]
    ran = MeasuredPlan(row, load_model(row.model), plan_of(row, 683), load_gpu(row.card))
    with pytest.raises(UnsupportedError, match="IA3 is not one of the priced methods"):
        closed_form(ran)
    assert recorded_dry_run(recorded_in(), ran).peak_reserved_bytes == pytest.approx(row.readings[0].bytes, rel=0.05)


@pytest.mark.parametrize(
    "broken", [{"scored": True, "reason": "why"}, {"scored": False}, {"source": ""}, {"readings": ()}, {"colour": "red"}]
)
def test_broken_rows_do_not_load(broken):
    fields = SCORED[0].model_dump() | broken
    with pytest.raises(ValidationError):
        Measurement.model_validate(fields)


def test_runs_with_bitsandbytes_ran_under_autocast():
    """The table of fms-acceleration says TRUE of each (column bf16 or fp16)."""
    rows = [row for row in ROWS if "fms-acceleration" in row.source and row.settings.quantization is not None]
    assert len(rows) >= 40
    assert [row.id for row in rows if not row.settings.autocast] == []


def test_who_holds_masters_is_said_of_every_sharded_run_that_is_scored():
    """torch keeps 16 bytes a trained parameter where mixed precision was on, 8 where it was off: measured after training."""
    sharded = [row for row in SCORED if row.settings.sharding is not Sharding.NONE]
    assert len(sharded) >= 60
    for row in sharded:
        assert row.settings.masters is (Masters.LIFTED if row.settings.autocast else Masters.NONE), row.id
        assert row.settings.use_reentrant, row.id
