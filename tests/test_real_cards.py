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
from advisor.values import Plan, Term

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


def said_by_real_processes(script: str, cards: int, *arguments: str) -> str:
    """The last line of the first process."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen([sys.executable, str(HERE / script), str(rank), *arguments], env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(cards)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * cards
    return said[0].splitlines()[-1]


@pytest.mark.parametrize("settings", PLANS, ids=lambda settings: "-".join(str(value) for value in settings.values()))
def test_live_bytes_beside_real_processes(settings: dict[str, object], tmp_path: Path) -> None:
    """Of every phase of a step, within one per cent; without gloo's own copies, which are made outside of torch's dispatcher."""
    plan = Plan.model_validate({**FULL, **settings})
    held = dict(
        json.loads(said_by_real_processes("real_card.py", plan.n_gpus, str(tmp_path / "store"), json.dumps(CONFIG), plan.model_dump_json()))
    )
    model = spec_from_config(CONFIG, id="real", source="tests/real_card.py")
    for phase, peak in real_card.live_peaks(trace(model, plan).stream).items():
        if phase != "load":
            assert peak == pytest.approx(held[phase], rel=0.01), phase
    assert estimate_memory(model, plan).peak_allocated_bytes == pytest.approx(max(held.values()), rel=0.03)  # and its blocks


def test_what_lies_on_the_host_beside_real_processes(tmp_path: Path) -> None:
    """Under torch's FSDP2 with `CPUOffloadPolicy`: in bf16 exactly eight bytes a parameter over the cards."""
    plan = Plan.model_validate({**FULL, "base_dtype": "bf16", "sharding": "fsdp2", "n_gpus": 2, "offload": ("optimizer", "params")})
    held = int(said_by_real_processes("real_offload.py", 2, "2", str(tmp_path / "store"), json.dumps(CONFIG)))
    model = spec_from_config(CONFIG, id="real", source="tests/test_real_cards.py")
    host = estimate_memory(model, plan).host
    assert host is not None
    resting = sum(term.bytes for term in host.training if term.term is not Term.TEMPORARIES) / host.processes
    assert resting == 8 * model.params // 2
    assert held == pytest.approx(resting, rel=0.03)
