"""Published configurations of the frameworks, read as facts; plans written as their files and read again; their own parsers on both."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor.cli.files import write_new
from advisor.configs import check, config
from advisor.configs.emit import WRITTEN, read_text, text_of
from advisor.errors import AdvisorError, InvalidInputError, UnsupportedError
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.stacks import default_plan
from advisor.stacks.launch import read_accelerate
from advisor.stacks.reading import canonical
from advisor.units import GIB
from advisor.values import Attention, DType, GpuSpec, Loss, Method, Optimizer, Precision, Quantization, Request, Stack

DATA = Path(__file__).parent / "data" / "configs"
FILES = ("axolotl", "llamafactory", "ms_swift", "torchtune", "trl")
PUBLISHED = [(name, row) for name in FILES for row in json.loads((DATA / f"{name}.json").read_bytes())]
LLAMA = load_model("llama-3-8b")


def card(**update: Any) -> GpuSpec:
    return GpuSpec(name="card", vendor="NVIDIA", usable_bytes=79 * GIB, usable_source="test", **update)


FSDP_OFFLOAD = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "FSDP",
    "fsdp_config": {"fsdp_offload_params": True, "fsdp_sharding_strategy": "FULL_SHARD"},
    "mixed_precision": "no",
    "num_processes": 2,
}
"""What decides in the launcher's configuration that ms-swift's fsdp_qlora/train.sh names."""


def written(row: dict[str, Any], folder: Path) -> Path:
    """The facts as the kind of file that they were read from."""
    launcher = folder / "examples/train/fsdp_qlora/fsdp_offload.json"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(json.dumps(FSDP_OFFLOAD), encoding="utf-8")
    path = folder / Path(row["path"]).name
    if "arguments" not in row:
        path = path.with_suffix(".yaml")
        path.write_text(json.dumps(row["settings"]), encoding="utf-8")  # JSON is YAML
        return path
    environment = " ".join(f"{name}={value}" for name, value in row["environment"].items())
    arguments = [f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in row["arguments"].items()]
    lines = ["nproc_per_node=2", "", f"{environment} \\", f"{row['command']} \\", *(f"    {argument} \\" for argument in arguments), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


OTHER_JOBS = {"examples/llama-3/instruct-dpo-lora-8b.yml": "rl: dpo", "examples/train_lora/llama3_lora_dpo.yaml": "stage dpo"}
"""Published configurations that train by another objective."""
PRICED = [(name, row) for name, row in PUBLISHED if row["path"] not in OTHER_JOBS]


@pytest.mark.parametrize("path", OTHER_JOBS)
def test_another_objective_is_refused_by_name(path: str, tmp_path: Path) -> None:
    row = next(row for _, row in PUBLISHED if row["path"] == path)
    with pytest.raises(UnsupportedError, match=OTHER_JOBS[path]):
        check(written(row, tmp_path), "80GB")


@pytest.mark.parametrize(("name", "row"), PRICED, ids=[f"{name}-{row['path'].removeprefix('examples/')}" for name, row in PRICED])
def test_a_published_configuration_gives_a_plan_and_a_number(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    report = check(written(row, tmp_path), "80GB", **({"model": row["model"]} if "model" in row else {}))
    assert report.stack.value.replace("-", "_") == name
    assert report.plan.method.value == row["method"]
    assert report.low_bytes <= report.expected_bytes <= report.high_bytes
    weights = report.memory.phases[0].allocated_bytes
    assert weights < report.expected_bytes < 40 * 2 * report.model.params  # a number in the range of the possible
    said = {**row.get("settings", {}), **row.get("arguments", {})}
    for key in ("micro_batch_size", "per_device_train_batch_size", "batch_size"):
        assert report.plan.micro_batch_size == said.get(key, report.plan.micro_batch_size)
    for key in ("sequence_len", "cutoff_len", "max_length"):
        assert report.plan.seq_len_tokens == said.get(key, report.plan.seq_len_tokens)
    for key in ("lora_r", "lora_rank"):
        assert report.plan.rank == (said.get(key) or report.plan.rank)
    assert not [
        finding.message for finding in report.findings if finding.id == "unknown-key" and "flash_attn_fuse_qkv" not in finding.message
    ]


def test_there_are_enough_of_them_and_each_says_where_it_stands() -> None:
    assert len(PUBLISHED) >= 40
    assert all(row["repository"] and row["path"] and row["commit"] for _, row in PUBLISHED)
    assert {name for name, _ in PUBLISHED} == set(FILES)


# (path, what must be found)
NOTICED = [
    ("examples/llama-3/lora-8b.yml", {"modules-to-save", "whole-logits", "quantized-needlessly"}),
    ("examples/llama-3/qlora-fsdp-70b.yaml", {"gpus-unknown", "not-priced"}),
    ("examples/phi/phi-qlora.yml", {"checkpointing-off"}),
    ("examples/mistral/mixtral.yml", {"experts-not-modules", "experts-dropout", "gpus-unknown", "fit-uncertain"}),
    ("examples/llama-2/fft_optimized.yml", {"unknown-key", "not-priced"}),
    ("examples/falcon/config-7b-qlora.yml", {"rank-high"}),
    ("examples/train_full/llama3_full_sft.yaml", {"fit-uncertain", "gpus-unknown"}),
    ("examples/extras/galore/llama3_full_sft.yaml", {"not-priced"}),
    ("recipes/configs/llama3_1/70B_lora.yaml", {"length-unbounded", "does-not-fit"}),
]


@pytest.mark.parametrize(("path", "ids"), NOTICED)
def test_what_a_published_configuration_makes_notice(path: str, ids: set[str], tmp_path: Path) -> None:
    row = next(row for _, row in PUBLISHED if row["path"] == path)
    report = check(written(row, tmp_path), "80GB", **({"model": row["model"]} if "model" in row else {}))
    assert ids <= {finding.id for finding in report.findings}


def test_llamafactory_keeps_fp32_weights_when_bf16_trains_everything(tmp_path: Path) -> None:
    rows = {row["path"]: row for _, row in PUBLISHED}
    row = rows["examples/train_full/llama3_full_sft.yaml"]
    alone = {**row, "settings": {name: value for name, value in row["settings"].items() if name != "deepspeed"}}
    lifted = check(written(alone, tmp_path), "80GB").plan
    pure = check(written(rows["examples/extras/galore/llama3_full_sft.yaml"], tmp_path), "80GB").plan
    assert (lifted.base_dtype, lifted.autocast) == (DType.FP32, True)
    assert (pure.base_dtype, pure.autocast) == (DType.BF16, False)


ACCELERATE = {
    "examples/accelerate_configs/fsdp2.yaml": (8, True, None, DType.BF16, "fsdp2", "lifted"),
    "examples/accelerate_configs/deepspeed_zero3.yaml": (8, False, 3, DType.BF16, "zero3", "copied"),
    "examples/accelerate_configs/multi_gpu.yaml": (8, False, None, None, "ddp", "none"),
}


@pytest.mark.parametrize("row", json.loads((DATA / "accelerate.json").read_bytes()), ids=lambda row: row["path"])
def test_a_launcher_s_configuration(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "accelerate.yaml"
    path.write_text(json.dumps(row["settings"]), encoding="utf-8")
    launch = read_accelerate(path)
    assert (launch.n_gpus, launch.fsdp, launch.zero_stage, launch.precision) == ACCELERATE[row["path"]][:4]
    trainer = tmp_path / "sft.yaml"
    trainer.write_text("model_name_or_path: Qwen/Qwen2.5-7B\nuse_peft: true\nlora_target_modules: all-linear\ndtype: bfloat16\n")
    plan = check(trainer, "80GB").plan  # lies beside it
    assert plan.n_gpus == 8
    assert (plan.sharding.value, plan.masters.value) == ACCELERATE[row["path"]][4:]


# ------------------------------------------------------------------------------------------------ writing


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.sampled_from([1, 8, 16, 64]),
        "alpha": st.sampled_from([1, 16.0, 32, 24.5]),
        "target_modules": st.sampled_from(["all-linear", "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"]),
        "batch_size": st.sampled_from([1, 2, 5]),
        "seq_len": st.sampled_from([128, 1000, 8192]),
        "grad_accum": st.sampled_from([1, 3, 16]),
        "optimizer": st.sampled_from([*Optimizer]),
        "precision": st.sampled_from([*Precision]),
        "double_quant": st.booleans(),
        "kbit_prepare": st.booleans(),
        "checkpointing": st.booleans(),
        "attention": st.sampled_from([*Attention]),
        "loss": st.sampled_from([*Loss]),
        "gpus": st.sampled_from([1, 2, 16]),
    },
)


@settings(deadline=None)
@given(stack=st.sampled_from(WRITTEN), method=st.sampled_from([*Method]), options=OPTIONS, bf16=st.booleans())
def test_what_is_written_reads_back_as_the_same_plan_and_the_same_bytes(
    stack: Stack, method: Method, options: dict[str, Any], bf16: bool
) -> None:
    plan = default_plan(method, LLAMA, card(bf16_supported=bf16), Request(stack=stack, **options))
    try:
        text = text_of(LLAMA, plan)
    except UnsupportedError as error:
        if f"{stack.value} has no setting for" not in str(error):  # it says what, and nothing was written
            raise
        return
    back = read_text(LLAMA, stack, text)
    assert canonical(back) == canonical(plan)
    assert text_of(LLAMA, back) == text
    assert estimate_memory(LLAMA, back) == estimate_memory(LLAMA, canonical(plan))


@pytest.mark.parametrize("stack", WRITTEN)
@pytest.mark.parametrize("method", [*Method])
@pytest.mark.parametrize("gpus", [1, 2, 16])
def test_every_first_plan_can_be_written(stack: Stack, method: Method, gpus: int) -> None:
    plan = default_plan(method, LLAMA, card(), Request(stack=stack, gpus=gpus))
    back = read_text(LLAMA, stack, text_of(LLAMA, plan))
    assert back.n_gpus == gpus
    assert canonical(back) == canonical(plan)


def test_a_sharded_plan_keeps_its_cards(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(config("llama-3-70b", "80GB", stack="axolotl", gpus=8, method="lora"), encoding="utf-8")
    report = check(path, "80GB")
    assert (report.plan.n_gpus, report.plan.sharding.value, report.exit_code) == (8, "fsdp2", 0)


# (stack, options, what it has no setting for)
REFUSED = [
    ("trl", {"kbit_prepare": True, "method": "qlora"}, "kbit prepare true"),
    ("axolotl", {"precision": "bf16-amp", "method": "full"}, "autocast true"),
    ("llamafactory", {"precision": "fp32", "method": "lora"}, "base dtype fp32"),
    ("hf", {"attention": "mem_efficient", "method": "lora"}, "attention mem_efficient"),
    ("llamafactory", {"alpha": "24.5", "method": "lora"}, "whole number"),
]


@pytest.mark.parametrize(("stack", "options", "says"), REFUSED)
def test_what_a_framework_cannot_say_is_refused_by_name(stack: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(AdvisorError, match=says):
        config("llama-3.2-1b", "80GB", stack=stack, **options)


def test_files_of_other_stacks_are_not_written() -> None:
    for stack in ("torchtune", "ms-swift", "plain"):
        with pytest.raises(UnsupportedError, match="files are written for trl, hf, axolotl, llamafactory"):
            config("llama-3-8b", "80GB", stack=stack)


def test_where_nothing_fits_nothing_is_written() -> None:
    with pytest.raises(AdvisorError, match="there is no plan to write"):
        config("llama-70b", "8GB", stack="axolotl")


# ------------------------------------------------------------------------------------------------ their own parsers

PARSERS = {
    "axolotl": """
import sys, yaml
from axolotl.utils.schemas.config import AxolotlInputConfig
for file in sys.argv[1:]:
    said = yaml.safe_load(open(file)); read = AxolotlInputConfig(**said)
    for name in ("lora_r", "sequence_len", "micro_batch_size", "gradient_checkpointing", "optimizer", "attn_implementation", "bf16"):
        assert name not in said or getattr(read, name) == said[name], (file, name)
""",
    "llamafactory": """
import sys, yaml
from llamafactory.hparams.parser import _parse_train_args
for file in sys.argv[1:]:
    said = yaml.safe_load(open(file)); model, data, training, tuning, _ = _parse_train_args({**said, "use_cpu": True})
    assert data.cutoff_len == said["cutoff_len"] and tuning.lora_rank == said.get("lora_rank", tuning.lora_rank)
""",
    "trl": """
import sys
from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser
for file in sys.argv[1:]:
    _, training, _ = TrlParser((ScriptArguments, SFTConfig, ModelConfig)).parse_args_and_config(["--config", file, "--use_cpu", "true"])
    assert training.max_length
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("stack", PARSERS)
def test_the_framework_s_own_parser_takes_what_is_written(stack: str, tmp_path: Path) -> None:
    """With ADVISOR_TEST_PYTHON_AXOLOTL and so on: an interpreter that has the framework (no GPU is needed)."""
    interpreter = os.environ.get(f"ADVISOR_TEST_PYTHON_{stack.upper()}")
    if not interpreter:
        pytest.skip(f"no interpreter with {stack} was named")
    files = []
    for method in Method:
        for number, options in enumerate(
            ({}, {"target_modules": "q_proj,v_proj", "gpus": 2, "attention": "flash"}, {"loss": "fused", "optimizer": "paged_adamw_8bit"})
        ):
            plan = default_plan(method, LLAMA, card(), Request(stack=Stack(stack), **options))
            path = tmp_path / f"{method.value}-{number}.yaml"
            path.write_text(text_of(LLAMA, plan), encoding="utf-8")
            files.append(str(path))
    plan = default_plan(Method.QLORA, LLAMA, card(), Request(stack=Stack(stack), quantization=Quantization.INT8))
    (tmp_path / "int8.yaml").write_text(text_of(LLAMA, plan), encoding="utf-8")
    files.append(str(tmp_path / "int8.yaml"))
    environment = {**os.environ, "DISABLE_VERSION_CHECK": "1"}
    done = subprocess.run([interpreter, "-c", PARSERS[stack], *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(files) == 16


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Whoever lays it there between the look and the writing keeps it, too."""
    path = tmp_path / "mine.yml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="is there already; it is not overwritten"):
        write_new(path, "another", "--out", "mine.yml")
    assert path.read_text(encoding="utf-8") == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["mine.yml"]
