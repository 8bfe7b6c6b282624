"""Set-ups of several cards that were called a fit and die: each as its user asks for it, and what is true of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor import Plan, UnsupportedError, advise, estimate
from advisor.cli.run import run
from advisor.configs import check
from advisor.units import GIB
from advisor.values import Fit, Phase, Sharding


def test_gradients_stay_whole_between_the_trainer_s_micro_batches() -> None:
    """Qwen2.5-32B, full, on 8 cards of 80 GB with two micro-batches: 91.6 GiB (a dry run of that loop; torch's own units)."""
    asked = {
        "gpus": 8,
        "method": "full",
        "shard": "fsdp2",
        "batch_size": 1,
        "seq_len": 2048,
        "checkpointing": True,
        "sync_each_batch": False,
    }
    deferred, at_once = (advise("qwen2.5-32b", "80GB", **asked, grad_accum=steps).rungs[0] for steps in (2, 1))
    assert deferred.fit is not Fit.FITS
    assert deferred.memory.peak_allocated_bytes / GIB > 79.1  # with the units of accelerate, which gather less at once
    assert at_once.fit is Fit.FITS


def test_the_ladder_offers_what_reduces_at_once() -> None:
    chosen = advise("qwen2.5-32b", "80GB", gpus=8, method="full").chosen
    assert chosen is not None
    assert chosen.plan.sharding.shards_weights
    assert chosen.plan.sync_each_batch or chosen.plan.grad_accum_steps == 1


def test_the_ladder_reduces_each_micro_batch_where_the_batch_is_fixed() -> None:
    rung = advise("qwen2.5-32b", "80GB", gpus=8, method="full", batch_size=1, grad_accum=2, seq_len=2048).rungs[0]
    assert rung.plan.sync_each_batch
    assert rung.memory.peak_allocated_bytes / GIB < 79.1


def test_mixed_precision_under_fsdp_keeps_masters(tmp_path: Path) -> None:
    """Mistral-7B, full, bf16, two cards: a published run of these settings holds 67.46 GiB (fms-acceleration, full-2gpu-bs4)."""
    train = {"model_name_or_path": "mistralai/Mistral-7B-v0.1", "dtype": "bfloat16", "bf16": True, "max_length": 4096}
    more = {
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": True,
        "optim": "adamw_torch",
        "attn_implementation": "flash_attention_2",
    }
    (tmp_path / "train.yaml").write_text(json.dumps({**train, **more}), encoding="utf-8")
    launch = {"distributed_type": "FSDP", "num_processes": 2, "compute_environment": "LOCAL_MACHINE", "mixed_precision": "bf16"}
    (tmp_path / "launch.yaml").write_text(json.dumps({**launch, "fsdp_config": {"fsdp_version": 1}}), encoding="utf-8")
    report = check(tmp_path / "train.yaml", "80GB", stack="trl", accelerate=str(tmp_path / "launch.yaml"))
    assert report.plan.masters.value == "lifted"
    assert report.memory.peak_allocated_bytes / GIB == pytest.approx(67.46, rel=0.01)


def test_a_quantised_70b_does_not_load_on_four_cards_of_24_gb() -> None:
    """bitsandbytes makes the weights on the card, whole, whatever shares them later."""
    rung = advise("llama-70b", "24GB", gpus=4, method="qlora").rungs[0]
    assert rung.fit is Fit.DOES_NOT_FIT
    shared = estimate("llama-70b", gpus=4, method="qlora", shard=Sharding.FSDP2, kbit_prepare=False, grad_accum=1)
    assert shared.peak_phase is Phase.LOAD
    assert shared.peak_allocated_bytes > 35 * GIB  # 70.6 billion parameters in 4.127 bits, embeddings and head in 16


def test_estimate_says_and_takes_the_engine() -> None:
    found = [estimate("llama-3-8b", gpus=8, method="full", shard=engine).peak_allocated_bytes for engine in ("ddp", "fsdp2")]
    assert found[0] > 2 * found[1]
    assert estimate("llama-3-8b", gpus=8, method="full").peak_allocated_bytes == found[0]  # what is left out is DDP, and said


def test_nothing_gathered_is_counted_in_the_optimizer_s_step() -> None:
    memory = estimate("mistral-7b", gpus=2, method="full", shard=Sharding.FSDP1, seq_len=4096, batch_size=4, grad_accum=1)
    step = next(phase for phase in memory.phases if phase.phase is Phase.OPTIMIZER_STEP)
    # 2 + 2 + 4 bytes a parameter over two cards: weights, gradients and two moments, of a fused optimizer without temporaries
    assert step.allocated_bytes == pytest.approx(8 * 7_241_732_096 / 2, rel=0.01)


def test_the_dry_run_of_deepspeed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Its one other answer would be the memory of one card."""
    assert run(["trace", "--model", "qwen2.5-0.5b", "--gpu", "24GB", "--gpus", "4", "--shard", "zero3"]) == 2
    assert "does not run DeepSpeed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "sharding", "adapter", "masters", "stops"),
    [
        ("dora", "fsdp1", "bf16", "lifted", True),
        ("qdora", "fsdp1", "bf16", "lifted", True),
        ("dora", "fsdp1", "fp32", "lifted", False),
        ("dora", "fsdp1", "bf16", "none", False),
        ("dora", "fsdp2", "bf16", "lifted", False),
        ("lora", "fsdp1", "bf16", "lifted", False),
    ],
)
def test_a_step_that_torch_refuses_has_no_price(method: str, sharding: str, adapter: str, masters: str, stops: bool) -> None:
    """Two processes over gloo, torch 2.13: "expected dtype float for `end` but got dtype c10::BFloat16" in AdamW's step of DoRA alone."""
    quantized = {"quantization": "nf4"} if method == "qdora" else {}
    plan = Plan.model_validate(
        {"method": method, "sharding": sharding, "adapter_dtype": adapter, "masters": masters, "n_gpus": 2, "autocast": True, **quantized}
    )
    if stops:
        with pytest.raises(UnsupportedError, match="stops at the first optimizer step"):
            estimate("llama-3.2-1b", plan)
    else:
        assert estimate("llama-3.2-1b", plan).peak_allocated_bytes > 0


def test_a_quantised_base_that_is_whole_while_it_loads_is_said_to_be() -> None:
    """Beside ZeRO-3's LoRA, whose 16-bit weights come in parts: 131 GiB over 8 cards are less than 70.6 billion in 4 bit."""
    findings = {each.id: each for each in advise("llama-70b", "80GB", gpus=8, method="lora", shard="zero3").findings}
    found = findings["quantized-not-smaller"]
    assert "whole on each card" in found.message
    assert not found.hint
