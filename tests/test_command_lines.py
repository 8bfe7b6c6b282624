"""Command lines in shell scripts: whose they are, what they say, which files they name, and what is left open. Nothing of them is run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.configs import check
from advisor.configs.files import CheckOptions, read_config
from advisor.errors import AdvisorError, InvalidInputError, UnsupportedError
from advisor.stacks.command_line import read_command
from advisor.stacks.places import find_file
from advisor.stacks.shell import commands_of
from advisor.stacks.shell_words import is_open
from advisor.values import Fit, Sharding, Stack

SWIFT = "swift sft --model Qwen/Qwen2.5-7B --train_type lora --lora_rank 8 --max_length 1024"


def script(folder: Path, text: str, name: str = "run.sh") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# (script, words of the last command): the shell language as POSIX and bash have it
SHELL = [
    ("A=4\ngo --x $A ${A} \"$A\" '$A'", ("go", "--x", "4", "4", "4", "$A")),
    ("go ${LEN:-4096} ${LEN-1} ${LEN:=2}", ("go", "4096", "1", "2")),
    ("LEN=8\ngo ${LEN:-4096} ${LEN:+on}", ("go", "8", "on")),
    ("N=4\ngo $(expr 32 / $N / 2) `expr 3 \\* 2` $((2 * N + 1)) $(( 64/$N ))", ("go", "4", "6", "9", "16")),
    ('ARGS=(--a 1\n  --b "two words" # a word\n)\nARGS+=(--c)\ngo "${ARGS[@]}"', ("go", "--a", "1", "--b", "two words", "--c")),
    ("A=(x y)\ngo ${A[1]} ${#A[@]}", ("go", "y", "2")),
    ("OPTS='--a 1 --b 2'\ngo $OPTS \"$OPTS\"", ("go", "--a", "1", "--b", "2", "--a 1 --b 2")),
    ('go --system "line one\nline two" \\\n  --last 3', ("go", "--system", "line one\nline two", "--last", "3")),
    ("go --x 1 2>&1 | tee log.txt >/dev/null", ("tee", "log.txt")),
    ("go --x 1 > log.txt 2>&1", ("go", "--x", "1")),
    ("cat > ds.json <<EOF\nother --x '\nEOF\ngo --y 2", ("go", "--y", "2")),
    ("if [ -z $1 ]; then N=2; fi\ngo $N", ("go", "2")),
    ("for lr in 1e-4; do go $lr; done", ("go", "1e-4")),
    ("go # --x 1", ("go",)),
    ("A=1 B='2 3' go $C x", ("go", "\ue000$C", "x")),
]


@pytest.mark.parametrize(("text", "words"), SHELL, ids=[row[0][:40] for row in SHELL])
def test_a_shell_script_stands_for_these_words(text: str, words: tuple[str, ...]) -> None:
    assert commands_of(text, Path("run.sh"))[-1].words == words


@pytest.mark.parametrize(
    "text",
    [
        "go $X",
        "go $1",
        'go "$@"',
        "go $(date +%s)",
        "X=1\nif a; then X=2; fi\ngo $X",
        "for x in 1 2; do go $x; done",
        "go ${X##*/}",
        "go $((X))",
    ],
)
def test_what_only_running_it_would_show_is_open(text: str) -> None:
    assert is_open(commands_of(text, Path("run.sh"))[-1].words[1])


def test_the_environment_of_a_command() -> None:
    commands = commands_of("export A=1\nB=2 go\nC=3\nlast", Path("run.sh"))
    assert commands[0].environment == {"A": "1", "B": "2"}
    assert commands[-1].environment == {"A": "1", "C": "3"}


# (command, stack, a setting, its text, GPUs)
COMMANDS: list[tuple[str, Stack, str, Any, int | None]] = [
    (SWIFT, Stack.MS_SWIFT, "lora_rank", "8", None),
    (f"NPROC_PER_NODE=4 {SWIFT}", Stack.MS_SWIFT, "lora_rank", "8", 4),
    (f"NPROC_PER_NODE=4 NNODES=2 {SWIFT}", Stack.MS_SWIFT, "lora_rank", "8", 8),
    (f"NPROC_PER_NODE=8 NNODES=$WORLD_SIZE {SWIFT}", Stack.MS_SWIFT, "lora_rank", "8", 8),
    (f"CUDA_VISIBLE_DEVICES=0,1 {SWIFT}", Stack.MS_SWIFT, "lora_rank", "8", 1),
    ("torchrun --nproc_per_node=2 swift/cli/sft.py --lora_rank 8", Stack.MS_SWIFT, "lora_rank", "8", 2),
    ("python -m swift.cli.pt --lora_rank 8", Stack.MS_SWIFT, "lora_rank", "8", None),
    ("llamafactory-cli train --lora_rank 8", Stack.LLAMAFACTORY, "lora_rank", "8", None),
    ("CUDA_VISIBLE_DEVICES=0,1 llamafactory-cli train --lora_rank 8", Stack.LLAMAFACTORY, "lora_rank", "8", 2),
    ("python -m llamafactory.cli train --lora_rank 8", Stack.LLAMAFACTORY, "lora_rank", "8", None),
    ("deepspeed --num_gpus 8 --master_port=9901 src/train.py --lora_rank 8", Stack.LLAMAFACTORY, "lora_rank", "8", 8),
    ("deepspeed --include localhost:0,2,3 src/train.py --lora_rank 8", Stack.LLAMAFACTORY, "lora_rank", "8", 3),
    ("nohup trl sft --lora_r 8 &", Stack.TRL, "lora_r", "8", None),
    ("trl sft --lora_r 8 --num_processes 4", Stack.TRL, "lora_r", "8", 4),
    ("accelerate launch --num_processes 4 trl/scripts/sft.py --lora_r=8", Stack.TRL, "lora_r", "8", 4),
    ("accelerate launch --gpu_ids 0,1 scripts/run_sft.py --lora_r=8", Stack.TRL, "lora_r", "8", 2),
    ("axolotl train --lora-r 8", Stack.AXOLOTL, "lora_r", "8", None),
    ("axolotl train --lora-r 8 --launcher torchrun -- --nproc_per_node=2", Stack.AXOLOTL, "lora_r", "8", 2),
    ("tune run --nproc_per_node 2 lora_finetune_distributed batch_size=8", Stack.TORCHTUNE, "batch_size", "8", 2),
    ("echo swift sft --lora_rank 1\nswift sft --lora_rank 8", Stack.MS_SWIFT, "lora_rank", "8", None),
    ("swift infer --lora_rank 1\nswift sft --lora_rank 8", Stack.MS_SWIFT, "lora_rank", "8", None),
]


@pytest.mark.parametrize(("text", "stack", "name", "value", "gpus"), COMMANDS, ids=[row[0][:60] for row in COMMANDS])
def test_whose_command_it_is(text: str, stack: Stack, name: str, value: Any, gpus: int | None, tmp_path: Path) -> None:
    command = read_command(script(tmp_path, text))
    assert (command.stack, command.values[name], command.launch.n_gpus) == (stack, value, gpus)


# (command, what names the job)
OTHER_JOBS = [
    ("USE_V1=1 llamafactory-cli train x.yaml", "USE_V1"),
    ("export USE_MCA=1\nllamafactory-cli train x.yaml", "USE_MCA"),
    ("swift rlhf --rlhf_type dpo --model Qwen/Qwen2.5-7B", "swift rlhf"),
    ("megatron sft --load x", "megatron sft"),
    *[(f"trl {name} --model_name_or_path Qwen/Qwen2.5-7B", f"trl {name}") for name in ("dpo", "kto", "grpo", "reward", "rloo")],
    ("accelerate launch examples/scripts/dpo.py --lora_r 8", "dpo.py"),
    ("tune run lora_dpo_single_device --config x", "lora_dpo_single_device"),
    ("tune run --nproc_per_node 2 dev/grpo_full_finetune_distributed --config x", "grpo"),
    ("tune run knowledge_distillation_single_device --config x", "knowledge_distillation"),
    ("tune run qat_distributed --config x", "qat"),
]
IDLE = [
    "swift infer --model x",
    "swift export --model x",
    "swift deploy --model x",
    "swift eval --model x",
    "llamafactory-cli export x.yaml",
    "llamafactory-cli chat x.yaml",
    "axolotl merge-lora x.yml",
    "axolotl preprocess x.yml",
    "python -m axolotl.cli.inference x.yml",
    "tune run generate --config x",
    "tune run eleuther_eval --config x",
    "tune download x",
    "trl vllm-serve --model x",
]


@pytest.mark.parametrize(("text", "named"), OTHER_JOBS)
def test_another_objective_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"another (objective: |trainer).*{named}"):
        check(script(tmp_path, text), "80GB", model="qwen2.5-7b")


@pytest.mark.parametrize("text", IDLE)
def test_a_command_that_trains_nothing_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="trains nothing: it starts"):
        check(script(tmp_path, text), "80GB", model="qwen2.5-7b")


# ---------------------------------------------------------------------------------------------------------- named files

LLAMAFACTORY = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "quantization_bit": 4,
    "lora_rank": 64,
    "bf16": True,
    "cutoff_len": 512,
    "per_device_train_batch_size": 1,
}
FSDP = {"distributed_type": "FSDP", "num_processes": 2, "compute_environment": "LOCAL_MACHINE", "mixed_precision": "bf16"}
ZERO3 = {"zero_optimization": {"stage": 3}}


def repository(top: Path) -> Path:
    """LLaMA-Factory's layout: the script names its files from the repository's root."""
    (top / ".git").mkdir()
    folder = top / "examples" / "extras" / "fsdp_qlora"
    folder.mkdir(parents=True)
    (folder / "sft.yaml").write_text(json.dumps(LLAMAFACTORY), encoding="utf-8")
    (top / "examples" / "accelerate.yaml").write_text(json.dumps(FSDP), encoding="utf-8")
    (top / "zero3.json").write_text(json.dumps(ZERO3), encoding="utf-8")
    return folder


def test_a_script_s_files_are_found_from_the_repository_s_root(tmp_path: Path) -> None:
    folder = repository(tmp_path)
    text = "accelerate launch \\\n  --config_file examples/accelerate.yaml src/train.py examples/extras/fsdp_qlora/sft.yaml lora_rank=8\n"
    plan = check(script(folder, text), "80GB").plan
    assert (plan.rank, plan.quantization is not None, plan.seq_len_tokens) == (8, True, 512)
    assert plan.n_gpus == 2
    assert plan.sharding.is_fsdp


def test_a_deepspeed_file_is_found_likewise(tmp_path: Path) -> None:
    folder = repository(tmp_path)
    plan = check(script(folder, "NPROC_PER_NODE=2 llamafactory-cli train sft.yaml --deepspeed zero3.json"), "80GB").plan
    assert plan.sharding in (Sharding.ZERO3, Sharding.FSDP2)


def test_a_script_s_files_are_found_from_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-scripts"
    (elsewhere / ".git").mkdir(parents=True)
    assert check(script(elsewhere, "llamafactory-cli train examples/extras/fsdp_qlora/sft.yaml"), "80GB").plan.rank == 64


def test_nothing_is_looked_for_above_the_repository(tmp_path: Path) -> None:
    (tmp_path / "outer.yaml").write_text("a: 1", encoding="utf-8")
    inner = tmp_path / "inner"
    (inner / ".git").mkdir(parents=True)
    assert find_file("outer.yaml", inner) is None
    assert find_file("outer.yaml", tmp_path) is not None
    deep = tmp_path / "no" / "repository"
    deep.mkdir(parents=True)
    assert find_file("outer.yaml", deep) is None


# What a file of someone else's names; the folder of the test is a repository.
OUTSIDE = ["{outside}/zero3.json", "../outside/zero3.json", "link.json", "folder/zero3.json"]


@pytest.mark.parametrize("named", OUTSIDE)
def test_nothing_outside_of_the_repository_is_read(named: str, tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (top / ".git").mkdir(parents=True)
    (outside / "zero3.json").write_text(json.dumps(ZERO3), encoding="utf-8")
    (top / "link.json").symlink_to(outside / "zero3.json")
    (top / "folder").symlink_to(outside)
    with pytest.raises(InvalidInputError, match="lies outside of the project"):
        find_file(named.format(outside=outside), top)


# (command, the file that is missing)
MISSING = [
    ("llamafactory-cli train gone.yaml", "gone.yaml"),
    ("axolotl train gone.yml", "gone.yml"),
    ("trl sft --config gone.yaml", "gone.yaml"),
    ("tune run lora_finetune_single_device --config llama3/8B_lora", "llama3/8B_lora"),
    ("accelerate launch --config_file gone.yaml -m swift.cli.sft --model Qwen/Qwen2.5-7B", "gone.yaml"),
    ("trl sft --model_name_or_path Qwen/Qwen2.5-7B --accelerate_config gone.yaml", "gone.yaml"),
    ("accelerate launch my_training.py --lr 1", "my_training.py"),
]


@pytest.mark.parametrize(("text", "missing"), MISSING)
def test_a_named_file_that_is_not_there_is_an_error(text: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no such file") as caught:
        check(script(tmp_path, text), "80GB", model="qwen2.5-7b")
    assert missing in str(caught.value)


def test_the_user_s_own_launcher_replaces_a_missing_one(tmp_path: Path) -> None:
    path = script(tmp_path, f"accelerate launch --config_file gone.yaml -m swift.cli.sft {SWIFT.removeprefix('swift sft')}")
    (tmp_path / "mine.yaml").write_text(json.dumps(FSDP), encoding="utf-8")
    assert check(path, "80GB", accelerate=str(tmp_path / "mine.yaml")).plan.n_gpus == 2


# ------------------------------------------------------------------------------------------------------- what is open


def test_an_open_setting_turns_the_verdict(tmp_path: Path) -> None:
    report = check(script(tmp_path, f"{SWIFT} --per_device_train_batch_size $BATCH --target_modules all-linear"), "80GB")
    assert report.fit is Fit.UNCERTAIN
    assert "per_device_train_batch_size" in report.reason
    assert any("$BATCH" in finding.message for finding in report.findings)


def test_machines_that_only_the_shell_counts_are_said(tmp_path: Path) -> None:
    """github.com/modelscope/ms-swift/issues/2743 starts so: priced as one machine with its eight processes."""
    command = read_command(script(tmp_path, f"NNODES=$WORLD_SIZE NPROC_PER_NODE=8 {SWIFT}"))
    assert command.open == (("nnodes", "$WORLD_SIZE"),)


def test_the_model_type_of_ms_swift_2_names_the_model(tmp_path: Path) -> None:
    """github.com/modelscope/ms-swift/issues/2010 and 2753: one names no other model than its type, the other ZeRO-2 by its old name."""
    text = "NPROC_PER_NODE=4 swift sft --model_type qwen2-7b-instruct --sft_type lora --max_length 1024 --deepspeed default-zero2"
    read = read_config(script(tmp_path, text), None, CheckOptions())
    assert (read.model.id, read.reading.plan.sharding.value, read.reading.plan.n_gpus) == ("Qwen/Qwen2-7B-Instruct", "zero2", 4)


def test_older_words_of_the_frameworks(tmp_path: Path) -> None:
    """github.com/hiyouga/LlamaFactory/issues/2579: flash_attn was a switch up to 0.6; ms-swift/issues/2010: AUTO was ms-swift 2's word."""
    older = "accelerate launch src/train_bash.py --stage sft --do_train --finetuning_type lora --cutoff_len 3000 --flash_attn --fp16"
    plan = read_config(script(tmp_path, f"{older} --model_name_or_path Qwen/Qwen1.5-14B-Chat"), None, CheckOptions()).reading.plan
    assert (plan.attention.value, plan.autocast_dtype.value) == ("flash", "fp16")
    assert read_config(script(tmp_path, f"{SWIFT} --dtype AUTO"), None, CheckOptions()).reading.plan.base_dtype.value == "bf16"


def test_an_open_setting_that_leaves_memory_alone_does_not(tmp_path: Path) -> None:
    report = check(script(tmp_path, f"{SWIFT} --output_dir $OUT --seed $1 --target_modules all-linear"), "80GB")
    assert (report.fit, report.reason) == (Fit.FITS, "")


@pytest.mark.parametrize(
    ("visible", "gpu", "fit"), [("0,1,2,3", "12GB", Fit.UNCERTAIN), ("0", "12GB", Fit.DOES_NOT_FIT), ("0,1", "6GB", Fit.DOES_NOT_FIT)]
)
def test_one_process_of_ms_swift_spreads_the_model(visible: str, gpu: str, fit: Fit, tmp_path: Path) -> None:
    """LoRA of 7B in 16 bit: some 16 GiB on one card."""
    report = check(script(tmp_path, f"CUDA_VISIBLE_DEVICES={visible} {SWIFT} --target_modules all-linear"), gpu)
    assert report.fit is fit
    assert ("CUDA_VISIBLE_DEVICES" in report.reason) == ("," in visible)


def test_the_first_of_several_trainings_is_read_and_said(tmp_path: Path) -> None:
    report = check(script(tmp_path, f"{SWIFT}\n{SWIFT.replace('rank 8', 'rank 16')}\n"), "80GB")
    assert report.plan.rank == 8
    assert any("2 trainings" in line for line in report.assumptions)


@pytest.mark.parametrize(
    "text", ["swift sft --model 'x", 'swift sft --model "x', "swift sft ${X", "swift sft $(x", "A=(", "go `x", "$", "<<E", "\\"]
)
def test_a_broken_script_ends_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(AdvisorError) as caught:
        check(script(tmp_path, text), "80GB")
    assert "\n" not in str(caught.value)


GROWING = [
    "A=xxxxxxxxxx\n" + "A=$A$A\n" * 60,
    'A=("" "")\n' + 'A=("${A[@]}" "${A[@]}")\n' * 60,
    "go " + "$(echo " * 5000 + ")" * 5000,
    "go " + "${A:-" * 5000 + "}" * 5000,
    "go " + "$((" * 5000 + "))" * 5000,
    "A=1\n" * 20_000 + "go $A\n" * 20_000,
    "".join(f"A{n}=1\ngo\n" for n in range(20_000)),
]


@pytest.mark.parametrize("text", GROWING, ids=["text", "array", "commands", "defaults", "arithmetic", "long", "variables"])
def test_a_script_that_grows_is_read_in_bounds(text: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(AdvisorError):
        check(script(tmp_path, text), "80GB")
    assert time.monotonic() - started < 20
