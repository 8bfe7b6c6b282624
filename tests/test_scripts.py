"""Python scripts and notebooks: what is followed, what stays unknown, what is refused, and that nothing is run and nothing hangs.

Each row names the public script whose construct the sample under data/scripts reproduces, and what that script says.
"""

from __future__ import annotations

import ast
import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor.cli.run import run
from advisor.configs import check
from advisor.configs.files import CheckOptions, Read, read_found
from advisor.errors import AdvisorError, InvalidInputError, UnsupportedError
from advisor.stacks.detect import open_text
from advisor.stacks.reading import Way
from advisor.stacks.script import Settings, Start, parse_script
from advisor.stacks.script.known import ADAPTER, ARGUMENTS
from advisor.values.check import CheckReport
from advisor.values.plan import Plan
from advisor.values.vocabulary import Quantization

SAMPLES = Path(__file__).parent / "data" / "scripts"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")


def parsed(text: str, *arguments: str, path: str = "train.py") -> Settings:
    return parse_script(text, Path(path), Start(arguments or None))


def reading(text: str, *arguments: str, model: str | None = None, path: str = "train.py") -> Read:
    opened = open_text(text, Path(path), None, Start(arguments or None))
    return read_found(opened, Path(path), None, CheckOptions(model=model))


def written(folder: Path, text: str, name: str = "train.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def report(folder: Path, text: str, gpu: str = "80GB", **options: Any) -> CheckReport:
    return check(written(folder, text), gpu, **options)


# ------------------------------------------------------------------------------------------- public scripts that are priced

PRICED: list[tuple[str, str, str, dict[str, Any]]] = [
    # sample, arguments, public script, what it says
    ("peft_dora", "", "huggingface/peft examples/dora_finetuning/dora_finetuning.py",
     {"model": "huggyllama/llama-7b", "method": "lora", "rank": 8, "target_modules": ATTENTION, "micro_batch_size": 1,
      "grad_accum_steps": 16, "seq_len_tokens": 512, "autocast_dtype": "fp16", "gradient_checkpointing": False}),
    ("peft_dora", "--quantize --use_dora --batch_size 4 --lora_target_modules q_proj,v_proj", "the same, with its own arguments",
     {"method": "qdora", "micro_batch_size": 4, "target_modules": ("q_proj", "v_proj"), "kbit_prepare": True,
      "gradient_checkpointing": True}),
    ("trl_sft", "--model_name_or_path Qwen/Qwen2-0.5B --use_peft --lora_r 32 --lora_target_modules q_proj v_proj --load_in_4bit",
     "huggingface/trl trl/scripts/sft.py",
     {"model": "Qwen/Qwen2-0.5B", "method": "qlora", "rank": 32, "target_modules": ("q_proj", "v_proj"), "base_dtype": "fp32",
      "double_quant": False, "seq_len_tokens": 1024, "micro_batch_size": 8, "stack": "trl", "loss": "chunked"}),
    ("trl_sft", "--model_name_or_path Qwen/Qwen2-0.5B --dataset_name x --packing --per_device_train_batch_size 2 --gradient_checkpointing",
     "the same, full training of its header", {"method": "full", "micro_batch_size": 2, "gradient_checkpointing": True}),
    ("philschmid_fsdp_qlora",
     "--model_id meta-llama/Meta-Llama-3-70B --max_seq_len 3072 --per_device_train_batch_size 1 --gradient_checkpointing true",
     "philschmid/deep-learning-pytorch-huggingface training/scripts/run_fsdp_qlora.py",
     {"method": "lora", "rank": 16, "seq_len_tokens": 3072, "micro_batch_size": 1, "gradient_checkpointing": True, "autocast": False}),
    ("philschmid_run_sft",
     "--model_name_or_path Qwen/Qwen3-8B --use_peft --load_in_4bit --lora_r 8 --lora_target_modules q_proj --dataset_id_or_path a.json",
     "philschmid/deep-learning-pytorch-huggingface training/scripts/run_sft.py",
     {"model": "Qwen/Qwen3-8B", "method": "qlora", "rank": 8, "target_modules": ("q_proj",), "double_quant": True}),
    ("qlora", "", "artidoro/qlora qlora.py",
     {"model": "EleutherAI/pythia-12b", "method": "qlora", "rank": 64, "target_modules": ("all-linear",),
      "optimizer": "paged_adamw_32bit",
      "micro_batch_size": 1, "grad_accum_steps": 16, "kbit_prepare": True, "double_quant": True, "gradient_checkpointing": True}),
    ("qlora", "--bits 8 --lora_r 16 --bf16 True --per_device_train_batch_size 4", "the same, with its own arguments",
     {"quantization": "int8", "rank": 16, "autocast_dtype": "bf16", "base_dtype": "bf16", "micro_batch_size": 4}),
    ("alpaca_lora", "--base_model huggyllama/llama-7b --cutoff_len=512 --lora_target_modules [q_proj,k_proj]",
     "tloen/alpaca-lora finetune.py",
     {"method": "qlora", "quantization": "int8", "rank": 8, "seq_len_tokens": 512, "micro_batch_size": 4, "grad_accum_steps": 32,
      "optimizer": "adamw_torch"}),
    ("run_clm", "--model_name_or_path openai-community/gpt2 --block_size 512 --do_train --per_device_train_batch_size 2",
     "huggingface/transformers examples/pytorch/language-modeling/run_clm.py",
     {"method": "full", "seq_len_tokens": 512, "micro_batch_size": 2, "gradient_checkpointing": False}),
    ("stanford_alpaca", "--model_name_or_path huggyllama/llama-7b --per_device_train_batch_size 4 --bf16 True",
     "tatsu-lab/stanford_alpaca train.py",
     {"model": "huggyllama/llama-7b", "method": "full", "seq_len_tokens": 512, "optimizer": "adamw_torch", "micro_batch_size": 4,
      "autocast": True}),
    ("mlabonne_llama2", "", "mlabonne Fine_tune_Llama_2_in_Google_Colab.ipynb: the merge at its end is not what is trained",
     {"method": "qlora", "rank": 64, "double_quant": False, "optimizer": "paged_adamw_32bit", "micro_batch_size": 4,
      "gradient_checkpointing": False}),
    ("modules_to_save", "", "philschmid/deep-learning-pytorch-huggingface training/fine-tune-llms-in-2024-with-trl.ipynb",
     {"model": "mistralai/Mistral-7B-v0.1", "method": "qlora", "rank": 256, "seq_len_tokens": 3072, "micro_batch_size": 3,
      "attention": "flash"}),
    ("trl_quickstart", "", "huggingface/trl docs/source/quickstart.md", {"method": "full", "base_dtype": "fp32", "micro_batch_size": 8}),
    ("tyro_cli", "--rank 8", "a tyro script", {"rank": 8, "micro_batch_size": 8, "seq_len_tokens": 256}),
    ("click_cli", "", "a click script", {"method": "full", "micro_batch_size": 24}),
    ("class_cfg", "", "a script with a class of constants and attributes that are set later",
     {"rank": 16, "micro_batch_size": 4, "seq_len_tokens": 1024, "attention": "eager", "gradient_checkpointing": False,
      "base_dtype": "bf16"}),
    ("signature_kwargs", "", "a script that asks inspect.signature and unpacks dicts",
     {"model": "google/gemma-2-9b-it", "method": "qlora", "rank": 32, "micro_batch_size": 4, "seq_len_tokens": 1024,
      "gradient_checkpointing": True}),
    ("f3_argparse", "", "an argparse script (notes on trainers, F3)",
     {"rank": 256, "micro_batch_size": 16, "seq_len_tokens": 8192, "gradient_checkpointing": False}),
    ("yaml_config", "", "a class that reads its arguments from a YAML file, with peft's helper on a model that is not quantised",
     {"method": "lora", "rank": 64, "base_dtype": "fp32"}),
    ("unsloth_alpaca_marimo", "", "unslothai/notebooks molab/Llama3.1_(8B)-Alpaca.py",
     {"model": "unsloth/Llama-3.1-8B", "method": "qlora", "rank": 16, "target_modules": LINEAR, "micro_batch_size": 2,
      "seq_len_tokens": 2048, "optimizer": "adamw_8bit", "gradient_checkpointing": True}),
    ("unsloth_72b", "", "unslothai/unsloth issue 2937",
     {"model": "unsloth/Qwen2.5-72B-bnb-4bit", "method": "qlora", "rank": 16, "target_modules": LINEAR, "seq_len_tokens": 24576}),
    ("unsloth_full", "", "unslothai/notebooks, full fine-tuning", {"method": "full", "seq_len_tokens": 4096,
     "gradient_checkpointing": True}),
    ("unsloth_cpt", "", "unslothai/notebooks Mistral_v0.3_(7B)-CPT", {"method": "qlora", "rank": 128, "target_modules": LINEAR,
     "use_rslora": True}),
    ("modal_unsloth", "", "modal-labs/modal-examples 06_gpu_and_ml/unsloth_finetune.py",
     {"model": "Qwen/Qwen3-32B", "method": "qlora", "rank": 16, "micro_batch_size": 16, "seq_len_tokens": 32768}),
    ("weighted_trainer", "", "a Trainer with a loss of its own", {"method": "full", "seq_len_tokens": 512, "micro_batch_size": 2}),
    ("spectrum_freeze", "", "a script that freezes layers by hand", {"method": "full", "micro_batch_size": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "source", "says"), PRICED, ids=[f"{row[0]} {row[1][:24]}" for row in PRICED])
def test_a_public_script_says(name: str, arguments: str, source: str, says: dict[str, Any]) -> None:
    read = reading(sample(name), *arguments.split())
    plan = read.reading.plan
    found = {"model": read.model.id} | {field: getattr(value, "value", value) for field, value in plan}
    assert {key: found[key] for key in says} == says


# -------------------------------------------------------------------------------------- public scripts that are refused by name

REFUSED = [
    # sample, public script, words of the line
    ("trl_dpo", "huggingface/trl trl/scripts/dpo.py", "trains with DPOTrainer (line 8), which is not priced yet"),
    ("trl_kto", "huggingface/trl trl/scripts/kto.py", "KTOTrainer"),
    ("trl_grpo", "huggingface/trl trl/scripts/grpo.py", "GRPOTrainer"),
    ("trl_rloo", "huggingface/trl trl/scripts/rloo.py", "RLOOTrainer"),
    ("trl_reward", "huggingface/trl trl/scripts/reward.py", "RewardTrainer"),
    ("trl_orpo", "huggingface/trl examples/scripts/orpo.py", "ORPOTrainer"),
    ("trl_cpo", "huggingface/trl examples/scripts/cpo.py", "CPOTrainer"),
    ("trl_bco", "huggingface/trl examples/scripts/bco.py", "BCOTrainer"),
    ("trl_gkd", "huggingface/trl examples/scripts/gkd.py", "GKDTrainer (line 9), which is not priced yet: distillation holds a teacher"),
    ("trl_nash_md", "huggingface/trl examples/scripts/nash_md.py", "NashMDTrainer"),
    ("trl_online_dpo", "huggingface/trl examples/scripts/dpo_online.py", "OnlineDPOTrainer"),
    ("trl_ppo", "huggingface/trl examples/scripts/ppo/ppo.py", "PPOTrainer"),
    ("two_stage", "a script that trains by SFT and then by DPO", "DPOTrainer"),
    ("unsloth_orpo", "unslothai/notebooks molab/Llama3_(8B)-ORPO.py", "ORPOTrainer"),
    ("unsloth_grpo", "unslothai/notebooks molab/Llama3.1_(8B)-GRPO.py", "GRPOTrainer"),
    ("unsloth_embedding", "unslothai/notebooks molab/EmbeddingGemma_(300M).py", "SentenceTransformerTrainer of sentence_transformers"),
    ("lightning", "a pytorch-lightning module", "Trainer of pytorch_lightning"),
    ("peft_ia3", "huggingface/peft examples/sequence_classification/IA3.ipynb", "IA3Config (line 4) is not priced"),
    ("peft_prompt_loop", "huggingface/peft examples/sequence_classification", "hand-written loop does (backward at line 10)"),
    ("run_clm_no_trainer", "huggingface/transformers examples/pytorch/language-modeling/run_clm_no_trainer.py", "(backward at line 23)"),
    ("merge_adapter", "philschmid training/scripts/merge_adapter_weights.py", "runs or saves a model and trains none"),
]


@pytest.mark.parametrize(("name", "source", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_public_script_is_refused_by_its_true_cause(name: str, source: str, words: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        parsed(sample(name))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hand-written" not in str(refused.value) or ".backward(" in sample(name)


UNNAMED = [
    ("trl_sft", "huggingface/trl trl/scripts/sft.py", "the command line decides --model_name_or_path"),
    ("alignment_handbook_sft", "huggingface/alignment-handbook scripts/run_sft.py", "the command line decides --model_name_or_path"),
    ("philschmid_fsdp_qlora", "philschmid training/scripts/run_fsdp_qlora.py", "the name that it is loaded by is empty"),
    ("alpaca_lora", "tloen/alpaca-lora finetune.py", "the name that it is loaded by is empty"),
    ("run_clm", "huggingface/transformers run_clm.py", "built from a configuration of the script's own"),
]


@pytest.mark.parametrize(("name", "source", "words"), UNNAMED, ids=[row[0] for row in UNNAMED])
def test_a_model_that_only_the_command_line_names_is_asked_for(name: str, source: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match="say it with --model") as refused:
        reading(sample(name))
    assert words in str(refused.value)


# ----------------------------------------------------------------------------------------------- what softens the verdict

TOLD = [
    # sample, key of the remark, its way, words
    ("unsloth_alpaca_marimo", "unsloth", Way.EITHER, "kernels and its offloaded checkpoints are not priced yet"),
    ("unsloth_full", "unsloth", Way.EITHER, "not priced yet"),
    ("unsloth_gemma_270m", "unsloth", Way.EITHER, "not priced yet"),
    ("unsloth_vision", "unsloth", Way.EITHER, "not priced yet"),
    ("weighted_trainer", "trainer", Way.EITHER, "WeightedTrainer is the script's own Trainer (line 4)"),
    ("spectrum_freeze", "requires_grad", Way.DOWN, "some weights are frozen (line 6)"),
    ("peft_fp4_opt", "lm_head", Way.EITHER, "replaces lm_head"),
]


@pytest.mark.parametrize(("name", "key", "way", "words"), TOLD, ids=[row[0] for row in TOLD])
def test_what_is_not_priced_is_told_with_its_way(name: str, key: str, way: Way, words: str) -> None:
    told = {remark.key: remark for remark in parsed(sample(name)).remarks}
    assert told[key].way is way
    assert words in told[key].text


def test_a_base_that_another_library_quantised_is_handed_on() -> None:
    assert parsed(sample("gptq_lora")).values["quantization_config"] == {"quant_method": "gptq", "bits": 4, "use_exllama": False}
    plan = reading(sample("gptq_lora"), model="meta-llama/Llama-2-7b-chat-hf").reading.plan
    assert (plan.method.value, plan.quantization) == ("qlora", Quantization.GPTQ)
    with pytest.raises(UnsupportedError, match="hqq"):
        reading(sample("gptq_lora").replace("GPTQ", "Hqq"), model="meta-llama/Llama-2-7b-chat-hf")


def test_unsloth_turns_the_verdict_and_is_never_full_fine_tuning(tmp_path: Path) -> None:
    found = report(tmp_path, sample("unsloth_72b"), "a100-80gb")
    assert (found.plan.method.value, found.exit_code) == ("qlora", 3)
    assert found.expected_bytes < 120 * 2**30


def test_unknown_values_are_named_with_their_line_and_turn_the_verdict(tmp_path: Path) -> None:
    found = report(tmp_path, sample("unknown_values"), "80GB", seq_len=512)
    told = {finding.message: finding.hint for finding in found.findings if finding.id == "unknown-value"}
    assert [message.split(" is not known")[0] for message in told] == ["per_device_train_batch_size", "r"]
    assert all("(line " in message for message in told)
    assert "--set r=VALUE" in told[next(message for message in told if message.startswith("r "))]
    assert found.exit_code == 3


def test_set_says_what_stays_unknown(tmp_path: Path) -> None:
    found = report(tmp_path, sample("unknown_values"), "80GB", seq_len=512, set=("per_device_train_batch_size=2", "r=64"))
    assert (found.plan.micro_batch_size, found.plan.rank, found.exit_code) == (2, 64, 0)
    assert not [finding for finding in found.findings if finding.id == "unknown-value"]
    assert "r: 64, as --set says" in found.assumptions


def test_set_counts_before_a_file_of_settings(tmp_path: Path) -> None:
    text = (
        "base_model: mistralai/Mistral-7B-v0.1\nadapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true\n"
        "sequence_len: 512\nmicro_batch_size: 1\n"
    )
    path = written(tmp_path, text, "train.yaml")
    assert check(path, "80GB", set=("lora_r=32", "micro_batch_size=2")).plan.rank == 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "batch=4"], "there is no such setting of a script"),
        (["--set", "per_device_train_batchsize=4"], "did you mean per_device_train_batch_size?"),
        (["--set", "r"], "write NAME=VALUE"),
        (["--", "--no-such-flag", "3"], "the script has no argument --no-such-flag"),
    ],
)
def test_what_a_script_cannot_be_told(options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(written(tmp_path, sample("f3_argparse"))), "--gpu", "80GB", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_arguments_after_two_dashes_start_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, sample("peft_dora"))
    assert run(["check", str(path), "--gpu", "80GB", "--json", "--", "--batch_size", "6", "--quantize"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["micro_batch_size"], plan["method"]) == (6, "qlora")


# ------------------------------------------------------------------------------------------------ how a script is started

SHELLS = [
    ("python peft_dora.py --batch_size 3 --quantize\n", 1),
    ("export BS=3\ntorchrun --nproc_per_node 2 \\\n  peft_dora.py --quantize --batch_size ${BS} > log.txt\n", 2),
    ("accelerate launch --num_processes 4 scripts/../peft_dora.py --batch_size=3 --quantize\n", 4),
    ("CUDA_VISIBLE_DEVICES=0 python3 -u peft_dora.py --quantize --batch_size 3  # one card\n", 1),
]


@pytest.mark.parametrize(("text", "cards"), SHELLS)
def test_a_shell_script_starts_a_python_script(text: str, cards: int, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    written(tmp_path, sample("peft_dora"), "peft_dora.py")
    plan = check(written(tmp_path, text, "run.sh"), "80GB").plan
    assert (plan.micro_batch_size, plan.method.value, plan.n_gpus) == (3, "qlora", cards)


def test_a_script_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"starts train\.py"):
        check(written(tmp_path, "python train.py --lr 1\n", "run.sh"), "80GB")


def test_a_recipe_that_the_command_line_names(tmp_path: Path) -> None:
    recipe = "model_name_or_path: Qwen/Qwen2-0.5B\nuse_peft: true\nlora_r: 64\nlora_target_modules: [q_proj]\nmax_length: 256\n"
    written(tmp_path, recipe, "recipe.yaml")
    plan = report(tmp_path, sample("trl_sft"), arguments=("--config", "recipe.yaml", "--max_length", "128")).plan
    assert (plan.rank, plan.seq_len_tokens) == (64, 128)


def test_modules_beside_the_script_are_followed(tmp_path: Path) -> None:
    """As huggingface/peft examples/sft: train.py takes its model from utils.py."""
    helper = (
        "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\nfrom peft import LoraConfig\nRANK = 4\n"
        "def build(name, four):\n    quantization = BitsAndBytesConfig(load_in_4bit=True) if four else None\n"
        "    model = AutoModelForCausalLM.from_pretrained(name, quantization_config=quantization)\n"
        "    return model, LoraConfig(r=RANK * 3, target_modules='all-linear')\n"
    )
    written(tmp_path, helper, "helpers.py")
    text = (
        "from helpers import build, RANK\nfrom trl import SFTConfig, SFTTrainer\nmodel, adapter = build('Qwen/Qwen2.5-0.5B', RANK == 4)\n"
        "SFTTrainer(model=model, args=SFTConfig('o', max_length=RANK * 100), peft_config=adapter).train()\n"
    )
    plan = report(tmp_path, text).plan
    assert (plan.method.value, plan.rank, plan.seq_len_tokens) == ("qlora", 12, 400)


def test_a_file_of_settings_that_the_script_reads(tmp_path: Path) -> None:
    written(tmp_path, "training_arguments:\n  output_dir: o\n  per_device_train_batch_size: 3\n  bf16: true\n", "training_args.yaml")
    found = report(tmp_path, sample("yaml_config"), seq_len=512)
    assert (found.plan.micro_batch_size, found.exit_code) == (3, 0)


def test_a_notebook_is_read_cell_by_cell(tmp_path: Path) -> None:
    cells = [
        ("markdown", "# Train\n"),
        ("code", "%%capture\n!pip install -U trl \\\n  peft\nimport os"),
        ("code", "%%bash\nnvidia-smi"),
        ("code", "rank = 24\n%matplotlib inline\nfiles = !ls"),
        ("code", "from transformers import AutoModelForCausalLM\nfrom peft import LoraConfig\nfrom trl import SFTConfig, SFTTrainer\n"
                 "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen2.5-0.5B')\nmodel?"),
        ("code", ["args = SFTConfig('o', max_length=300)\n", "if True:\n", "    !nvidia-smi\n",
         "    args.per_device_train_batch_size = 5\n"]),
        ("code", "SFTTrainer(model=model, args=args, peft_config=LoraConfig(r=rank, target_modules='all-linear')).train()"),
    ]  # fmt: skip
    text = json.dumps({"cells": [{"cell_type": kind, "source": source} for kind, source in cells]})
    plan = check(written(tmp_path, text, "train.ipynb"), "80GB").plan
    assert (plan.rank, plan.micro_batch_size, plan.seq_len_tokens) == (24, 5, 300)


@pytest.mark.parametrize(("text", "words"), [("[]", "is no notebook"), ("{", "notebook.ipynb"), ('{"cells": 3}', "is no notebook")])
def test_what_is_no_notebook(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check(written(tmp_path, text, "notebook.ipynb"), "80GB")


# ----------------------------------------------------------------------------------------------------- which model is trained

BODY = (
    "from transformers import AutoModelForCausalLM, TrainingArguments, Trainer, BitsAndBytesConfig\n"
    "from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training\nimport torch\n"
)
LOAD = "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen2.5-0.5B', dtype=torch.bfloat16)\n"
TRAIN = "trainer = Trainer(model, TrainingArguments('o', max_steps=1))\ntrainer.train()\n"
MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("the first, not one that is loaded for merging",
     LOAD + TRAIN + "base = AutoModelForCausalLM.from_pretrained('other', dtype=torch.float32)\n"
     "merged = PeftModel.from_pretrained(base, 'o').merge_and_unload()\n", {"base_dtype": "bf16", "method": "full"}),
    ("the second, which reaches the trainer", "teacher = AutoModelForCausalLM.from_pretrained('other')\n" + LOAD + TRAIN,
     {"base_dtype": "bf16"}),
    ("a model of half size", LOAD.replace("bfloat16", "float32") + "model.half()\n" + TRAIN, {"base_dtype": "fp16"}),
    ("a model that is moved to a type", LOAD + "model = model.to('cuda', torch.float32)\n" + TRAIN, {"base_dtype": "fp32"}),
    ("checkpointing by the model", LOAD + "model.gradient_checkpointing_enable()\n" + TRAIN, {"gradient_checkpointing": True}),
    ("adapters in 16 bit",
     LOAD + "model = get_peft_model(model, LoraConfig(r=2, target_modules='all-linear'), autocast_adapter_dtype=False)\n" + TRAIN,
     {"adapter_dtype": "bf16", "rank": 2}),
    ("an adapter that the model adds", LOAD + "model.add_adapter(LoraConfig(r=3, target_modules='all-linear'))\n" + TRAIN, {"rank": 3}),
    ("4 bit by a flag", LOAD.replace("dtype=torch.bfloat16", "load_in_4bit=True") + "model = prepare_model_for_kbit_training(model)\n"
     "model = get_peft_model(model, LoraConfig(r=2, target_modules='all-linear'))\n" + TRAIN,
     {"method": "qlora", "kbit_prepare": True, "gradient_checkpointing": True}),
    ("two branches that agree", "if torch.cuda.device_count() > 1:\n    " + LOAD + "else:\n    " + LOAD + TRAIN, {"base_dtype": "bf16"}),
    ("what is done after training is no part of it", LOAD + TRAIN + "model.half()\nmodel.gradient_checkpointing_enable()\n"
     "for p in model.parameters():\n    p.requires_grad = False\n", {"base_dtype": "bf16", "gradient_checkpointing": False}),
    ("a function that makes the model", "def make():\n    " + LOAD + "    return model\n"
     "trainer = Trainer(args=TrainingArguments('o', max_steps=1), model_init=make)\ntrainer.train()\n", {"base_dtype": "bf16"}),
    ("trained parameters in 16 bit", LOAD + "model = get_peft_model(model, LoraConfig(r=2, target_modules='all-linear'))\n"
     "for p in (p for p in model.parameters() if p.requires_grad):\n    p.data = p.data.to(torch.float16)\n" + TRAIN,
     {"adapter_dtype": "fp16"}),
    ("a collator that cuts", LOAD + "class Collator:\n    def __init__(self, length):\n        self.length = length\n"
     "    def __call__(self, rows):\n        return tokenizer(rows, truncation=True, max_length=self.length)\n"
     "Trainer(model, TrainingArguments('o', max_steps=1), Collator(77)).train()\n", {"seq_len_tokens": 77}),
    ("a type by a condition", LOAD.replace("torch.bfloat16",
     "torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16") + TRAIN,
     {"base_dtype": "bf16"}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text", "says"), MODELS, ids=[row[0] for row in MODELS])
def test_the_model_that_is_trained(what: str, text: str, says: dict[str, Any]) -> None:
    read = reading(BODY + text)
    assert read.model.id == "Qwen/Qwen2.5-0.5B"
    assert {name: getattr(value, "value", value) for name in says for value in [getattr(read.reading.plan, name)]} == says
    assert {remark.way for remark in read.reading.remarks if remark.id != "length-unbounded"} <= {None}


def test_a_sweep_is_told_to_train_more_than_once() -> None:
    sweep = "for rank in (8, 64):\n    " + LOAD + "    m = get_peft_model(model, LoraConfig(r=rank, target_modules='all-linear'))\n"
    found = parsed(BODY + sweep + "    Trainer(m, TrainingArguments('o', max_steps=1)).train()\n")
    assert [(remark.key, remark.way) for remark in found.remarks] == [("trainers", Way.UP)]


def test_lengths_that_differ_are_told() -> None:
    cut = "a = tokenizer(x, truncation=True, max_length=512)\nb = tokenizer(y, truncation=True, max_length=128)\n"
    found = parsed(BODY + LOAD + cut + TRAIN)
    assert found.values["seq_len"] == 512
    assert [(remark.key, remark.way) for remark in found.remarks] == [("seq_len", Way.UP)]


# --------------------------------------------------------------------------------------- values that the evaluator finds

VALUES = [
    ("2 ** 10 // 3 + 1", 342),
    ("f'{7 * 2}'", "14"),
    ("int('12') if 'a' in {'a': 1} else 0", 12),
    ("dict(a=[1, 2, 3])['a'][-1]", 3),
    ("sum([x * x for x in range(4) if x % 2])", 10),
    ("max(*(1, 5), 3)", 5),
    ("(lambda a, b=3: a * b)(4)", 12),
    ("{**{'a': 1}, 'b': 2}.get('c', 9)", 9),
    ("len('a,b,c'.split(','))", 3),
    ("next_power(5)", 8),
    ("Settings(batch=6).total", 12),
    ("Settings().batch", 4),
    ("int(os.environ.get('NOWHERE', '3'))", 3),
    ("counted", 6),
    ("getattr(Settings, 'batch')", 4),
    ("nested['a'][1]['b']", 2),
    ("min([3, 2]) and 7", 7),
    ("[*range(2), *(8, 9)][2]", 8),
    ("fallback()", 11),
    ("matched", 2),
]
HELPERS = """
import os
from dataclasses import dataclass, field
def next_power(n):
    power = 1
    while power < n:
        power *= 2
    return power
@dataclass
class Settings:
    batch: int = field(default=4)
    @property
    def total(self):
        return self.batch * 2
counted = 0
for number in (1, 2, 3):
    if number == 4:
        continue
    counted += number
nested = {"a": [0]}
nested["a"].append(dict(b=1))
nested["a"][1]["b"] += 1
def fallback(value=None):
    try:
        import flash_attn
    except ImportError:
        pass
    with open("x") as file:
        return value or 11
match nested["a"][0]:
    case 1:
        matched = 1
    case _:
        matched = 2
"""


@pytest.mark.parametrize(("expression", "value"), VALUES)
def test_a_value_is_followed(expression: str, value: object) -> None:
    found = parsed(f"from transformers import TrainingArguments\n{HELPERS}\nargs = TrainingArguments('o', run_name={expression})\n")
    assert found.values["run_name"] == value


OPEN = [
    ("os.environ['HOME']", "the environment's HOME"),
    ("random.choice([1, 2])", "random.choice"),
    ("16 if torch.cuda.device_count() > 1 else 4", "it depends on torch.cuda.device_count() > 1"),
    ("loaded['a']", "is read from x.json"),
    ("config.BATCH", "config.BATCH is not in the script"),
    ("10 ** 10 ** 10", "too large"),
    ("'a' * 10 ** 9", "too long"),
    ("eval('3')", "eval"),
    ("f'{3:1000000000}'", "not known"),
    ("batch_size", "batch_size is not in the script"),
]


@pytest.mark.parametrize(("expression", "words"), OPEN)
def test_what_cannot_be_known_is_unknown_and_never_a_default(expression: str, words: str) -> None:
    text = (
        "import os, random, json, torch\nimport config\nfrom transformers import TrainingArguments\nloaded = json.load(open('x.json'))\n"
        f"args = TrainingArguments('o', per_device_train_batch_size={expression})\n"
    )
    found = parsed(text)
    assert "per_device_train_batch_size" not in found.values
    assert words in found.unknown["per_device_train_batch_size"].why
    assert found.unknown["per_device_train_batch_size"].line in (0, 4, 5)


# ---------------------------------------------------------------------------------------- every setting has an effect, or a word

MOVING: dict[str, tuple[object, ...]] = {
    "per_device_train_batch_size": (8,),
    "gradient_accumulation_steps": (1,),
    "gradient_checkpointing": (True, False),
    "bf16": (True, False),
    "fp16": (False,),
    "optim": ("adamw_torch_fused",),
    "max_length": (1024,),
    "max_seq_length": (1024,),
    "r": (8,),
    "target_modules": (("q_proj", "v_proj"),),
    "use_dora": (False,),
    "peft_config": (),
    "load_in_4bit": (False,),
    "load_in_8bit": (False,),
    "bnb_4bit_use_double_quant": (False,),
    "quantization_config": (),
    "dtype": ("torch.bfloat16",),
    "torch_dtype": ("torch.bfloat16",),
    "attn_implementation": ("sdpa",),
}
"""Settings that move memory, and what may be taken where one is left out (transformers 5.23, trl 1.16, peft 0.21, the checkpoint)."""
CALLS = ("TrainingArguments", "SFTConfig", "LoraConfig", "BitsAndBytesConfig", "from_pretrained", "get_peft_model", "SFTTrainer", "Trainer")
STARTS = {
    "trl_sft": "--model_name_or_path Qwen/Qwen2-0.5B --dataset_name x --use_peft --lora_target_modules q_proj --load_in_4bit",
    "philschmid_fsdp_qlora": "--model_id Qwen/Qwen2-0.5B",
    "alpaca_lora": "--base_model huggyllama/llama-7b",
    "peft_dora": "--quantize",
}
MUTATED = ("trl_sft", "philschmid_fsdp_qlora", "alpaca_lora", "peft_dora", "mlabonne_llama2", "modules_to_save", "class_cfg", "f3_argparse")


def _settings_of(name: str) -> list[tuple[str, int]]:
    """Settings in calls that decide a training: the name and which one of the script's keywords it is."""
    found = []
    tree = ast.parse(sample(name))
    trained = max(node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "train")
    for number, (call, keyword) in enumerate(_keywords(tree)):
        called = ast.unparse(call.func)
        known = called.rpartition(".")[2] in CALLS and "Tokenizer" not in called
        if known and keyword.arg in MOVING and keyword.value.lineno < trained:
            found.append((str(keyword.arg), number))
    return found


def _keywords(tree: ast.Module) -> list[tuple[ast.Call, ast.keyword]]:
    return [(node, keyword) for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords]


def _outcome(tree: ast.Module, name: str) -> tuple[object, ...]:
    try:
        read = reading(ast.unparse(tree), *STARTS.get(name, "").split())
    except AdvisorError as error:
        return (str(error),)
    told = tuple(sorted((remark.id, remark.key, str(remark.way)) for remark in read.reading.remarks))
    return (read.reading.plan, told)


@pytest.mark.parametrize("name", MUTATED)
def test_a_setting_that_is_renamed_or_deleted_or_made_unknown_changes_the_answer(name: str) -> None:
    before = _outcome(ast.parse(sample(name)), name)
    assert len(before) > 1, before
    settings_here = _settings_of(name)
    assert settings_here
    for setting, number in settings_here:
        renamed, deleted, unknown = (ast.parse(sample(name)) for _ in range(3))
        call, keyword = _keywords(renamed)[number]
        keyword.arg = f"{setting}_x"
        assert _outcome(renamed, name) != before, f"{setting} renamed"
        call, keyword = _keywords(deleted)[number]
        call.keywords.remove(keyword)
        if not _is_default(name, setting):
            assert _outcome(deleted, name) != before, f"{setting} deleted"
        _keywords(unknown)[number][1].value = ast.parse("somewhere.mystery()", mode="eval").body
        after = _outcome(unknown, name)
        assert after != before, f"{setting} unknown"


def _is_default(name: str, setting: str) -> bool:
    """Whether the script says just what the library would take without it."""
    said = parsed(sample(name), *STARTS.get(name, "").split()).values
    flat = {**said.get("quantization_config", {}), **said.get("peft", {}), **said}
    value = flat.get(setting)
    return value is None or (tuple(value) if isinstance(value, list) else value) in MOVING[setting]


# ------------------------------------------------------------------------------------------------------- nothing hangs, nothing runs

HOSTILE = {
    "an endless loop": "while True:\n    x = 1\n",
    "a long loop": "for i in range(10**9):\n    x = i\n",
    "loops in loops": "a = list(range(2000))\nfor i in a:\n    for j in a:\n        for k in a:\n            x = i\n",
    "endless recursion": "def f(n):\n    return f(n + 1)\nx = f(0)\n",
    "branching recursion": "def f(n):\n    return f(n - 1) + f(n - 1)\nx = f(10**6)\n",
    "unknown branches in recursion": "def f(n):\n    if mystery():\n        return f(n + 1)\n    return f(n + 2)\nx = f(0)\n",
    "a text that doubles": "s = 'a'\nfor i in range(100):\n    s = s + s\n",
    "a list that doubles": "s = [1]\nfor i in range(100):\n    s = s + s\n",
    "a list that holds itself": "s = []\nfor i in range(100):\n    s.append(s)\nx = s == s\n",
    "a dict that holds itself": "d = {}\nd['a'] = d\ne = {}\ne['a'] = e\nx = d == e\nif mystery():\n    d['b'] = e\n",
    "powers": "x = 9 ** 9 ** 9 ** 9\n",
    "shifts": "x = 1 << 10**10\n",
    "formats": "x = '%1000000000d' % 1\ny = '{:>1000000000}'.format(1)\nz = f'{1:>1000000000}'\n",
    "replace": "s = 'a' * 50000\nfor i in range(9):\n    s = s.replace('a', s)\n",
    "join": "s = 'a' * 40000\nx = s.join(list(s))\n",
    "deep nesting": "x = " + "(" * 90 + "1" + ")" * 90 + "\n",
    "a long sum": "x = " + "+".join(["1"] * 5000) + "\n",
    "a module that imports itself": "from train import x\n",
    "dunder attributes": "x = ().__class__.__bases__[0].__subclasses__()\ny = (1).__class__.__mro__\n",
    "a format that reaches in": "x = '{0.__class__.__mro__}'.format(3)\n",
    "a class that is its own base": "class A:\n    pass\nclass A(A):\n    pass\nx = A()\n",
    "imports": "import os\nos.system('touch WAS_RUN')\n__import__('os').system('touch A')\nopen('B', 'w').write('x')\nexec('1')\n",
}
TAIL = "from transformers import AutoModelForCausalLM as A, TrainingArguments\nm = A.from_pretrained('gpt2')\na = TrainingArguments('o')\n"
MOST_SECONDS = 10
"""Judgement: a script within the budget takes under two on a slow core."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_script_neither_hangs_nor_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    assert "\n" not in _line_or_nothing(HOSTILE[name] + TAIL, written(tmp_path, HOSTILE[name] + TAIL))
    assert time.monotonic() - started < MOST_SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def _line_or_nothing(text: str, path: Path) -> str:
    """The line that a script is refused with; empty where it is read. No other exception may leave the evaluator."""
    try:
        parse_script(text, path)
    except AdvisorError as error:
        return str(error)
    return ""


PIECES = st.sampled_from(
    ["x = {}", "y = x", "x = y or 3", "if {}:\n    x = {}\nelse:\n    y = 1", "for i in {}:\n    x = i",
    "def f(a, b={}):\n    return a\nx = f({})",
     "x = [i for i in {}]", "d = dict(a={}, **y)", "x.a = {}", "x[{}] = 1", "x += {}", "class C:\n    a = {}\nx = C().a",
      "try:\n    x = {}\nexcept E:\n    y = {}",
     "with {} as x:\n    pass", "while {}:\n    x = 1\n    break", "x, y = {}", "del x", "lambda z: {}", "x = TrainingArguments(**{})",
      "x = f'{{y}}{{{}}}'",
     "m = AutoModelForCausalLM.from_pretrained({}, dtype={})", "Trainer(model={}, args={}).train()", "x = y.a.b({}, k={})",
      "assert {}", "x = LoraConfig(r={})",
     "p = argparse.ArgumentParser()\np.add_argument({}, default={})\nx = p.parse_args()",
      "x = HfArgumentParser({}).parse_args_into_dataclasses()"]
)  # fmt: skip
ATOMS = st.sampled_from(
    ["1", "'a'", "None", "[]", "{}", "(1, 2)", "x", "y", "undefined", "1 + 'a'", "x[0]", "[1][5]", "-x", "not y", "x < y", "x in y",
    "'a'.join([1])",
     "int('q')", "f()", "(lambda: x)()", "torch.bfloat16", "os.environ.get('A')", "x if y else 1", "range(-1)", "max([])", "zip(x, y)",
      "{**x}", "x.y"]
)  # fmt: skip


@given(st.lists(st.tuples(PIECES, st.lists(ATOMS, min_size=3, max_size=3)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_script_comes_to_settings_or_one_line(pieces: list[tuple[str, list[str]]]) -> None:
    text = "\n".join(piece.format(*atoms) for piece, atoms in pieces)
    assert "\n" not in _line_or_nothing(text + "\n" + TAIL, Path("train.py"))


# ------------------------------------------------------------------------------------- Python itself decides what a value is

NUMBERS = st.sampled_from(["1", "2", "3", "a", "b", "len(l)", "d.get('k', 7)", "l[0]", "f(a)", "sum(l)", "int('4')", "(a if b > 2 else b)"])
TESTS = st.sampled_from(
    ["a > b", "a == 2", "b % 2", "mystery()", "mystery() and a > 1", "a > 1 or mystery()", "not mystery()", "len(l) > 2", "'k' in d"]
)
SIMPLE = st.one_of(
    st.builds("a = {}".format, NUMBERS),
    st.builds("b = {} + {}".format, NUMBERS, NUMBERS),
    st.builds("a += {}".format, NUMBERS),
    st.builds("l.append({})".format, NUMBERS),
    st.builds("l = [{}, {}]".format, NUMBERS, NUMBERS),
    st.builds("l = [x + 1 for x in l if x > {}] or [9]".format, NUMBERS),
    st.builds("m = l; m.append({})".format, NUMBERS),
    st.builds("d['k'] = {}".format, NUMBERS),
    st.builds("d = dict(d, k={})".format, NUMBERS),
    st.builds("d.update(j={})".format, NUMBERS),
    st.builds("o.x = {}; a = o.x".format, NUMBERS),
    st.builds("p = o; p.x = {}; b = o.x".format, NUMBERS),
    st.builds("a, b = b, {}".format, NUMBERS),
    st.builds("b = (lambda x, y={}: x + y)(a)".format, NUMBERS),
    st.builds("b = g(l)".format),
    st.builds("a = {} if {} else {}".format, NUMBERS, TESTS, NUMBERS),
)


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for text in lines or ["pass"] for line in text.split("\n"))


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, max_size=3).map(_indented)
    return st.one_of(
        st.builds("if {}:\n{}\nelse:\n{}".format, TESTS, body, body),
        st.builds("for i in [1, 2]:\n{}\n    if {}:\n        break".format, body, TESTS),
        st.builds("for i in range(2):\n    if {}:\n        continue\n{}".format, TESTS, body),
        st.builds("n = 0\nwhile n < 2:\n    n += 1\n{}".format, body),
        st.builds("def f(x):\n    if {}:\n        return x + 1\n    return {}".format, TESTS, st.sampled_from(["x", "2", "x * 2"])),
        st.builds("def g(x):\n    if {}:\n        x.append(5)\n        return 1\n    x.append(6)\n    return 2".format, TESTS),
        st.builds("try:\n{}\nexcept ValueError:\n    a = 1".format, body),
    )


PROGRAMS = st.lists(st.recursive(SIMPLE, _blocks, max_leaves=8), min_size=1, max_size=8).map("\n".join)
BEFORE = "a, b, l, d = 1, 2, [3], {}\nclass O:\n    x = 1\no = O()\ndef f(x):\n    return x\ndef g(x):\n    return 0\n"
AFTER = "TrainingArguments('o', run_name=a, project=b, debug=l, lr_scheduler_kwargs=d)\n"


@given(PROGRAMS, st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=120, deadline=None)
def test_a_value_that_is_known_is_what_python_makes_of_it(program: str, answers: list[bool]) -> None:
    """Python runs the program with one answer or another to each condition that the evaluator cannot know."""
    turn = iter(range(10**6))
    names: dict[str, Any] = {"mystery": lambda: answers[next(turn) % len(answers)]}
    exec(BEFORE + program, names)  # own text, made of the pieces above
    found = parsed(f"{BEFORE}{program}\n{AFTER}").values
    for name, held in (("run_name", "a"), ("project", "b"), ("debug", "l"), ("lr_scheduler_kwargs", "d")):
        if name in found and (name != "lr_scheduler_kwargs" or found[name].keys() == names[held].keys()):
            assert found[name] == names[held], program


# --------------------------------------------------------------------------------------------------- the libraries' own classes


def test_the_names_of_arguments_are_the_libraries() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    from peft import LoraConfig
    from transformers import Seq2SeqTrainingArguments
    from trl import SFTConfig

    assert {field.name for kind in (SFTConfig, Seq2SeqTrainingArguments) for field in fields(kind)} <= ARGUMENTS
    assert {field.name for field in fields(LoraConfig)} - {"lora_bias"} <= ADAPTER | {"lora_bias"}


def test_the_defaults_that_scripts_read_are_the_libraries() -> None:
    pytest.importorskip("trl")
    from transformers import TrainingArguments
    from trl import ModelConfig, ScriptArguments, SFTConfig

    from advisor.stacks.script.defaults import TABLES

    left = {"output_dir", "report_to", "gradient_checkpointing", "loss_type"}
    for kind in (TrainingArguments, SFTConfig, ModelConfig, ScriptArguments):
        real = {field.name: field.default for field in fields(kind)}
        table = {name: value for name, value in TABLES[kind.__name__].items() if name in real and name not in left}
        assert table == {name: real[name] for name in table}
        assert len(table) > 5


def test_the_plan_of_a_written_script_is_what_was_written(tmp_path: Path) -> None:
    assert run(["config", "--stack", "hf", "--model", "llama-3-8b", "--gpu", "24GB", "--out", str(tmp_path / "a.py")]) == 0
    plan = check(tmp_path / "a.py", "24GB").plan
    assert isinstance(plan, Plan)
    assert (plan.method.value, plan.stack.value) == ("lora", "hf")
