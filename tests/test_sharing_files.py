"""How files share a model over cards: DeepSpeed's and accelerate's own read whole, and a plan's written so that they read back as it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor import hub
from advisor.configs import check
from advisor.configs.emit import read_text, text_of
from advisor.errors import InvalidInputError
from advisor.memory import estimate_memory
from advisor.stacks import defaults_of
from advisor.stacks.engines import reentrant_of
from advisor.stacks.reading import canonical
from advisor.stacks.write_sharing import BUFFERS, deepspeed_settings, sharing_settings
from advisor.values import Fit, Method, Plan, Sharding, Stack

MODEL = hub.load_model("llama-3-8b")
TRL: dict[str, Any] = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B",
    "bf16": True,
    "max_length": 512,
    "per_device_train_batch_size": 1,
}
AUTO = {"reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": "auto"}
ON_CPU = {"device": "cpu"}
PINNED = {"pin_memory": True}
"""By default (DeepSpeed 0.19.8 runtime/zero/offload_config.py)."""

DEEPSPEED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # DeepSpeed's file beyond bf16 → fields of the plan (DeepSpeed 0.19.8 runtime/zero/config.py; transformers 5.23 deepspeed.py)
    ({"stage": 1}, {"sharding": "zero1"}),
    ({"stage": 2, "reduce_bucket_size": 5e8}, {"sharding": "zero2"}),
    ({"stage": 2, "reduce_bucket_size": "auto"}, {"sharding": "zero2", "deepspeed": {"reduce_bucket_params": 4096**2}}),
    ({"stage": 2, "overlap_comm": True}, {"sharding": "zero2", "deepspeed": {"overlap_comm": True}}),
    (
        {"stage": 2, "offload_optimizer": ON_CPU, "offload_param": ON_CPU},
        {"sharding": "zero2", "offload": ["optimizer"], "deepspeed": PINNED},
    ),
    ({"stage": 3, **AUTO}, {"sharding": "zero3"}),
    (
        {"stage": 3},
        {
            "sharding": "zero3",
            "deepspeed": {"reduce_bucket_params": 500_000_000, "prefetch_params": 50_000_000, "persistence_params": 100_000},
        },
    ),
    (
        {"stage": 3, **AUTO, "offload_optimizer": {**ON_CPU, "pin_memory": True}, "offload_param": ON_CPU, "sub_group_size": 1e8},
        {"sharding": "zero3", "offload": ["optimizer", "params"], "deepspeed": {"sub_group_params": 100_000_000, "pin_memory": True}},
    ),
]


def plan_of(values: dict[str, Any], folder: Path, accelerate: dict[str, Any] | None = None, gpus: int = 16) -> Plan:
    path = folder / "train.yaml"
    path.write_text(json.dumps({**TRL, **values}), encoding="utf-8")
    more: dict[str, Any] = {"gpus": gpus}
    if accelerate is not None:
        (folder / "launch.yaml").write_text(json.dumps(accelerate), encoding="utf-8")
        more["accelerate"] = str(folder / "launch.yaml")
    return check(path, "80GB", **more).plan


def shown(plan: Plan) -> dict[str, Any]:
    names = ("sharding", "offload", "shard_group", "reshard_after_forward", "sync_each_batch", "deepspeed", "loads_on_rank_0")
    return plan.model_dump(mode="json", include=set(names), exclude_defaults=True)


@pytest.mark.parametrize(("zero", "expected"), DEEPSPEED)
def test_deepspeed_s_file_is_read_whole(zero: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": zero}), encoding="utf-8")
    assert shown(plan_of({"deepspeed": str(file)}, tmp_path)) == expected
    launch = {"distributed_type": "DEEPSPEED", "num_processes": 16, "deepspeed_config": {"deepspeed_config_file": str(file)}}
    assert shown(plan_of({}, tmp_path, launch)) == expected


FSDP: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # settings of transformers 5.23 TrainingArguments → fields of the plan
    ({"fsdp": "full_shard auto_wrap"}, {"sharding": "fsdp2"}),
    ({"fsdp": "full_shard auto_wrap offload"}, {"sharding": "fsdp2", "offload": ["optimizer", "params"]}),
    (
        {"fsdp": "full_shard", "fsdp_config": {"version": 1, "offload_params": True}},
        {"sharding": "fsdp1", "offload": ["optimizer", "params"]},
    ),
    ({"fsdp": "shard_grad_op auto_wrap"}, {"sharding": "fsdp2", "reshard_after_forward": False}),
    ({"fsdp": "full_shard", "fsdp_config": {"reshard_after_forward": False}}, {"sharding": "fsdp2", "reshard_after_forward": False}),
    ({"fsdp": "hybrid_shard auto_wrap"}, {"sharding": "fsdp2", "shard_group": 8}),
    ({"fsdp": "full_shard", "fsdp_config": {"cpu_ram_efficient_loading": True}}, {"sharding": "fsdp2", "loads_on_rank_0": True}),
    (
        {"fsdp": "full_shard", "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}},
        {"sharding": "fsdp2", "sync_each_batch": True},
    ),
]


@pytest.mark.parametrize(("file", "expected"), FSDP)
def test_fsdp_s_settings_are_read(file: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert shown(plan_of(file, tmp_path)) == expected


ACCELERATE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # accelerate 1.15 commands/config/config_args.py and utils/dataclasses.py
    (
        {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": True, "fsdp_reshard_after_forward": True}},
        {"sharding": "fsdp2", "offload": ["optimizer", "params"], "loads_on_rank_0": True},  # the launcher's own default
    ),
    (
        {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1, "fsdp_sharding_strategy": "SHARD_GRAD_OP"}},
        {"sharding": "fsdp1", "reshard_after_forward": False, "loads_on_rank_0": True},
    ),
    (
        {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1, "fsdp_sharding_strategy": "HYBRID_SHARD"}},
        {"sharding": "fsdp1", "shard_group": 8, "loads_on_rank_0": True},
    ),
    (
        {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2, "fsdp_cpu_ram_efficient_loading": False}},
        {"sharding": "fsdp2"},
    ),
    (
        {
            "distributed_type": "FSDP",
            "fsdp_config": {"fsdp_version": 2, "fsdp_cpu_ram_efficient_loading": False},
            "parallelism_config": {"parallelism_config_dp_replicate_size": 4, "parallelism_config_dp_shard_size": 4},
        },
        {"sharding": "fsdp2", "shard_group": 4},
    ),
    ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2}}, {"sharding": "zero2"}),
    (
        {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2, "offload_optimizer_device": "cpu"}},
        {"sharding": "zero2", "offload": ["optimizer"], "deepspeed": PINNED},
    ),
]


@pytest.mark.parametrize(("launch", "expected"), ACCELERATE)
def test_accelerate_s_configuration_is_read(launch: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert shown(plan_of({}, tmp_path, {"num_processes": 16, **launch})) == expected


REFUSED = [
    ({"tensor_parallel": {"autotp_size": 2}}, "tensor_parallel.autotp_size"),
    ({"sequence_parallel_size": 2}, "sequence_parallel_size"),
]


@pytest.mark.parametrize(("more", "key"), REFUSED)
def test_other_parallelism_is_refused_by_its_key(more: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=key):
        plan_of({"deepspeed": {"zero_optimization": {"stage": 3}, **more}}, tmp_path)


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ({"parallelism_config_tp_size": 2}, "parallelism_config_tp_size"),
        ({"parallelism_config_cp_size": 4}, "parallelism_config_cp_size"),
        ({"parallelism_config_sp_size": 4}, "parallelism_config_sp_size"),
        ({"parallelism_config_dp_replicate_size": 3, "parallelism_config_dp_shard_size": 4}, "are not the 16"),
    ],
)
def test_other_parallelism_of_accelerate_is_refused(inner: dict[str, int], says: str, tmp_path: Path) -> None:
    launch = {"distributed_type": "FSDP", "num_processes": 16, "fsdp_config": {"fsdp_version": 2}, "parallelism_config": inner}
    with pytest.raises(InvalidInputError, match=says):
        plan_of({}, tmp_path, launch)


def test_what_zero_keeps_besides_turns_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    zero = {"stage": 3, **AUTO, "zero_hpz_partition_size": 8}
    path.write_text(json.dumps({**TRL, "deepspeed": {"zero_optimization": zero}}), encoding="utf-8")
    report = check(path, "80GB", gpus=16)
    assert report.fit is Fit.UNCERTAIN
    assert any("zero_hpz_partition_size" in finding.message for finding in report.findings)


@pytest.mark.parametrize(("host_memory", "fit"), [("64GiB", Fit.DOES_NOT_FIT), ("2000GiB", Fit.FITS)])
def test_the_host_is_held_against_what_its_processes_load(host_memory: str, fit: Fit, tmp_path: Path) -> None:
    """8 models in fp32, 239 GiB; with one process that reads, a model."""
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps({**TRL, "fsdp": "full_shard auto_wrap"}), encoding="utf-8")
    report = check(path, "80GB", gpus=8, host_memory=host_memory)
    assert report.fit is fit
    assert report.memory.host is not None
    assert report.memory.host.load_bytes == 8 * report.plan.base_dtype.size_bytes * MODEL.params
    finding = next(each for each in report.findings if each.id == "host-memory")
    assert "cpu_ram_efficient_loading" in finding.hint
    mended = {**TRL, "fsdp": "full_shard auto_wrap", "fsdp_config": {"cpu_ram_efficient_loading": True}}
    path.write_text(json.dumps(mended), encoding="utf-8")
    assert check(path, "80GB", gpus=8, host_memory="64GiB").fit is Fit.FITS


# ------------------------------------------------------------------------------------------------------------ round trip

ZERO = st.fixed_dictionaries(
    {},
    optional={
        "reduce_bucket_params": st.integers(1, 10**9),
        "overlap_comm": st.booleans(),
        "fp32_gradients": st.booleans(),
    },
)
ZERO_3 = st.fixed_dictionaries(
    {},
    optional={
        "reduce_bucket_params": st.integers(1, 10**9),
        "prefetch_params": st.integers(0, 10**9),
        "persistence_params": st.integers(0, 10**6),
        "max_live_params": st.integers(0, 10**10),
        "max_reuse_params": st.integers(0, 10**10),
        "sub_group_params": st.integers(1, 10**10),
        "overlap_comm": st.booleans(),
    },
)
SHARED = st.one_of(
    st.fixed_dictionaries(
        {"sharding": st.sampled_from(["zero1", "zero2"]), "masters": st.just("copied"), "deepspeed": ZERO},
        optional={"offload": st.just(("optimizer",))},
    ),
    st.fixed_dictionaries(
        {"sharding": st.just("zero3"), "masters": st.just("copied"), "deepspeed": ZERO_3},
        optional={"offload": st.sampled_from([("optimizer",), ("optimizer", "params")])},
    ),
    st.fixed_dictionaries(
        {"sharding": st.just("fsdp2"), "masters": st.just("lifted")},
        optional={
            "offload": st.just(("optimizer", "params")),
            "reshard_after_forward": st.booleans(),
            "sync_each_batch": st.booleans(),
            "loads_on_rank_0": st.booleans(),
        },
    ),
)


@settings(max_examples=60, deadline=None)
@given(shared=SHARED, stack=st.sampled_from([Stack.TRL, Stack.HF]), alone=st.booleans())
def test_what_is_written_reads_back(shared: dict[str, Any], stack: Stack, alone: bool) -> None:
    n_gpus = 1 if alone and Sharding(shared["sharding"]).is_zero else 8
    first = Plan(method="lora", stack=stack, autocast=True, gradient_checkpointing=True, loss="chunked" if stack is Stack.TRL else "full")
    reentrant = reentrant_of(defaults_of(stack), Sharding(shared["sharding"]), adapter=True)
    plan = Plan.model_validate({**first.model_dump(), "n_gpus": n_gpus, "use_reentrant": reentrant, **shared})
    assert canonical(read_text(MODEL, stack, text_of(MODEL, plan))) == canonical(plan)


def test_transformers_takes_the_settings() -> None:
    transformers = pytest.importorskip("transformers")
    plan = Plan.model_validate(
        {"method": "full", "n_gpus": 8, "sharding": "fsdp2", "reshard_after_forward": False, "sync_each_batch": True}
    )
    arguments = transformers.TrainingArguments(output_dir="out", use_cpu=True, **sharing_settings(plan, defaults_of(Stack.HF)))
    assert arguments.fsdp_config["reshard_after_forward"] is False
    assert arguments.accelerator_config.gradient_accumulation_kwargs == {"sync_each_batch": True}


def test_deepspeed_takes_the_settings() -> None:
    runtime = pytest.importorskip("deepspeed.runtime.config", exc_type=ImportError)
    settings = {"reduce_bucket_params": 7, "overlap_comm": True, "sub_group_params": 9}
    plan = Plan.model_validate(
        {"method": "full", "n_gpus": 2, "sharding": "zero3", "masters": "copied", "offload": ("optimizer", "params"), "deepspeed": settings}
    )
    written = json.loads(json.dumps(deepspeed_settings(plan)).replace('"auto"', "1"))
    zero = runtime.DeepSpeedConfig({**written, "bf16": {"enabled": True}, "train_batch_size": 1}).zero_config
    assert (zero.stage, zero.reduce_bucket_size, zero.overlap_comm, zero.sub_group_size) == (3, 7, True, 9)
    assert (zero.offload_optimizer.device, zero.offload_param.device) == ("cpu", "cpu")


@pytest.mark.parametrize(("zero", "expected"), DEEPSPEED)
def test_deepspeed_on_one_card_is_read_the_same(zero: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert shown(plan_of({"deepspeed": {"bf16": {"enabled": True}, "zero_optimization": zero}}, tmp_path, gpus=1)) == expected


def test_nvme_leaves_buffers_on_the_host(tmp_path: Path) -> None:
    """Full fine-tuning of 8.03 billion on 8 cards: four fp32 buffers of a card's part, and its gradients in 16 bit, are 18 bytes for
    each of its parameters (swap_tensor/optimizer_utils.py `SwapBufferManager`, stage3.py `grad_partitions_flat_buffer`)."""
    hosts = []
    for device in ("cpu", "nvme"):
        away = {"device": device, "pin_memory": False, "nvme_path": "/local_nvme"}
        file = tmp_path / f"{device}.json"
        zero = {"stage": 3, **AUTO, "sub_group_size": 10**10, "offload_optimizer": away}
        file.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": zero}), encoding="utf-8")
        plan = plan_of({"deepspeed": str(file)}, tmp_path, gpus=8)
        assert plan.deepspeed.nvme is (device == "nvme")
        host = estimate_memory(MODEL, plan.model_copy(update={"method": Method.FULL})).host
        assert host is not None
        hosts.append(sum(term.bytes for term in host.training))
    assert hosts[1] == pytest.approx(18 * MODEL.params, rel=0.01)
    assert hosts[0] == pytest.approx(18 * MODEL.params, rel=0.01)  # masters, gradients twice over, moments: as much, where one group is all
    small = {"sub_group_size": 10**8}
    file.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {**zero, **small}}), encoding="utf-8")
    host = estimate_memory(MODEL, plan_of({"deepspeed": str(file)}, tmp_path, gpus=8).model_copy(update={"method": Method.FULL})).host
    assert host is not None
    assert sum(term.bytes for term in host.training) < 0.4 * hosts[0]


@pytest.mark.parametrize(
    ("group", "stated", "more_params"),
    [
        ("offload_param", {"buffer_count": 10}, 5 * 100_000_000),
        ("offload_param", {"buffer_size": 200_000_000}, 5 * 100_000_000),
        ("offload_param", {"max_in_cpu": 0}, None),
        ("offload_optimizer", {"buffer_count": 8}, None),
    ],
)
def test_buffers_beside_a_disk_are_the_files(tmp_path: Path, group: str, stated: dict[str, int], more_params: int | None) -> None:
    """By hand: elements of the parameters' type, in each of eight processes."""
    held = []
    for said in ({}, stated):
        away = {"device": "nvme", "nvme_path": "/local_nvme"}
        zero = {"stage": 3, "offload_optimizer": dict(away), "offload_param": dict(away)}
        zero[group] = {**away, **said}
        (tmp_path / "ds.json").write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": zero}), encoding="utf-8")
        plan = plan_of({"deepspeed": str(tmp_path / "ds.json")}, tmp_path, gpus=8).model_copy(update={"method": Method.FULL})
        assert all(getattr(plan.deepspeed, field) == said[key] for field, key in BUFFERS[group].items() if key in said)
        host = estimate_memory(MODEL, plan).host
        assert host is not None
        held.append(sum(term.bytes for term in host.training))
    assert held[0] != held[1]
    assert more_params is None or held[1] - held[0] == more_params * plan.base_dtype.size_bytes * plan.n_gpus
