"""`advise check` and `advise config`: findings as a table, exit codes, annotations, and everything that a bad file is refused for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.run import run
from advisor.configs import check
from advisor.configs.files import CheckOptions, read_config
from advisor.errors import AdvisorError, UnsupportedError
from advisor.render import check as render
from advisor.render.terminal import Look, draw
from advisor.values import Fit, Stack
from advisor.yaml_files import LARGEST_BYTES

AXOLOTL = {
    "base_model": "meta-llama/Llama-3.1-8B",
    "adapter": "qlora",
    "load_in_4bit": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "sequence_len": 2048,
    "micro_batch_size": 1,
    "gradient_checkpointing": True,
    "bf16": True,
    "attn_implementation": "flash_attention_2",
    "optimizer": "adamw_bnb_8bit",
    "learning_rate": 2e-4,
    "liger_fused_linear_cross_entropy": True,
}
LORA = {"adapter": "lora", "load_in_4bit": None}
TRL = {
    "model_name_or_path": "meta-llama/Llama-3.1-8B",
    "dtype": "bfloat16",
    "use_peft": True,
    "lora_r": 16,
    "lora_target_modules": "all-linear",
    "max_length": 1024,
    "per_device_train_batch_size": 1,
}
HF = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "output_dir": "out", "block_size": 1024, "bf16": True}
ADAPTER = {"base_model_name_or_path": "meta-llama/Llama-3.1-8B", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
BASES = {"axolotl": AXOLOTL, "trl": TRL, "hf": HF}


def written(folder: Path, base: str = "axolotl", **changes: Any) -> Path:
    path = folder / f"train.{'json' if base == 'hf' else 'yaml'}"
    if base == "hf":  # peft's file beside it
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | changes.pop("peft", {})), encoding="utf-8")
    path.write_text(json.dumps({**BASES[base], **changes}), encoding="utf-8")  # JSON is YAML
    return path


# (id, base, changes, GPU): the finding is there with them, and not on the base's own file on an 80 GB card
FOUND = [
    ("does-not-fit", "axolotl", LORA | {"sequence_len": 16384}, "12GB"),
    ("fit-uncertain", "axolotl", {}, "7.5GiB"),
    ("fits-tightly", "axolotl", {"sequence_len": 4096}, "10.5GiB"),
    ("rank-above-matrix", "axolotl", {"lora_r": 2048}, "80GB"),
    ("rank-high", "axolotl", {"lora_r": 256}, "80GB"),
    ("targets-match-nothing", "axolotl", {"lora_target_linear": False, "lora_target_modules": ["q_proj", "query"]}, "80GB"),
    ("targets-without-mlp", "axolotl", {"lora_target_linear": False, "lora_target_modules": ["q_proj", "v_proj"]}, "80GB"),
    ("checkpointing-off", "axolotl", {"gradient_checkpointing": False}, "80GB"),
    ("whole-logits", "axolotl", {"liger_fused_linear_cross_entropy": False, "micro_batch_size": 8}, "80GB"),
    ("dora-dropout", "axolotl", {"peft_use_dora": True, "lora_dropout": 0.1}, "80GB"),
    ("saved-whole", "axolotl", {"adapter": None, "load_in_4bit": False, "dp_shard_size": 4}, "80GB"),
    ("modules-to-save", "axolotl", {"lora_modules_to_save": ["embed_tokens", "lm_head"]}, "80GB"),
    ("evaluation-larger", "axolotl", {"val_set_size": 0.1, "eval_batch_size": 64}, "80GB"),
    ("quantized-needlessly", "axolotl", {}, "80GB"),
    ("not-priced", "axolotl", {"torch_compile": True}, "80GB"),
    ("not-priced", "axolotl", {"optimizer": "muon"}, "80GB"),
    ("not-priced", "axolotl", LORA | {"adapter": None, "attn_implementation": "sdpa"}, "80GB"),
    ("not-priced", "hf", {"peft": {"rank_pattern": {"q_proj": 64}}}, "80GB"),
    ("not-priced", "hf", {"peft": {"bias": "all"}}, "80GB"),
    ("unknown-key", "axolotl", {"lora_rr": 8}, "80GB"),
    ("unknown-key", "hf", {"peft": {"use_magic": True}}, "80GB"),
    ("unknown-key", "trl", {"keep_twice": 2}, "80GB"),
    (
        "not-priced",
        "axolotl",
        {"adapter": "qlora", "load_in_4bit": True, "bnb_config_kwargs": {"llm_int8_skip_modules": ["lm_head"]}},
        "80GB",
    ),
    ("gpus-unknown", "axolotl", {"deepspeed": "deepspeed_configs/zero3.json"}, "80GB"),
    ("length-unbounded", "trl", {"max_length": None}, "80GB"),
    ("seq-beyond-positions", "axolotl", {"base_model": "meta-llama/Meta-Llama-3-8B", "sequence_len": 16384}, "80GB"),
    ("bf16-unsupported", "axolotl", {}, "V100 32GB"),
]


@pytest.mark.parametrize(("id", "base", "changes", "gpu"), FOUND, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_noticed(id: str, base: str, changes: dict[str, Any], gpu: str, tmp_path: Path) -> None:
    found = [finding for finding in check(written(tmp_path, base, **changes), gpu).findings if finding.id == id]
    assert found
    assert all(finding.message and "\n" not in finding.message for finding in found)
    if changes:
        assert id not in {finding.id for finding in check(written(tmp_path, base), "80GB").findings}


def test_the_helper_of_peft_is_noticed_by_release(tmp_path: Path) -> None:
    """trl called `prepare_model_for_kbit_training` up to 0.25: the release decides, the flag overrides, the answer names it."""
    path = written(tmp_path, "trl", load_in_4bit=True, torch_dtype="bfloat16")
    old, new = (check(path, "80GB", stack_version=version) for version in ("0.25", "1.16"))
    assert (old.plan.kbit_prepare, new.plan.kbit_prepare) == (True, False)
    assert old.profile == "trl 0.25 (as asked for)"
    assert new.profile == "trl 1.16 (as asked for)"
    assert old.expected_bytes > new.expected_bytes
    assert "kbit-upcast" in {finding.id for finding in old.findings}
    assert "kbit-upcast" not in {finding.id for finding in new.findings}


def test_the_loss_in_chunks_is_a_matter_of_the_release(tmp_path: Path) -> None:
    losses = [check(written(tmp_path, "trl"), stack_version=version).plan.loss.value for version in ("1.6", "1.7", "1.16")]
    assert losses == ["full", "chunked", "chunked"]


# (changes, options, release that speaks): trl pull request 3912, "max_seq_length was deprecated in 0.16 and removed in 0.20"
@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"max_length": None, "max_seq_length": 1024}, {}, "trl 0.19.1 (the last that takes max_seq_length, which the file sets)"),
        ({"max_length": None, "max_seq_length": 1024}, {"stack_version": "1.16"}, "trl 1.16 (as asked for)"),
        ({}, {}, "trl 1.16.0 (installed)"),
    ],
)
def test_a_setting_that_later_releases_refuse_tells_the_release(
    changes: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor.stacks import versions

    monkeypatch.setattr(versions, "installed_version", {"trl": "1.16.0"}.get)
    assert check(written(tmp_path, "trl", **changes), **options).profile == said


def test_unsloth_takes_the_older_name_on_every_release(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text((Path(__file__).parent / "data" / "scripts" / "unsloth_alpaca_marimo.txt").read_text(encoding="utf-8"))
    assert "max_seq_length" in path.read_text(encoding="utf-8")
    assert "max_seq_length" not in check(path, stack_version=None).profile


# axolotl utils/config/__init__.py resolve_dtype and core/builders/base.py _configure_precision_settings: (settings, weights, autocast in)
@pytest.mark.parametrize(
    ("settings", "dtype", "autocast"),
    [
        ({"bf16": False, "fp16": False, "float16": True}, "fp16", None),
        ({"bf16": False, "fp16": True, "float16": None}, "fp16", "fp16"),
        ({"bf16": False, "fp16": False, "bfloat16": True}, "bf16", "bf16"),
        ({"bf16": False, "fp16": False}, "fp32", None),
        ({"bf16": True}, "bf16", "bf16"),
    ],
)
def test_the_types_of_axolotl(settings: dict[str, Any], dtype: str, autocast: str | None, tmp_path: Path) -> None:
    plan = check(written(tmp_path, **LORA, **settings)).plan
    assert plan.base_dtype.value == dtype
    assert (plan.autocast_dtype.value if plan.autocast else None) == autocast


# (model as the file says it, id): a path of another machine is taken by its folder's name where that is a known one, and never read
@pytest.mark.parametrize(
    ("named", "id"),
    [
        ("/data1/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("/sshfs/pretrains/Qwen/Qwen1.5-7B-Chat/", "Qwen/Qwen1.5-7B-Chat"),
        ("../llama-7b-hf", "huggyllama/llama-7b"),
        ("./models/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("models/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("D:\\models\\Qwen3-8B", "Qwen/Qwen3-8B"),
        ("/c/models--Qwen--Qwen2.5-7B-Instruct/snapshots/6e6556e8ce728c7b3e438d75ebf04ec93403dc19", "Qwen/Qwen2.5-7B-Instruct"),
    ],
)
def test_a_model_s_path_on_another_machine_is_taken_by_its_name(named: str, id: str, tmp_path: Path) -> None:
    model = read_config(written(tmp_path, base_model=named), None, CheckOptions()).model
    assert model.id == id
    assert model.resolved_from.startswith(f"model {named!r} → ")
    assert "the name of its folder, in which nothing was read" in model.resolved_from


@pytest.mark.parametrize("named", ["/data/final", "/data/checkpoint-500", "/data/large", "/data/my-qwen3-8b-sft"])
def test_a_path_of_no_known_name_is_refused(named: str, tmp_path: Path) -> None:
    with pytest.raises(AdvisorError, match="outside of its project"):
        check(written(tmp_path, base_model=named), "80GB")


@pytest.mark.parametrize("release", ["0.19", "0.19.0", "v0.19", "0.19.0.dev0", "0.19rc1", "0.19.0+cu126", "0.19.post1"])
def test_a_release_is_understood_as_packages_write_it(release: str, tmp_path: Path) -> None:
    assert check(written(tmp_path), stack_version=release).profile.startswith(f"axolotl {release} ")


@pytest.mark.parametrize(
    ("base", "release", "oldest"), [("axolotl", "0.6", "0.7"), ("hf", "4.47.1", "4.48"), ("hf", "4.48", ""), ("axolotl", "0.7", "")]
)
def test_a_release_on_an_older_transformers_is_refused(base: str, release: str, oldest: str, tmp_path: Path) -> None:
    path = written(tmp_path, base)
    if not oldest:
        assert check(path, "80GB", stack_version=release).fit is Fit.FITS
        return
    with pytest.raises(UnsupportedError, match=f"{release} is not priced: {oldest} is the oldest that is"):
        check(path, "80GB", stack_version=release)


# (name of the checkpoint, LoRA's verdict on 12 GB, where 8B in 16 bit does not fit): a mark of quantised weights is priced or opens it
@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("meta-llama/Llama-3.1-8B", Fit.DOES_NOT_FIT),
        ("someone/Llama-3.1-8B-AWQ", Fit.FITS),
        ("someone/llama-3.1-8b-bnb-4bit", Fit.FITS),
        ("someone/Llama-3.1-8B-GPTQ-Int4", Fit.FITS),
        ("someone/Llama-3.1-8B-FP8", Fit.UNCERTAIN),
        ("someone/Llama-3.1-8B-exl2", Fit.UNCERTAIN),
        ("someone/Llama-3.1-8B-HQQ-4bit", Fit.UNCERTAIN),
        ("someone/Llama-3.1-8B-abc", Fit.DOES_NOT_FIT),
    ],
)
def test_a_checkpoint_that_is_quantised_by_its_name_is_said(name: str, fit: Fit, tmp_path: Path) -> None:
    report = check(written(tmp_path, **LORA, base_model=name), "12GB", model="llama-3.1-8b")
    assert report.fit is fit


def test_a_release_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.stacks import versions

    monkeypatch.setattr(versions, "installed_version", {"axolotl": "0.12.2"}.get)
    assert check(written(tmp_path)).profile == "axolotl 0.12.2 (installed)"
    assert check(written(tmp_path, "trl")).profile.startswith("trl 1.16 (not installed here")


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"torch_compile": True}, Fit.UNCERTAIN),
        ({"unsloth_lora_mlp": True}, Fit.FITS),
        ({"fp32_norms": True}, Fit.UNCERTAIN),
        ({"my_own_key": 3}, Fit.UNCERTAIN),
        ({"my_own_key": None}, Fit.FITS),
        ({"neftune_noise_alpha": 5}, Fit.FITS),  # a tensor of the hidden states, which is bounded
        ({"tensor_parallel_size": 1, "context_parallel_size": 1}, Fit.FITS),
    ],
)
def test_what_is_not_priced_may_turn_the_verdict(changes: dict[str, Any], way: Fit, tmp_path: Path) -> None:
    """What only saves memory leaves "fits"; what may add some does not."""
    assert check(written(tmp_path, **changes), "80GB").fit is way


# (changes beside a LoRA that needs some 19 GiB, 15 of them weights; card, verdict): what saves memory is bounded where arithmetic bounds it
TURNED = [
    ({"unsloth_lora_mlp": True}, "12GB", Fit.DOES_NOT_FIT),  # fused kernels leave the weights
    ({"unsloth_lora_mlp": True}, "18GiB", Fit.UNCERTAIN),
    ({"tensor_parallel_size": 1}, "12GB", Fit.DOES_NOT_FIT),  # axolotl's own validation writes it
    ({"tensor_parallel_size": 2}, "12GB", Fit.UNCERTAIN),
    ({"tensor_parallel_size": 2}, "6GB", Fit.DOES_NOT_FIT),
    ({"sequence_len": 10**6, "context_parallel_size": 2}, "24GB", Fit.DOES_NOT_FIT),
    ({"sequence_len": 500_000, "lora_mlp_kernel": True, "lora_qkv_kernel": True, "lora_o_kernel": True}, "80GB", Fit.DOES_NOT_FIT),
    ({"sequence_len": 16_384, "lora_mlp_kernel": True}, "40GiB", Fit.UNCERTAIN),
    ({"fp32_norms": True}, "12GB", Fit.DOES_NOT_FIT),  # it can only raise it
    ({"my_own_key": 3}, "12GB", Fit.UNCERTAIN),
]


@pytest.mark.parametrize(("changes", "gpu", "fit"), TURNED)
def test_what_saves_memory_turns_a_refusal_where_it_can(changes: dict[str, Any], gpu: str, fit: Fit, tmp_path: Path) -> None:
    report = check(written(tmp_path, **LORA, **changes, liger_fused_linear_cross_entropy=False), gpu)
    assert report.fit is fit
    assert report.exit_code == {Fit.DOES_NOT_FIT: 1, Fit.UNCERTAIN: 3}[fit]
    if fit is Fit.UNCERTAIN:
        assert list(changes)[-1] in report.reason
    assert report.reason in "".join(finding.message for finding in report.findings)


VALIDATED = {
    "base_model_config": "meta-llama/Llama-3.1-8B",
    "device": "cuda:0",
    "device_map": "auto",
    "tensor_parallel_size": 1,
    "context_parallel_size": 1,
    "world_size": 1,
    "local_rank": 0,
    "ddp": False,
    "trl": {"use_vllm": False, "vllm_server_host": "0.0.0.0", "vllm_server_port": 8000},
    "vllm": {"device": "auto", "dtype": "auto"},
    "eval_table_size": 0,
    "eval_max_new_tokens": 128,
    "eval_causal_lm_metrics": ["sacrebleu", "comet", "ter", "chrf"],
    "generate_samples": False,
    "layer_offloading": False,
    "use_ray": False,
    "is_llama_derived_model": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
}
"""What axolotl 0.19's own validation adds to a configuration (utils/config/__init__.py, utils/schemas/config.py)."""
KERNELS = {"lora_mlp_kernel": True, "lora_qkv_kernel": True, "lora_o_kernel": True}


@pytest.mark.parametrize(("sequence_len", "fit"), [(2048, Fit.FITS), (500_000, Fit.DOES_NOT_FIT)])
def test_what_the_framework_s_validation_adds_leaves_the_verdict_firm(sequence_len: int, fit: Fit, tmp_path: Path) -> None:
    """14.9 TiB do not become 80 GB by fused kernels."""
    loss = {"liger_fused_linear_cross_entropy": False}
    report = check(written(tmp_path, **VALIDATED, **KERNELS, **loss, sequence_len=sequence_len), "80GB")
    assert report.fit is fit
    assert {finding.id for finding in report.findings} & {"unknown-key"} == set()
    assert "only lower" in report.reason


# (base, changes, the setting): the library refuses it, so that the training would not start
NONSENSE = [
    ("hf", {"peft": {"lora_dropout": 7}}, "lora_dropout is 7"),
    ("axolotl", {"lora_dropout": 7}, "lora_dropout is 7"),
    ("trl", {"lora_dropout": 7}, "lora_dropout is 7"),
    ("trl", {"learning_rate": -1}, "learning_rate is -1"),
    ("axolotl", {"learning_rate": "-2e-4"}, "learning_rate is -0.0002"),
    ("hf", {"num_train_epochs": 0}, "num_train_epochs is 0"),
    ("axolotl", {"num_epochs": 0}, "num_epochs is 0"),
    ("trl", {"bf16": True, "fp16": True}, "bf16 and fp16 are both on"),
    ("axolotl", {"fp16": True}, "bf16 and fp16 are both on"),
    ("trl", {"lora_target_modules": []}, "lora_target_modules is empty"),
    ("hf", {"peft": {"target_modules": []}}, "target_modules is empty"),
    ("axolotl", {"lora_target_linear": False}, "neither lora_target_modules nor lora_target_linear"),
    ("trl", {"warmup_steps": -5}, "warmup_steps is -5"),
    ("axolotl", {"adam_beta2": 1.5}, "adam_beta2 is 1.5"),
    ("trl", {"lr_scheduler_type": "bogus"}, "lr_scheduler_type is bogus"),
]


@pytest.mark.parametrize(("base", "changes", "said"), NONSENSE, ids=[f"{row[0]}-{row[2][:30]}" for row in NONSENSE])
def test_what_would_not_start_is_no_fit(base: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    report = check(written(tmp_path, base, **changes), "80GB")
    assert report.exit_code == 1
    assert said in report.stops
    assert f"Would not start: {report.stops[:20]}" in draw(render.check(report), Look(width=400))


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("trl", {"num_train_epochs": 0, "max_steps": 10}),
        ("trl", {"learning_rate": 0}),
        ("trl", {"use_peft": False, "lora_target_modules": []}),
        ("axolotl", {"bf16": "auto", "fp16": False}),
        ("axolotl", {"lora_dropout": -1}),  # peft 0.21 makes no dropout of it
    ],
)
def test_what_the_libraries_take_starts(base: str, changes: dict[str, Any], tmp_path: Path) -> None:
    assert not check(written(tmp_path, base, **changes), "80GB").stops


# (base, changes, trainer): never a number of supervised fine-tuning for another objective, --model given or not
TRAINERS = [
    ("trl", {"beta": 0.1, "max_prompt_length": 512}, "DPOTrainer"),
    ("trl", {"loss_type": "sigmoid", "precompute_ref_log_probs": False}, "DPOTrainer"),
    ("trl", {"loss_type": ["sigmoid", "sft"]}, "DPOTrainer"),
    ("trl", {"loss_type": "dapo"}, "GRPOTrainer"),
    ("trl", {"desirable_weight": 1.0}, "KTOTrainer"),
    ("trl", {"center_rewards_coefficient": 0.01}, "RewardTrainer"),
    ("trl", {"num_generations": 8, "use_vllm": True, "vllm_mode": "colocate"}, "GRPOTrainer"),
    ("trl", {"lmbda": 0.5, "teacher_model_name_or_path": "x", "seq_kd": True}, "GKDTrainer"),
    ("trl", {"num_ppo_epochs": 4}, "PPOTrainer"),
    ("hf", {"num_generations": 8}, "GRPOTrainer"),
    ("axolotl", {"rl": "grpo"}, "rl: grpo"),
    ("axolotl", {"reward_model": True}, "reward modelling"),
    ("axolotl", {"process_reward_model": True}, "process reward modelling"),
    ("axolotl", {"plugins": ["axolotl.integrations.diffusion.DiffusionPlugin"]}, "DiffusionPlugin"),
    ("axolotl", {"plugins": ["axolotl.integrations.kd.KDPlugin"], "kd_trainer": True}, "KDPlugin|distillation"),
]


@pytest.mark.parametrize(("base", "changes", "trainer"), TRAINERS, ids=[f"{row[0]}-{row[2]}-{n}" for n, row in enumerate(TRAINERS)])
@pytest.mark.parametrize("model", [None, "mistral-7b"])
def test_another_objective_is_refused_by_its_trainer(
    base: str, changes: dict[str, Any], trainer: str, model: str | None, tmp_path: Path
) -> None:
    options = {} if model is None else {"model": model}
    with pytest.raises(UnsupportedError, match=f"trains by another objective: .*({trainer})"):
        check(written(tmp_path, base, **changes), "80GB", **options)


LLAMAFACTORY = "model_name_or_path: meta-llama/Meta-Llama-3-8B\ntemplate: llama3\ncutoff_len: 512\n"
# (file, words of the refusal): another job, nothing trained, another framework
REFUSED = [
    *[(f"{LLAMAFACTORY}do_train: true\nstage: {stage}\n", f"stage {stage}") for stage in ("rm", "ppo", "dpo", "kto")],
    (f"{LLAMAFACTORY}do_train: true\nuse_mca: true\n", "Megatron"),
    (f"{LLAMAFACTORY}infer_backend: huggingface\n", "trains nothing"),
    (f"{LLAMAFACTORY}export_dir: out\nadapter_name_or_path: x\n", "trains nothing"),
    (f"{LLAMAFACTORY}do_predict: true\n", "trains nothing"),
    ("model: Qwen/Qwen3-4B\npeft_config:\n  name: lora\noutput_dir: o\nmicro_batch_size: 1\n", "LLaMA-Factory v1"),
    ("model: Qwen/Qwen3-4B\nquant_config: null\ndist_config:\n  name: fsdp2\noutput_dir: o\n", "LLaMA-Factory v1"),
    ("model_name_or_path: x\nuse_slow_tokenizer: true\nwith_tracking: true\nmax_seq_length: 1024\n", "open-instruct"),
    ("model_name_or_path: Qwen/Qwen3-4B\ntensor_model_parallel_size: 2\noutput_dir: o\n", "Megatron"),
    ("model: Qwen/Qwen2.5-7B\nrlhf_type: grpo\ntrain_type: lora\n", "rlhf_type grpo"),
    ("model: Qwen/Qwen2.5-7B\nnum_generations: 8\ntrain_type: lora\n", "swift rlhf"),
    (
        "model_name_or_path: Qwen/Qwen2.5-7B\nper_device_train_batch_size: 1\ndo_train: false\ndo_eval: true\noutput_dir: o\n",
        "trains nothing",
    ),
    ("actor_rollout_ref:\n  model: x\n", "verl"),
    *[
        (f"model:\n  _component_: torchtune.models.llama3.llama3_8b\nbatch_size: 1\n{extra}", words)
        for extra, words in (
            ("optimizer:\n  _component_: torch.optim.AdamW\nloss:\n  _component_: torchtune.rlhf.loss.DPOLoss\n", "DPOLoss"),
            ("optimizer:\n  _component_: torch.optim.AdamW\ngrpo_samples: 4\n", "GRPO"),
            ("optimizer:\n  _component_: torch.optim.AdamW\nteacher_model:\n  _component_: x\n", "distillation"),
            ("optimizer:\n  _component_: torch.optim.AdamW\nquantizer:\n  _component_: x\n", "quantisation-aware"),
            ("max_new_tokens: 3\n", "trains nothing"),
        )
    ],
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[f"{words}-{n}" for n, (_, words) in enumerate(REFUSED)])
def test_another_job_is_refused_before_the_plan_is_read(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    for options in ({}, {"model": "mistral-7b"}):
        with pytest.raises(UnsupportedError, match=words):
            check(path, "80GB", **options)


@pytest.mark.parametrize("stage", ["sft", "pt"])
def test_stages_with_the_loss_of_a_language_model_are_priced(stage: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"{LLAMAFACTORY}do_train: true\nstage: {stage}\n", encoding="utf-8")
    assert check(path, "80GB").fit is Fit.FITS


def test_a_recipe_of_the_alignment_handbook_is_trl_s(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = "model_name_or_path: mistralai/Mistral-7B-v0.1\ntorch_dtype: bfloat16\ndataset_mixture:\n  datasets: []\nmax_seq_length: 1024\n"
    path.write_text(text, encoding="utf-8")
    assert check(path, "80GB").stack is Stack.TRL


def test_modules_trained_whole_are_priced_beside_the_plan(tmp_path: Path) -> None:
    report = check(written(tmp_path, lora_modules_to_save=["lm_head"]), "80GB")
    assert report.beside_bytes > 0
    assert report.expected_bytes == report.memory.expected_bytes + report.beside_bytes


# ---------------------------------------------------------------------------------------------------------- the command

EXITS = [
    ({}, "80GB", 0),
    ({}, None, 0),
    (LORA, "12GB", 1),
    ({"lora_target_linear": False, "lora_target_modules": ["query"]}, "80GB", 1),
    ({}, "7.5GiB", 3),
]


@pytest.mark.parametrize(("changes", "gpu", "exit_code"), EXITS)
def test_exit_codes(
    changes: dict[str, Any],
    gpu: str | None,
    exit_code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from advisor.configs import files

    monkeypatch.setattr(files, "card_of", lambda name: files.load_gpu(name) if name else None)  # a card in this machine changes nothing
    monkeypatch.chdir(tmp_path)
    arguments = ["check", written(tmp_path, **changes).name, *(["--gpu", gpu] if gpu else [])]
    assert run(arguments) == exit_code
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert run([*arguments, "--json"]) == exit_code
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == exit_code
    assert answer["schema_version"] == "2"
    assert all({"id", "level", "message", "hint", "numbers"} <= set(finding) for finding in answer["findings"])


def test_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matches_screen: Callable[[str, str], None]) -> None:
    """A 70B configuration that is one setting away from fitting."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, base_model="meta-llama/Llama-3.1-70B", sequence_len=4096, micro_batch_size=2, torch_compile=True)
    report = check(path.name, "48GB", stack_version="0.19")
    matches_screen("check-axolotl-70b.txt", draw(render.check(report), Look(width=80)))


def test_annotations_for_github(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, **LORA, torch_compile=True)
    run(["check", str(path), "--gpu", "12GB", "--format", "github"])
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(re.fullmatch(r"::(error|warning|notice) file=[^,:]+,title=[a-z0-9-]+::[^\n]+", line) for line in lines)
    assert {"does-not-fit", "not-priced"} <= {re.findall("title=([^:]+)", line)[0] for line in lines}


def test_an_annotation_never_says_fits_for_a_soft_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, my_own_key=3)
    assert run(["check", str(path), "--gpu", "80GB", "--format", "github"]) == 3
    said = capsys.readouterr().out
    titles = re.findall(r"title=([^:]+)::", said)
    assert "fit-uncertain" in titles
    assert not {"fits", "fits-tightly"} & set(titles)
    assert "my_own_key" in next(line for line in said.splitlines() if "fit-uncertain" in line)


def test_an_annotation_escapes_what_github_would_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a,b 100%.yaml"
    path.write_text(json.dumps(AXOLOTL), encoding="utf-8")
    run(["check", str(path), "--gpu", "80GB", "--format", "github"])
    assert "a%2Cb 100%25.yaml" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ bad input

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGE_BOMB = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
GOOD = json.dumps(AXOLOTL)
MODEL = "base_model: llama-3-8b\n"

BAD = [
    # (name, content or None for a missing file, words of the refusal)
    ("none.yaml", None, "there is no such file"),
    ("empty.yaml", b"", "is empty"),
    ("comment.yaml", b"# nothing\n", "is empty"),
    ("list.yaml", b"- a\n- b\n", "holds a list, not settings by name"),
    ("text.yaml", b"hello\n", "holds a str"),
    ("open.yaml", b"a: [1, 2\n", "is not valid YAML"),
    ("tab.yaml", b"a:\n\t- b\n", "is not valid YAML"),
    ("two.yaml", b"a: 1\n---\nb: 2\n", "is not valid YAML"),
    ("python.yaml", b"a: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system is not allowed"),
    ("name.yaml", b"a: !!python/name:os.system\n", "is not allowed"),
    ("tag.yaml", b"a: !mine b\n", "the tag !mine is not known"),
    ("bomb.yaml", BOMB.encode(), "its aliases stand for more than 100,000 values"),
    ("merge.yaml", MERGE_BOMB.encode(), "its aliases stand for more than 100,000 values"),
    ("self.yaml", b"a: &a [*a]\n", "an anchor holds itself"),
    ("deep.yaml", b"a: " + b"[" * 5000 + b"]" * 5000, "nests deeper than 50 levels"),
    ("dashes.yaml", b"- " * 5000 + b"a\n", "nests"),
    ("sixty.yaml", b"a: 1" + b":1" * 50_000, "a number of 100,001 characters"),
    ("long.yaml", b"a: " + b"9" * 5000, "a number of 5,000 characters"),
    ("date.yaml", b"a: 2026-13-45\n", "is not valid YAML"),
    ("binary.yaml", bytes(range(256)), "is not text in UTF-8"),
    ("nul.yaml", b"a: \x00\n", "is not valid YAML"),
    ("huge.yaml", b"a: " + b"x" * LARGEST_BYTES, "it is larger than 1,000 kB"),
    ("broken.json", b'{"a": 1,', "JSON"),
    ("list.json", b"[1]", "holds a list"),
    ("whose.yaml", b"learning_rate: 1\n", "it is not clear whose configuration this is; say it with --stack"),
    ("launcher.yaml", b"distributed_type: FSDP\nnum_processes: 8\n", "is the launcher's configuration"),
    ("zero.json", b'{"zero_optimization": {"stage": 3}}', "holds settings of DeepSpeed"),
    ("adapter_config.json", b'{"peft_type": "LORA"}', "is an adapter's configuration"),
    ("config.json", b'{"architectures": ["A"], "model_type": "llama"}', "is a model's configuration"),
    ("type.yaml", GOOD.replace("2048", '"long"').encode(), "sequence_len is 'long'; it must be a whole number"),
    ("flag.yaml", GOOD.replace('"bf16": true', '"bf16": 3').encode(), "bf16 is 3; it must be true or false"),
    ("minus.yaml", GOOD.replace('"lora_r": 16', '"lora_r": -16').encode(), "lora_r is -16; it must be a whole number from 1 to"),
    (
        "nan.yaml",
        b"lora_dropout: .nan\n" + (MODEL + "adapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true").encode(),
        "a number",
    ),
    ("group.yaml", GOOD.replace("2048", "{}").encode(), "sequence_len is a dict"),
    ("alpha.yaml", GOOD.replace('"lora_alpha": 32', f'"lora_alpha": {10**12}').encode(), "alpha is 1e+12; it must be above 0 and at most"),
    ("gpus.sh", b"NPROC_PER_NODE=900000 swift sft --model Qwen/Qwen2.5-7B", "900,000 GPUs; at most 100,000 can be priced"),
    ("longname.yaml", GOOD.replace("meta-llama/Llama-3.1-8B", "a" * 300).encode(), "or say another with --model"),
    ("rank.yaml", GOOD.replace('"lora_r": 16,', "").encode(), "lora_r is missing; axolotl has no default for it"),
    ("ia3.yaml", GOOD.replace('"qlora"', '"ia3"').encode(), "adapter: ia3 is no LoRA"),
    ("model.yaml", GOOD.replace("Llama-3.1-8B", "Lama-9").encode(), "or say another with --model"),
    ("nomodel.yaml", b"per_device_train_batch_size: 1\noutput_dir: o\n", "names no model; say it with --model"),
    ("syntax.py", b"def f(:\n", "is no valid Python at line 1"),
    ("loop.py", b"print('hello')\n", "makes no TrainingArguments or SFTConfig"),
    ("nothing.sh", b"echo hello\n", "starts no trainer that is known"),
    ("quote.sh", b"swift sft --model 'llama\n", "the command cannot be read"),
    ("bomb.sh", b"A=" + b"x" * 9000 + b"\nswift sft --model " + b"$A" * 9000, "its variables stand for more than"),
    ("lines.sh", b"\n" * 900_000, "starts no trainer that is known"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_file_is_refused_in_one_line(
    name: str, content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run(["check", str(path), "--gpu", "80GB"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    assert len(said.err) < 700
    assert words in said.err


def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


OPTIONS = [
    (["--stack", "unsloth"], "--stack unsloth: must be"),
    (["--stack", "plain"], "a hand-written loop has no configuration"),
    (["--stack-version", "new"], "--stack-version new: it must be a release"),
    (["--stack-version", "0.19; rm"], "it must be a release"),
    (["--stack-version", "0.²"], "it must be a release"),
    (["--gpus", "0"], "--gpus 0"),
    (["--seq-len", "many"], "--seq-len many"),
    (["--format", "xml"], "--format xml: must be text or github"),
    (["--accelerate", "none.yaml"], "there is no such file"),
    (["--gpu", "no such card"], "no such card"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_bad_options_are_refused_in_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["check", str(written(tmp_path)), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


# --------------------------------------------------------------------------------------------------- what a file may be


def test_a_script_is_read_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(
        "import sys\nsys.exit('it was run')\nfrom transformers import TrainingArguments, AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen2.5-7B', dtype=torch.bfloat16)\n"
        "args = TrainingArguments('out', per_device_train_batch_size=4, bf16=True)\nlora = LoraConfig(r=64, target_modules='all-linear')\n",
        encoding="utf-8",
    )
    plan = check(path, "80GB", seq_len=512).plan
    assert (plan.stack, plan.rank, plan.micro_batch_size, plan.seq_len_tokens) == (Stack.HF, 64, 4, 512)


def test_a_shell_script_is_followed_to_its_file(tmp_path: Path) -> None:
    written(tmp_path)
    script = tmp_path / "run.sh"
    script.write_text("export NGPU=4\naccelerate launch --num_processes $NGPU -m axolotl.cli.train train.yaml\n", encoding="utf-8")
    report = check(script, "80GB")
    assert (report.stack, report.plan.n_gpus, report.plan.rank) == (Stack.AXOLOTL, 4, 16)


def test_the_word_of_the_user_counts(tmp_path: Path) -> None:
    report = check(written(tmp_path), "80GB", seq_len=512, gpus=2, model="llama-3.2-1b")
    assert (report.plan.seq_len_tokens, report.plan.n_gpus) == (512, 2)
    assert "1B" in report.model.id
    assert any("512 tokens, as asked for" in line for line in report.assumptions)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(AdvisorError, match="there is no such option"):
        check("train.yaml", colour="red")


# ----------------------------------------------------------------------------------------------------- the command config


@pytest.mark.parametrize("stack", ["trl", "hf", "axolotl", "llamafactory"])
def test_what_config_writes_check_reads(stack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("train.py" if stack == "hf" else "train.yaml")
    assert run(["config", "--stack", stack, "--model", "llama-3-8b", "--gpu", "24GB", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: ")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert run(["check", str(out), "--gpu", "24GB"]) == 0
    before = out.read_bytes()
    assert run(["config", "--stack", stack, "--model", "llama-3-8b", "--gpu", "24GB", "--out", str(out)]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--model", "llama-3-8b"], 2, "--stack is missing: trl, hf, axolotl or llamafactory"),
        (["--model", "llama-3-8b", "--gpu", "24GB", "--stack", "torchtune"], 2, "files are written for"),
        (["--model", "llama-3-8b", "--gpu", "24GB", "--stack", "trl", "--out", "no/such/folder/a.yaml"], 2, "cannot be written"),
        (["--model", "llama-70b", "--gpu", "8GB", "--stack", "trl"], 1, ""),
    ],
)
def test_what_config_refuses(arguments: list[str], exit_code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", *arguments]) == exit_code
    assert words in capsys.readouterr().err
