"""The dry run of several cards: rank 0 of N under torch's own engines, on meta tensors."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist

from advisor import hub
from advisor.api import advise_and_trace
from advisor.architectures import spec_from_config
from advisor.dryrun import trace
from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.units import GIB
from advisor.values import MemoryBreakdown, ModelSpec, Phase, Plan, Term

FULL = {"method": "full", "seq_len_tokens": 2048, "optimizer": "adamw_torch_fused"}
LORA = {"method": "lora", "optimizer": "adamw_torch_fused", "micro_batch_size": 4}
LIFTED = {"autocast": True, "masters": "lifted"}
SMALL = {"seq_len_tokens": 256, "sharding": "fsdp2", "n_gpus": 4}


def cut(name: str, layers: int) -> ModelSpec:
    """The first layers of a known model."""
    spec = hub.load_model(name)
    config = {"model_type": spec.model_type, "architectures": [spec.architecture], **json.loads(spec.config_json)}
    return spec_from_config({**config, "num_hidden_layers": layers}, id=f"{name}, {layers} layers", source="cut")


def allocated(memory: MemoryBreakdown, which: Phase) -> int:
    return next(phase.allocated_bytes for phase in memory.phases if phase.phase is which)


# Another script's dry runs of the units that accelerate 1.15 makes, and of torch's FSDP1 (tests/test_sharding.py names them).
# Model, layers, settings, cards → GiB of forward, backward, optimizer step.
SEEN = [
    ("llama-3.1-8b", 4, {**FULL, "sharding": "fsdp2"}, 8, (5.890, 5.401, 1.809)),
    ("llama-3.1-8b", 8, {**FULL, **LIFTED, "sharding": "fsdp2"}, 8, (8.513, 8.024, 5.223)),
    ("llama-3.1-8b", 8, {**LORA, **LIFTED, "sharding": "fsdp2"}, 8, (13.114, 14.030, 0.688)),
    (
        "mistral-7b",
        8,
        {**FULL, "seq_len_tokens": 4096, "micro_batch_size": 2, "attention": "flash", "optimizer": "adamw_torch", "sharding": "fsdp1"},
        2,
        (9.306, 10.656, 9.362),
    ),
]


@pytest.mark.parametrize(("name", "layers", "plan", "cards", "gib"), SEEN)
def test_beside_another_dry_run_of_the_engines(name: str, layers: int, plan: dict[str, object], cards: int, gib: tuple[float, ...]) -> None:
    memory = trace(cut(name, layers), Plan.model_validate({**plan, "n_gpus": cards})).breakdown
    for which, seen in zip((Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER_STEP), gib, strict=True):
        assert allocated(memory, which) / GIB == pytest.approx(seen, rel=0.003), which


ENGINES = [
    {"method": "full", "sharding": "fsdp2"},
    {"method": "full", "sharding": "fsdp2", "grad_accum_steps": 4},
    {"method": "dora", "sharding": "fsdp2"},
    {"method": "qlora", "quantization": "nf4", "sharding": "fsdp2", "autocast": True},
    {"method": "full", "sharding": "fsdp1", **LIFTED},
    {"method": "lora", "adapter_dtype": "bf16", "sharding": "fsdp1"},
    {"method": "full", "sharding": "ddp", "grad_accum_steps": 2},
    {"method": "lora", "sharding": "ddp"},
]


@pytest.mark.parametrize("plan", ENGINES, ids=lambda plan: "-".join(str(value) for value in plan.values()))
@pytest.mark.sampled(3)
def test_what_rests_and_steps_is_what_the_closed_form_says(plan: dict[str, object]) -> None:
    """Weights, gradients and states of one of four cards in the optimizer's step, term by term."""
    model = cut("smollm2-360m", 4)
    said = Plan.model_validate({**plan, "seq_len_tokens": 256, "n_gpus": 4, "optimizer": "adamw_torch"})
    traced, priced = trace(model, said).breakdown, estimate_memory(model, said)
    assert allocated(traced, Phase.OPTIMIZER_STEP) == pytest.approx(allocated(priced, Phase.OPTIMIZER_STEP), rel=0.02, abs=4 << 20)
    steps = [next(phase for phase in memory.phases if phase.phase is Phase.OPTIMIZER_STEP) for memory in (traced, priced)]
    terms = [{term.term: term.bytes for term in step.terms} for step in steps]
    assert terms[0][Term.OPTIMIZER] == pytest.approx(terms[1][Term.OPTIMIZER], rel=0.02, abs=2 << 20)


def test_a_few_layers_show_what_many_do() -> None:
    """To the byte, reserved memory too: the cut that is repeated, and every layer played."""
    model, plan = cut("smollm2-360m", 9), Plan.model_validate({**SMALL, "method": "full", "grad_accum_steps": 3})
    cut_and_repeated, whole = (trace(model, plan, repeat_layers=says).layout for says in (True, False))
    assert cut_and_repeated.peaks.keys() == whole.peaks.keys()
    for phase, moment in whole.peaks.items():
        assert cut_and_repeated.peaks[phase].allocated_bytes == moment.allocated_bytes
    assert cut_and_repeated.peak_reserved_bytes == whole.peak_reserved_bytes


def test_more_cards_take_less_of_each() -> None:
    model = cut("smollm2-360m", 4)
    found = [trace(model, Plan.model_validate({**SMALL, "method": "full", "n_gpus": cards})).breakdown for cards in (2, 7, 64)]
    steps = [allocated(memory, Phase.OPTIMIZER_STEP) for memory in found]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 3 * steps[1] * 7 / 2 / 4  # 7 cards: two sevenths, up to what is padded and the workspaces


def test_libraries_are_left_as_they_were() -> None:
    address, resize = torch.Tensor.data_ptr, torch.UntypedStorage.resize_
    param_group = import_module("torch.distributed.fsdp._fully_shard._fsdp_param_group").FSDPParamGroup
    validates = param_group._validate_no_meta_params
    trace(cut("smollm2-360m", 2), Plan.model_validate({**SMALL, "method": "full"}))
    assert not hasattr(torch, "meta")
    assert not dist.is_initialized()
    assert (torch.Tensor.data_ptr, torch.UntypedStorage.resize_) == (address, resize)
    assert param_group._validate_no_meta_params is validates


def test_masters_that_the_installed_launcher_does_not_keep_are_refused() -> None:
    """accelerate lifts what is trained where precision is mixed (1.15 utils/fsdp_utils.py `fsdp2_prepare_model`)."""
    with pytest.raises(UnsupportedError, match="lifts what is trained to fp32"):
        trace(cut("smollm2-360m", 2), Plan.model_validate({**SMALL, "method": "full", "autocast": True}))


def test_the_recommended_rung_is_dry_run_on_several_cards() -> None:
    """`advise … --gpus 4 --trace`: where gradients are kept whole between micro-batches, the dry run keeps them too."""
    options = {"gpus": 4, "shard": "fsdp2", "method": "full", "seq_len": 256, "batch_size": 1, "grad_accum": 4, "checkpointing": True}
    answer = advise_and_trace(cut("smollm2-360m", 4), "24GB", **options)
    assert answer.memory is not None
    chosen = answer.advice.chosen
    assert chosen is not None
    assert chosen.plan.n_gpus == 4
    assert answer.memory.peak_allocated_bytes == pytest.approx(chosen.memory.peak_allocated_bytes, rel=0.02)


@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3"])
def test_deepspeed_is_refused_in_one_line(engine: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^sharding {engine}: trace does not run DeepSpeed; advise estimate prices it$"):
        trace(cut("smollm2-360m", 2), Plan.model_validate({**SMALL, "sharding": engine}))


WHOLE = [
    # units that stay whole between passes, gradients that are reduced in each micro-batch, groups of cards with replicas of their shards:
    # settings of full fine-tuning on four cards
    {"sharding": "fsdp2", "reshard_after_forward": False},
    {"sharding": "fsdp2", "reshard_after_forward": False, "stack": "plain"},
    {"sharding": "fsdp2", "sync_each_batch": True, "grad_accum_steps": 3},
    {"sharding": "fsdp1", "sync_each_batch": True, "grad_accum_steps": 3},
    {"sharding": "fsdp2", "n_gpus": 8, "shard_group": 4, **LIFTED},
    {"sharding": "fsdp2", "n_gpus": 8, "shard_group": 4, "grad_accum_steps": 2, "stack": "plain"},
]


@pytest.mark.parametrize("settings", WHOLE, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.sampled(3)
def test_what_stays_whole_is_priced_as_it_is_run(settings: dict[str, object]) -> None:
    model = cut("llama-3.1-8b", 4)
    plan = Plan.model_validate({**FULL, "n_gpus": 4, **settings})
    priced, run = estimate_memory(model, plan), trace(model, plan).breakdown
    for which in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER_STEP):
        assert allocated(priced, which) == pytest.approx(allocated(run, which), rel=0.003), which
