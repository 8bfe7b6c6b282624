"""A plan of several cards as the files that start it: they read back as the plan, and the launchers themselves take them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from test_sharing_files import MODEL, SHARED

from advisor.cli.run import run
from advisor.configs.emit import Named, launched
from advisor.configs.files import CheckOptions, read_config
from advisor.errors import UnsupportedError
from advisor.stacks import defaults_of
from advisor.stacks.engines import reentrant_of
from advisor.stacks.reading import canonical
from advisor.values import DType, Loss, Method, Plan, Quantization, Sharding, Stack

NAMES = {Stack.HF: Named("train.py", "start.sh"), Stack.TRL: Named("train.yaml", "start.sh"), Stack.LLAMAFACTORY: Named("t.yml", "go.sh")}
GROUPS = st.fixed_dictionaries(
    {"sharding": st.just("fsdp2"), "masters": st.just("lifted")},
    optional={"shard_group": st.sampled_from([2, 4]), "reshard_after_forward": st.booleans(), "loads_on_rank_0": st.booleans()},
)
FSDP1 = st.fixed_dictionaries(
    {"sharding": st.just("fsdp1"), "masters": st.just("lifted")},
    optional={"reshard_after_forward": st.booleans(), "loads_on_rank_0": st.booleans(), "sync_each_batch": st.booleans()},
)
REPLICAS = st.fixed_dictionaries({"sharding": st.just("ddp")}, optional={"sync_each_batch": st.booleans()})


def plan_of(stack: Stack, shared: dict[str, Any], n_gpus: int = 8) -> Plan:
    loss = Loss.CHUNKED if stack is Stack.TRL else Loss.FULL
    first = Plan(method="lora", stack=stack, autocast=True, gradient_checkpointing=True, loss=loss, grad_accum_steps=2)
    reentrant = reentrant_of(defaults_of(stack), Sharding(shared["sharding"]), adapter=True)
    return Plan.model_validate({**first.model_dump(), "n_gpus": n_gpus, "use_reentrant": reentrant, **shared})


def written(folder: Path, plan: Plan) -> Path:
    for name, text in launched(MODEL, plan, NAMES[plan.stack]).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / NAMES[plan.stack].script


def read(path: Path, stack: Stack) -> Plan:
    return read_config(path, None, CheckOptions(stack_version=defaults_of(stack).version)).reading.plan


@settings(max_examples=40, deadline=None)
@given(
    shared=st.one_of(SHARED, GROUPS, FSDP1, REPLICAS), stack=st.sampled_from([Stack.TRL, Stack.HF]), n_gpus=st.sampled_from((4, 8, 12, 32))
)
def test_what_starts_it_reads_back(shared: dict[str, Any], stack: Stack, n_gpus: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Through the script, and through the trainer's own file with the launcher's beside it."""
    plan = plan_of(stack, shared, n_gpus)
    script = written(tmp_path_factory.mktemp("files"), plan)
    assert canonical(read(script, stack)) == canonical(plan)
    assert canonical(read(script.parent / NAMES[stack].training, stack)) == canonical(plan)


def test_llamafactory_s_read_back(tmp_path: Path) -> None:
    plan = plan_of(Stack.LLAMAFACTORY, {"sharding": "zero2", "masters": "copied", "offload": ("optimizer",)})
    assert canonical(read(written(tmp_path, plan), Stack.LLAMAFACTORY)) == canonical(plan)


@pytest.mark.parametrize(
    "shared",
    [{"sharding": "fsdp2"}, {"sharding": "zero3", "masters": "copied"}, {"sharding": "ddp"}],
    ids=lambda shared: shared["sharding"],
)
def test_nothing_that_is_written_is_left_unpriced(shared: dict[str, Any], tmp_path: Path) -> None:
    """FSDP shards 4-bit weights in a floating type alone, which the trainer's file says though the launcher's says what is shared."""
    plan = plan_of(Stack.TRL, shared).model_copy(
        update={"method": Method.QLORA, "quantization": Quantization.NF4, "adapter_dtype": DType.BF16}
    )
    found = read_config(written(tmp_path, plan), None, CheckOptions()).reading
    assert canonical(found.plan) == canonical(plan)
    assert not [remark for remark in found.remarks if remark.id == "not-priced"]


def test_a_script_that_loads_first_reads_whole_models(tmp_path: Path) -> None:
    """transformers asks for the processes' group, which the arguments make (5.23 distributed/fsdp.py `is_fsdp_enabled`)."""
    script = written(tmp_path, plan_of(Stack.HF, {"sharding": "fsdp2", "masters": "lifted", "loads_on_rank_0": True}))
    assert read(script, Stack.HF).loads_on_rank_0
    head, arguments, load, *rest = (tmp_path / "train.py").read_text(encoding="utf-8").split("\n\n")
    (tmp_path / "train.py").write_text("\n\n".join((head, load, arguments, *rest)), encoding="utf-8")
    found = read_config(script, None, CheckOptions()).reading
    assert not found.plan.loads_on_rank_0
    assert any(remark.id == "loads-first" for remark in found.remarks)


def test_axolotl_starts_its_launcher_itself() -> None:
    plan = plan_of(Stack.AXOLOTL, {"sharding": "fsdp2"})
    with pytest.raises(UnsupportedError, match="leave --launch out"):
        launched(MODEL, plan, Named("a.yml", "b.sh"))


# ------------------------------------------------------------------------------------------------------ the launchers themselves


def environment(script: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `accelerate launch` would set, by its own code, of the last line of the script."""
    launch = pytest.importorskip("accelerate.commands.launch")
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    words = [word for word in script.read_text(encoding="utf-8").splitlines()[-1].split()[2:] if not word.startswith(('"', "--m", "29500"))]
    monkeypatch.chdir(script.parent)
    args, read, of_precision = launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
    names = [*read.deepspeed_config, *(["mixed_precision"] if of_precision else [])]
    args.deepspeed_fields_from_accelerate_config = ",".join(names)  # as `launch_command` does
    args.use_cpu = False
    made = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    own = {name: value for name, value in made.items() if os.environ.get(name) != value}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return own


FSDP_PLANS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # the plan → accelerate's plugin as the launched processes make it (accelerate 1.15 utils/dataclasses.py)
    ({"sharding": "fsdp2"}, {"fsdp_version": 2, "reshard_after_forward": True, "cpu_ram_efficient_loading": False}),
    ({"sharding": "fsdp2", "reshard_after_forward": False}, {"fsdp_version": 2, "reshard_after_forward": False}),
    ({"sharding": "fsdp2", "loads_on_rank_0": True}, {"cpu_ram_efficient_loading": True}),
    ({"sharding": "fsdp2", "offload": ("optimizer", "params")}, {"cpu_offload": "CPUOffloadPolicy"}),
    ({"sharding": "fsdp2", "shard_group": 4}, {"fsdp_version": 2}),
    ({"sharding": "fsdp1"}, {"fsdp_version": 1, "sharding_strategy": "ShardingStrategy.FULL_SHARD", "use_orig_params": False}),
    ({"sharding": "fsdp1", "reshard_after_forward": False}, {"sharding_strategy": "ShardingStrategy.SHARD_GRAD_OP"}),
]


@pytest.mark.parametrize(("shared", "expected"), FSDP_PLANS)
def test_accelerate_takes_fsdp(shared: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masters = {"masters": "lifted", **shared}
    set_by_launcher = environment(written(tmp_path, plan_of(Stack.HF, masters)), monkeypatch)
    from accelerate.utils import FullyShardedDataParallelPlugin

    monkeypatch.setenv("FSDP_SYNC_MODULE_STATES", "false")  # FSDP1's first process sends its weights, which asks for a card
    plugin = FullyShardedDataParallelPlugin()
    for name, value in expected.items():
        found = getattr(plugin, name)
        assert found == value or str(found) == value or type(found).__name__ == value, name
    group = shared.get("shard_group")
    assert set_by_launcher.get("PARALLELISM_CONFIG_DP_SHARD_SIZE") == (None if group is None else str(group))


@pytest.mark.parametrize("n_gpus", [8, 16])
@pytest.mark.parametrize(
    "shared", [{"sharding": "ddp"}, {"sharding": "zero3", "masters": "copied"}, {"sharding": "fsdp2", "masters": "lifted"}]
)
def test_accelerate_takes_the_file(shared: dict[str, Any], n_gpus: int, tmp_path: Path) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    written(tmp_path, plan_of(Stack.HF, shared, n_gpus))
    found = config_args.ClusterConfig.from_yaml_file(str(tmp_path / "accelerate.yaml"))
    kinds = {"ddp": "MULTI_GPU", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
    assert (found.num_processes, found.num_machines, found.distributed_type.value) == (n_gpus, n_gpus // 8, kinds[shared["sharding"]])


def test_deepspeed_takes_its_file_from_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed.runtime.config", exc_type=ImportError)
    sizes = {"sub_group_params": 9, "overlap_comm": True}
    shared = {"sharding": "zero3", "masters": "copied", "offload": ("optimizer",), "deepspeed": sizes}
    set_by_launcher = environment(written(tmp_path, plan_of(Stack.HF, shared)), monkeypatch)
    assert set_by_launcher["ACCELERATE_USE_DEEPSPEED"] == "true"
    from accelerate.utils import DeepSpeedPlugin

    config = DeepSpeedPlugin().deepspeed_config["zero_optimization"]
    assert (config["stage"], config["sub_group_size"], config["overlap_comm"]) == (3, 9, True)
    assert config["offload_optimizer"]["device"] == "cpu"


# ---------------------------------------------------------------------------------------------------------------- the command

ASKED = ["--model", "llama-3.2-1b", "--gpu", "80GB", "--gpus", "2", "--shard", "zero2", "--method", "full", "--stack", "hf"]
FILES = ["accelerate.yaml", "deepspeed.json", "start.sh", "train.py"]


def test_the_files_are_written_together_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["config", *ASKED, "--out", str(tmp_path / "train.py"), "--launch", str(tmp_path / "start.sh")]
    (tmp_path / "deepspeed.json").write_text("mine", encoding="utf-8")
    assert run(asked) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["deepspeed.json"]
    (tmp_path / "deepspeed.json").unlink()
    assert run(asked) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert run(["check", str(tmp_path / "start.sh"), "--gpu", "80GB"]) == 0


REFUSED = [
    ([], "say with --out where"),
    (["--out", "train.py", "--launch", "else/start.sh"], "in the same folder"),
    (["--out", "train.py", "--launch", "start.txt"], "ends in .sh"),
    (["--out", "accelerate.yaml"], "the name is taken"),
]


@pytest.mark.parametrize(("more", "says"), REFUSED)
def test_refused_in_one_line(more: list[str], says: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["config", *ASKED, *more, *([] if "--launch" in more else ["--launch", "start.sh"])]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not [*tmp_path.iterdir()]
