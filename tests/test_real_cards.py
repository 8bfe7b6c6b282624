"""The dry run of several cards beside real processes: torch's engines over gloo on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import real_card
import real_processes

from advisor.architectures import spec_from_config
from advisor.dryrun import trace
from advisor.memory import estimate_memory
from advisor.stacks.write_launch import ACCELERATE_FILE, launcher_files
from advisor.values import Phase, Plan, Term

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


LAUNCHED = [
    pytest.param("torchrun", {"sharding": "fsdp2", "n_gpus": 4, "grad_accum_steps": 2}, marks=pytest.mark.slow),
    pytest.param("torchrun", {"sharding": "ddp", "n_gpus": 2}, marks=pytest.mark.slow),
    pytest.param("accelerate", {"sharding": "fsdp2", "n_gpus": 2, "grad_accum_steps": 3, "sync_each_batch": True}, marks=pytest.mark.slow),
    pytest.param("accelerate", {"sharding": "fsdp2", "n_gpus": 4}, marks=pytest.mark.slow),
    pytest.param("accelerate", {"sharding": "ddp", "n_gpus": 4, "grad_accum_steps": 2}, marks=pytest.mark.slow),
]


def name_of(settings: object) -> str:
    return "-".join(map(str, settings.values())) if isinstance(settings, dict) else str(settings)


def check_beside(plan: Plan, said: str) -> None:
    """Every phase of a step, within one per cent; without gloo's own copies, which are made outside of torch's dispatcher."""
    held = dict(json.loads(said.splitlines()[-1]))
    model = spec_from_config(CONFIG, id="real", source="tests/real_card.py")
    found = real_card.live_peaks(trace(model, plan).stream)
    for phase, peak in found.items():
        print(f"{phase}: {peak / held[phase] - 1:+.3%} of {held[phase]:,}")
        if phase != "load":
            assert peak == pytest.approx(held[phase], rel=0.01), phase
    assert estimate_memory(model, plan).peak_allocated_bytes == pytest.approx(max(held.values()), rel=0.03)  # and its blocks


@pytest.mark.parametrize("settings", PLANS, ids=name_of)
@pytest.mark.sampled(1)
def test_live_bytes_beside_real_processes(settings: dict[str, object], tmp_path: Path) -> None:
    plan = Plan.model_validate({**FULL, **settings})
    check_beside(plan, real_processes.said("real_card.py", plan.n_gpus, tmp_path, json.dumps(CONFIG), plan.model_dump_json()))


@pytest.mark.parametrize(("launcher", "settings"), LAUNCHED, ids=name_of)
def test_live_bytes_of_launched_processes(launcher: str, settings: dict[str, object], tmp_path: Path) -> None:
    """Through torchrun, and through `accelerate launch` by the file that `advise config` writes."""
    plan = Plan.model_validate({**FULL, **settings})
    for name, text in launcher_files(plan).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    words = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", str(plan.n_gpus)],
        "accelerate": ["accelerate.commands.launch", "--config_file", str(tmp_path / ACCELERATE_FILE), "--main_process_port", "0"],
    }
    check_beside(plan, real_processes.said_through(words[launcher], "real_card.py", json.dumps(CONFIG), plan.model_dump_json()))


@pytest.mark.long
def test_what_lies_on_the_host_beside_real_processes(tmp_path: Path) -> None:
    """Under torch's FSDP2 with `CPUOffloadPolicy`: in bf16 exactly eight bytes a parameter over the cards."""
    plan = Plan.model_validate({**FULL, "base_dtype": "bf16", "sharding": "fsdp2", "n_gpus": 2, "offload": ("optimizer", "params")})
    held = int(real_processes.said("real_offload.py", 2, tmp_path, json.dumps(CONFIG), "2"))
    model = spec_from_config(CONFIG, id="real", source="tests/test_real_cards.py")
    host = estimate_memory(model, plan).host
    assert host is not None
    resting = sum(term.bytes for term in host.training if term.term is not Term.TEMPORARIES) / host.processes
    assert resting == 8 * model.params // 2
    assert held == pytest.approx(resting, rel=0.03)


NARROW = {**CONFIG, "vocab_size": 1024, "hidden_size": 1024, "intermediate_size": 3072}
"""Layers that outweigh the head, so that backward peaks inside one."""
ACCUMULATING = [
    {"sharding": "fsdp2", "n_gpus": 4, "grad_accum_steps": 3},
    {"sharding": "fsdp2", "n_gpus": 4, "grad_accum_steps": 3, "base_dtype": "bf16", "autocast": True, "masters": "lifted"},
    {"sharding": "fsdp2", "n_gpus": 4, "grad_accum_steps": 3, "sync_each_batch": True},
    {"grad_accum_steps": 3, "base_dtype": "bf16"},
]


@pytest.mark.parametrize("settings", ACCUMULATING, ids=name_of)
@pytest.mark.sampled(2)
def test_gradients_go_into_those_of_earlier_micro_batches(settings: dict[str, object]) -> None:
    """Live bytes of backward in the closed form: a gradient is added in place when it is there, and no layer's stay beside the sum."""
    plan = Plan.model_validate({**FULL, "seq_len_tokens": 64, **settings})
    model = spec_from_config(NARROW, id="narrow", source="tests/test_real_cards.py")
    held = real_card.live_peaks(trace(model, plan).stream)["backward"]
    said = next(each.allocated_bytes for each in estimate_memory(model, plan).phases if each.phase is Phase.BACKWARD)
    assert said == pytest.approx(held, rel=0.002)
