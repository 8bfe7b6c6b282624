"""Kept activations on the host: TRL's own manager in a dry run beside the closed form, what its files say, and what has no price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor import advise, hub
from advisor.api import price
from advisor.architectures import spec_from_config
from advisor.configs import check
from advisor.configs.emit import read_text, text_of
from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.stacks.reading import canonical
from advisor.values import Fit, MemoryBreakdown, Offload, Phase, Plan, Stack, Term

LAYERS, HIDDEN, TOKENS = 12, 512, 2048
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
SPEC = spec_from_config(CONFIG, id="small", source="tests/test_activations_away.py")
AWAY = {"offload": ("activations",)}
LORA: dict[str, Any] = {"stack": "trl", "seq_len_tokens": TOKENS, "autocast": True, "loss": "full"}
QLORA = {**LORA, "method": "qlora", "quantization": "nf4", "adapter_dtype": "bf16"}
FULL = {**LORA, "method": "full", "base_dtype": "fp32"}


def allocated(memory: MemoryBreakdown, phase: Phase) -> int:
    return next(entry.allocated_bytes for entry in memory.phases if entry.phase is phase)


@pytest.mark.long
@pytest.mark.parametrize(("settings", "entry_bytes"), [(LORA, 2), (QLORA, 2), (FULL, 4)], ids=["lora", "qlora", "full"])
def test_beside_trl_s_own_manager(settings: dict[str, Any], entry_bytes: int) -> None:
    """What it spares in each phase, within one layer's input."""
    pytest.importorskip("trl")
    from advisor.dryrun.dry_run import trace

    kept, away = (Plan.model_validate({**settings, **more}) for more in ({}, AWAY))
    entry = HIDDEN * TOKENS * entry_bytes
    for phase in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER_STEP):
        found = [allocated(trace(SPEC, plan).breakdown, phase) for plan in (kept, away)]
        priced = [allocated(estimate_memory(SPEC, plan), phase) for plan in (kept, away)]
        assert priced[0] - priced[1] == pytest.approx(found[0] - found[1], abs=1.05 * entry), phase
        assert priced[1] - found[1] >= priced[0] - found[0] - 0.6 * entry, phase  # spares no more than it does


def test_a_long_sequence_s_inputs_by_hand() -> None:
    """Llama-3.1-70B, LoRA, 32,768 tokens: 80 layers' inputs of 8,192 elements in 16 bit are 40 GiB; on the card some are left."""
    plan = Plan.model_validate({**LORA, "seq_len_tokens": 32_768, "loss": "chunked"})
    model = hub.load_model("llama-3.1-70b")
    kept, away = (estimate_memory(model, each) for each in (plan, plan.model_copy(update={"offload": (Offload.ACTIVATIONS,)})))
    entry = 32_768 * 8_192 * 2
    # at the last layer 77 others of them; the peak then moves to the first, where the gradients of 0.2 billion parameters are there too
    assert 75 * entry <= allocated(kept, Phase.BACKWARD) - allocated(away, Phase.BACKWARD) <= 77 * entry
    assert allocated(kept, Phase.FORWARD) - allocated(away, Phase.FORWARD) >= 70 * entry
    assert away.host is not None
    assert {term.term: term.bytes for term in away.host.training} == {Term.ACTIVATIONS: 80 * entry}
    assert away.host.rounding_bytes == 0  # a power of two
    assert kept.host is None


@pytest.mark.parametrize(("sharding", "masters"), [("fsdp2", "none"), ("zero3", "none"), ("ddp", "none")])
def test_every_engine_holds_what_waits_and_what_came_back(sharding: str, masters: str) -> None:
    """Beside one card's, whose forward holds five layers' inputs and the embeddings' output, and whose backward two beside its own."""
    model, entry = hub.load_model("llama-3.1-8b"), 8192 * 4096 * 2
    plan = Plan.model_validate({**LORA, "seq_len_tokens": 8192, "loss": "chunked", "n_gpus": 4, "sharding": sharding, "masters": masters})
    kept, away = (estimate_memory(model, each) for each in (plan, plan.model_copy(update={"offload": (Offload.ACTIVATIONS,)})))
    forward, backward = (allocated(kept, phase) - allocated(away, phase) for phase in (Phase.FORWARD, Phase.BACKWARD))
    # the last step's graph holds two more; the peak moves from the head into a layer
    assert 18 * entry <= forward <= (32 - 6 - 2 + 1.5) * entry
    assert 18 * entry <= backward <= (32 - 3 + 1) * entry


@pytest.mark.parametrize(
    ("told", "options", "fit"),
    [
        (None, {"seq_len": 8192}, Fit.FITS),  # less than the weights, which passed through the host
        ("2GiB", {"seq_len": 8192, "batch_size": 1}, Fit.DOES_NOT_FIT),
    ],
)
def test_the_host_is_asked_for_what_rests_there(told: str | None, options: dict[str, Any], fit: Fit) -> None:
    more = {"host_memory": told} if told else {}
    found = price(
        "llama-3-8b", method="lora", gpu="a100 80gb sxm", stack="trl", checkpointing=True, offload="activations", **options, **more
    )
    assert found.fit is fit


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stack": "hf"}, "no setting that moves activations"),
    ({"gradient_checkpointing": False}, "no closed form"),
]


@pytest.mark.parametrize(("more", "says"), REFUSED)
def test_what_has_no_price_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        estimate_memory(SPEC, Plan.model_validate({**LORA, **AWAY, **more}))


def test_a_file_says_it_and_is_written_so(tmp_path: Path) -> None:
    model = hub.load_model("llama-3-8b")
    plan = Plan.model_validate({**LORA, "loss": "chunked", "gradient_checkpointing": True, **AWAY})
    text = text_of(model, plan)
    assert "activation_offloading: true" in text
    assert canonical(read_text(model, Stack.TRL, text)) == canonical(plan)


TRL = {"model_name_or_path": "meta-llama/Meta-Llama-3-8B", "bf16": True, "max_length": 4096, "activation_offloading": True}


@pytest.mark.parametrize(("checkpointing", "priced"), [(True, True), (False, False)])
def test_without_checkpoints_it_is_named_and_not_priced(checkpointing: bool, priced: bool, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(json.dumps({**TRL, "gradient_checkpointing": checkpointing}), encoding="utf-8")
    report = check(tmp_path / "train.yaml", "80GB", stack="trl")
    assert report.plan.offloads_activations is priced
    assert any(finding.id == "not-priced" for finding in report.findings) is not priced


@pytest.mark.parametrize(
    ("adapter", "exit_code"), [({}, 0), ({"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}, 3)]
)
def test_axolotl_s_replaces_checkpoints_of_adapters(adapter: dict[str, Any], exit_code: int, tmp_path: Path) -> None:
    """axolotl 0.19 loaders/model.py `_apply_activation_checkpointing`: pure offload, which may hold more than checkpoints do."""
    settings = {
        "base_model": "Qwen/Qwen2.5-0.5B",
        "bf16": True,
        "sequence_len": 1024,
        "activation_offloading": True,
        "flash_attention": True,
        **adapter,
    }
    settings |= {"gradient_checkpointing": True, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "optimizer": "adamw_torch"}
    settings["datasets"] = [{"path": "x", "type": "alpaca"}]
    (tmp_path / "run.yaml").write_text(json.dumps(settings), encoding="utf-8")
    assert check(tmp_path / "run.yaml", "80GB", stack="axolotl").exit_code == exit_code


def test_the_ladder_keeps_what_was_asked_for() -> None:
    rung = advise("llama-3-8b", "24GB", method="qlora", stack="trl", offload="activations", checkpointing=True).rungs[0]
    assert rung.plan.offloads_activations
