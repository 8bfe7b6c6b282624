"""The host's memory, and the plans that use it: offload as a move of the ladder, and as a price in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor import advise, hub
from advisor.api import price
from advisor.devices import load_gpu
from advisor.errors import InvalidInputError
from advisor.memory import estimate_memory
from advisor.speed import step_time
from advisor.units import MIB
from advisor.values import Fit, Plan, Term

MODEL = hub.load_model("qwen2.5-32b")
CARD = load_gpu("rtx 4090")
FULL: dict[str, Any] = {"method": "full", "gpus": 8, "gpu": "24GB"}
OFFLOADED = ("optimizer", "params")

LOADING: list[tuple[dict[str, Any], int]] = [
    # plan on eight cards → models on the host at once, while it loads
    ({"sharding": "ddp"}, 8),
    ({"sharding": "fsdp2"}, 8),
    ({"sharding": "fsdp2", "loads_on_rank_0": True}, 1),  # transformers 5.23 modeling_utils.py: the others are on meta
    ({"sharding": "zero2", "masters": "copied"}, 8),
    ({"sharding": "zero3", "masters": "copied"}, 1),  # ditto `map_location`: the first process alone reads the weights
    ({"sharding": "fsdp2", "n_gpus": 64}, 8),  # a node of eight
    ({"sharding": "fsdp2", "method": "qlora", "quantization": "nf4"}, 0),  # each tensor goes to the card at once
]


@pytest.mark.parametrize(("settings", "models"), LOADING)
def test_models_on_the_host_while_they_load(settings: dict[str, Any], models: int) -> None:
    host = estimate_memory(MODEL, Plan.model_validate({"method": "full", "n_gpus": 8, **settings})).host
    assert host is not None
    assert host.load_bytes == pytest.approx(models * 2 * MODEL.params, rel=0.001)


def test_fsdp_keeps_eight_bytes_a_parameter_on_the_host() -> None:
    """In bf16: shards, gradients and two moments (torch distributed/fsdp/_fully_shard/_fsdp_param.py, `offload_to_cpu`)."""
    plan = Plan.model_validate({"method": "full", "n_gpus": 8, "sharding": "fsdp2", "offload": OFFLOADED, "optimizer": "adamw_torch_fused"})
    memory = estimate_memory(MODEL, plan)
    assert memory.host is not None
    assert sum(term.bytes for term in memory.host.training) == pytest.approx(8 * MODEL.params, rel=0.001)  # all of a node of eight
    resting = {term.term for phase in memory.phases for term in phase.terms}
    assert Term.OPTIMIZER not in resting


def test_one_card_has_no_host_side() -> None:
    assert estimate_memory(MODEL, Plan()).host is None


HOSTS = [
    # memory of the machine, whether the plan comes to fit, what it changes last
    ("2000GiB", Fit.FITS, "optimizer and params on the host"),
    ("300GiB", Fit.DOES_NOT_FIT, ""),  # eight models are loaded at once: 488 GiB
    (None, Fit.DOES_NOT_FIT, ""),  # not known: nothing is promised of it
]


@pytest.mark.parametrize(("host_memory", "fit", "change"), HOSTS)
def test_offload_is_the_ladder_s_last_move_where_the_host_is_known(host_memory: str | None, fit: Fit, change: str) -> None:
    rung = advise(MODEL, host_memory=host_memory, **FULL).rungs[0]
    assert rung.fit is fit
    if change:
        assert rung.changes[-1].what == change
        assert "GiB" in rung.changes[-1].cost


def test_what_crosses_the_bus_takes_time() -> None:
    settings = {"method": "full", "n_gpus": 8, "sharding": "fsdp2", "optimizer": "adamw_torch_fused"}
    plain, offloaded = (step_time(MODEL, Plan.model_validate({**settings, "offload": off}), CARD) for off in ((), OFFLOADED))
    assert plain is not None
    assert offloaded is not None
    least_s = 2 * MODEL.params * 2 / 8 / 31.5e9  # the weights are gathered twice, each card's share at the bus's line rate
    assert offloaded.seconds_per_step.low > plain.seconds_per_step.low + least_s
    assert offloaded.seconds_per_step.high > plain.seconds_per_step.high


def test_a_machine_that_has_too_little_turns_the_verdict() -> None:
    options = {"method": "lora", "gpus": 8, "shard": "fsdp", "gpu": "80GB", "checkpointing": True}
    assert price(MODEL, **options).fit is Fit.FITS
    held = price(MODEL, host_memory="128GiB", **options)
    assert held.fit is Fit.DOES_NOT_FIT
    assert any("cpu_ram_efficient_loading" in note for note in held.memory.notes)


@pytest.mark.parametrize("option", [{"host_memory": "64GiB"}, {"offload": "optimizer,params", "shard": "zero3", "gpus": 2}])
def test_what_does_not_look_at_the_host_says_so(option: dict[str, Any], tmp_path: Path) -> None:
    """Backwards and in a sweep a plan that fits its cards and not their host would be called a fit."""
    pytest.importorskip("pyarrow")
    from advisor import fit, sweep

    with pytest.raises(InvalidInputError, match="does not look at the host"):
        fit("llama-3-8b", "24GB", seq_len="max", method="full", **option)
    grid = {"model": "llama-3-8b", "gpu": "24GB", "method": "full", **option}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="does not look at the host"):
        sweep(tmp_path / "grid.yaml", tmp_path / "out.csv")


@pytest.mark.parametrize(("said", "expected"), [(None, Fit.UNCERTAIN), ("64GiB", Fit.DOES_NOT_FIT), ("2TiB", Fit.FITS)])
def test_states_on_a_host_that_nobody_told_of_are_open(said: str | None, expected: Fit) -> None:
    options = {"method": "full", "gpus": 8, "shard": "zero3", "offload": "optimizer,params", "gpu": "80GB"}
    assert price(MODEL, **options, **({"host_memory": said} if said else {})).fit is expected


COMMUNICATORS = [
    # cards, settings → MiB beside the allocator (github.com/NVIDIA/nccl/issues/964: 544 for a group of two, 688 for more)
    (1, {}, 0),
    (2, {"sharding": "ddp"}, 544),
    (8, {"sharding": "fsdp2"}, 688),
    (16, {"sharding": "fsdp2", "shard_group": 8}, 3 * 688),
]


@pytest.mark.parametrize(("cards", "settings", "mib"), COMMUNICATORS)
def test_communicators_are_in_the_process_alone(cards: int, settings: dict[str, Any], mib: int) -> None:
    plan = Plan.model_validate({"n_gpus": cards, **settings})
    memory = estimate_memory(hub.load_model("llama-3-8b"), plan, load_gpu("a100 80gb sxm"))
    assert memory.communicator_bytes == mib * MIB
    assert memory.process_bytes == memory.peak_reserved_bytes + memory.context_bytes + mib * MIB
    unknown = estimate_memory(hub.load_model("llama-3-8b"), plan)
    assert unknown.interval.context_bytes >= memory.interval.context_bytes


def test_frozen_weights_under_zero_3_are_page_locked_one_by_one() -> None:
    """DeepSpeed 0.19.8 partition_parameters.py `_partition_param`: a flat buffer holds what is trained alone. By hand, Llama-3.1-70B's
    halves of 8,192 by 28,672 in 16 bit are 224 MiB, in 256 MiB; one buffer for all, 66 GiB, would be 128 GiB."""
    settings = {"pin_memory": True}
    plan = Plan.model_validate(
        {"method": "lora", "n_gpus": 2, "sharding": "zero3", "masters": "copied", "offload": OFFLOADED, "deepspeed": settings}
    )
    host = estimate_memory(hub.load_model("llama-3.1-70b"), plan).host
    assert host is not None
    weights = next(term.bytes for term in host.training if term.term is Term.WEIGHTS)
    assert 0.05 * weights < host.rounding_bytes < 0.25 * weights
