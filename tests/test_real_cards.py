"""The dry run of several cards beside real processes: torch's engines over gloo on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import real_card

from advisor.architectures import spec_from_config
from advisor.dryrun import trace
from advisor.memory import estimate_memory
from advisor.values import Plan

HERE = Path(__file__).parent
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
"""Large enough that what CPU kernels do otherwise is below one per cent."""
FULL = {"method": "full", "base_dtype": "fp32", "attention": "eager", "micro_batch_size": 2, "seq_len_tokens": 256}
PLANS = [
    {"sharding": "fsdp2", "n_gpus": 2},
    {"sharding": "ddp", "n_gpus": 2, "grad_accum_steps": 2},
    pytest.param({"sharding": "fsdp2", "n_gpus": 2, "grad_accum_steps": 3}, marks=pytest.mark.slow),
    pytest.param({"sharding": "fsdp2", "n_gpus": 4, "stack": "plain"}, marks=pytest.mark.slow),
    pytest.param({"sharding": "fsdp2", "n_gpus": 4, "grad_accum_steps": 2}, marks=pytest.mark.slow),
    pytest.param({"sharding": "ddp", "n_gpus": 4}, marks=pytest.mark.slow),
]


def held_by_real_processes(plan: Plan, folder: Path) -> dict[str, int]:
    """Bytes that the first of the plan's processes held at the highest moment of each phase."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [str(folder / "store"), json.dumps(CONFIG), plan.model_dump_json()]
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "real_card.py"), str(rank), *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in range(plan.n_gpus)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * plan.n_gpus
    return dict(json.loads(said[0].splitlines()[-1]))


@pytest.mark.parametrize("settings", PLANS, ids=lambda settings: "-".join(str(value) for value in settings.values()))
def test_live_bytes_beside_real_processes(settings: dict[str, object], tmp_path: Path) -> None:
    """Of every phase of a step, within one per cent; without gloo's own copies, which are made outside of torch's dispatcher."""
    plan = Plan.model_validate({**FULL, **settings})
    held = held_by_real_processes(plan, tmp_path)
    model = spec_from_config(CONFIG, id="real", source="tests/real_card.py")
    for phase, peak in real_card.live_peaks(trace(model, plan).stream).items():
        if phase != "load":
            assert peak == pytest.approx(held[phase], rel=0.01), phase
    assert estimate_memory(model, plan).peak_allocated_bytes == pytest.approx(max(held.values()), rel=0.03)  # and its blocks
