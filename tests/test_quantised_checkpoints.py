"""Checkpoints that are quantised already: what config.json says, which rungs train on them, what they weigh, code that loads them.

The tiny checkpoints are real ones: random weights, saved with their family's own `quantization_config`, loaded by transformers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from advisor.architectures import spec_from_config
from advisor.checkpoints import format_of, in_16_bit
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.ladder import advise, plan_from_request, request_from, snippet
from advisor.memory import estimate_memory, trainable_params, weights_bytes
from advisor.memory.weights import packed_linear_bytes
from advisor.stacks import default_plan
from advisor.stacks.reading import Way
from advisor.stacks.write import yaml_config
from advisor.values import Fit, GpuSpec, Linear, Method, ModelSpec, Quantization, Request, Sharding, Stack

CARD = GpuSpec(name="card", vendor="NVIDIA", usable_bytes=80 << 30, usable_source="test")
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
LLAMA_8B = LLAMA | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "layer_types": ["sliding_attention", "full_attention"],
    "tie_word_embeddings": False,
}
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}
FP8 = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]}


def stored(settings: dict[str, Any], config: dict[str, Any] = LLAMA_8B, id: str = "org/model-x") -> ModelSpec:
    return spec_from_config(config | {"quantization_config": settings}, id=id, source="made for the test")


# ------------------------------------------------------------------------------------------- what config.json says


@pytest.mark.parametrize(
    ("settings", "label", "trained_as"),
    [
        (NF4, "bitsandbytes nf4", "nf4"),
        ({"load_in_4bit": True}, "bitsandbytes fp4", "fp4"),  # BitsAndBytesConfig's own default
        ({"load_in_8bit": True}, "bitsandbytes int8", "int8"),
        ({"_load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}, "bitsandbytes nf4", "nf4"),
        (AWQ, "AWQ 4 bit", "awq"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "AWQ 4 bit", "awq"),
        (GPTQ, "GPTQ 4 bit", "gptq"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "GPTQ 8 bit", "gptq"),
        (FP8, "FP8", None),
        (MXFP4, "MXFP4", None),
        ({"quant_method": "compressed-tensors", "config_groups": {}, "ignore": ["re:.*gate"]}, "compressed-tensors", None),
        ({"quant_method": "hqq", "nbits": 4}, "HQQ 4 bit", None),
        ({"quant_method": "of tomorrow"}, "of tomorrow", None),
    ],
    ids=str,
)
def test_what_a_config_says(settings: dict[str, Any], label: str, trained_as: str | None) -> None:
    found = format_of(settings, "config.json")
    assert found is not None
    assert (found.label, found.trained_as and found.trained_as.value) == (label, trained_as)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bits": 4}, "names no quant_method"),
        ({"quant_method": "awq", "bits": 3}, "bits is 3; AWQ stores 4 bit"),
        ({"quant_method": "gptq", "bits": 5}, "bits is 5"),
        ({"quant_method": "gptq", "bits": "four"}, "bits must be a whole number"),
        ({"quant_method": "gptq", "group_size": 0}, "group_size must be a positive"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}, "bnb_4bit_quant_type is 'nf3'"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "must be a list of module names"),
    ],
    ids=str,
)
def test_a_config_that_no_quantizer_takes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        format_of(settings, "config.json")


def test_weights_that_are_expanded_already_are_no_format() -> None:
    assert format_of(MXFP4 | {"dequantize": True}, "x") is None


# ------------------------------------------------------------------------------------------- which rungs there are


@pytest.mark.parametrize(
    ("settings", "trains"),
    [
        (NF4, {"qlora", "qdora"}),
        (AWQ, {"qlora"}),  # peft 0.21 tuners/lora/awq.py: no DoRA
        (GPTQ, {"qlora"}),
        (FP8, {"lora", "qlora", "dora", "qdora", "full"}),
        (MXFP4, {"lora", "qlora", "dora", "qdora", "full"}),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else "",
)
def test_rungs_of_a_quantised_checkpoint(settings: dict[str, Any], trains: set[str]) -> None:
    answer = advise(stored(settings), CARD, request_from({}))
    assert {rung.plan.method.value for rung in answer.rungs if rung.fit is not Fit.WOULD_NOT_START} == trains
    for rung in answer.rungs:
        if rung.fit is Fit.WOULD_NOT_START:
            assert "16-bit" in rung.why_not or "no DoRA" in rung.why_not
    assert answer.chosen is not None
    assert answer.chosen.plan.method is (Method.QLORA if trains <= {"qlora", "qdora"} else Method.LORA)


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        (AWQ, {"method": "lora"}, "stored in AWQ 4 bit: 16-bit training needs the original 16-bit weights"),
        (GPTQ, {"method": "full"}, "stored in GPTQ 4 bit"),
        (AWQ, {"method": "qdora"}, "no DoRA for AWQ layers"),
        (NF4, {"method": "qlora", "quantization": "fp4"}, "stored in bitsandbytes nf4"),
        (AWQ, {"method": "qlora", "quantization": "nf4"}, "stored in AWQ"),
        (FP8, {"method": "qlora", "quantization": "gptq"}, "stored in FP8; name a checkpoint whose config.json says gptq"),
        ({"quant_method": "hqq"}, {}, "stored in HQQ: what its layers hold in training is not priced; train from"),
        ({"quant_method": "fbgemm_fp8"}, {}, "does not train it"),
        ({"quant_method": "torchao"}, {}, "not priced"),
        (AWQ | {"version": "gemv"}, {}, "not priced"),
    ],
    ids=str,
)
def test_what_a_checkpoint_cannot_be_trained_as(settings: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as error:
        advise(stored(settings), CARD, request_from(options))
    assert "\n" not in str(error.value)


def test_the_original_is_named_where_the_name_gives_it_away() -> None:
    with pytest.raises(UnsupportedError, match=r"original 16-bit weights \(Llama-3.3-70B-Instruct by its name\)"):
        advise(stored(AWQ, id="casperhansen/Llama-3.3-70B-Instruct-awq"), CARD, request_from({"method": "lora"}))


@pytest.mark.parametrize("settings", [AWQ, GPTQ, NF4], ids=lambda settings: settings["quant_method"])
def test_experts_that_are_stored_one_by_one(settings: dict[str, Any]) -> None:
    """Qwen3-30B-A3B-AWQ and its like: transformers 5 builds stacked experts."""
    moe = {**LLAMA, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 32}
    with pytest.raises(UnsupportedError, match="expert by expert"):
        advise(stored(settings, moe), CARD, request_from({}))


# ------------------------------------------------------------------------------------------------- what it weighs


@pytest.mark.parametrize(
    ("settings", "per_group", "per_input"),
    [(AWQ, 128, 0), (GPTQ, 128, 4), (GPTQ | {"group_size": 32}, 32, 4), (AWQ | {"group_size": -1}, 4096, 0)],
    ids=str,
)
def test_a_packed_matrix(settings: dict[str, Any], per_group: int, per_input: int) -> None:
    """qweight int32 (in, out/8), qzeros int32 (groups, out/8), scales fp16 (groups, out), g_idx int32 (in): GPT-QModel 7.7."""
    linear = Linear(name="down_proj", in_features=4096, out_features=11008)
    groups = 4096 // per_group
    by_hand = 4096 * 1376 * 4 + groups * 1376 * 4 + groups * 11008 * 2 + 4096 * per_input
    found = format_of(settings, "x")
    assert found is not None
    assert packed_linear_bytes(linear, found) == by_hand


def test_a_whole_checkpoint_weighs_what_its_files_do() -> None:
    """Files of pascalrai/Llama-3.1-8B-Instruct-awq on the Hub: 4.68 and 1.05 GB, each rounded to 10 MB."""
    model = stored(AWQ)
    weights = weights_bytes(model, plan_from_request(model, CARD, request_from({})))
    assert weights == pytest.approx(5.73e9, abs=0.01e9)


@pytest.mark.parametrize(
    ("skipped", "matrices"),
    [
        (["lm_head"], 0),
        (["model.layers.0.self_attn"], 4),
        (["model.layers.0.mlp", "model.layers.31.mlp.down_proj"], 4),
        (["q_proj"], 32),
        (["model.layers.1"], 7),
    ],
    ids=str,
)
def test_matrices_left_in_16_bit_weigh_more(skipped: list[str], matrices: int) -> None:
    """Unsloth's dynamic checkpoints name single layers in `llm_int8_skip_modules`."""
    from advisor.memory.weights import kept_in_16_bit

    model = stored(NF4 | {"llm_int8_skip_modules": skipped})
    assert sum(times for _, times in kept_in_16_bit(model)) == matrices
    plain = stored(NF4)
    plan = plan_from_request(plain, CARD, request_from({"kbit_prepare": False}))
    extra = sum(layer.weight_params * times for layer, times in kept_in_16_bit(model)) * (2 - 0.516)  # QLoRA: 4.127 bits a weight
    assert weights_bytes(model, plan) - weights_bytes(plain, plan) == pytest.approx(extra, rel=0.001)


def test_a_bitsandbytes_checkpoint_is_the_qlora_base() -> None:
    model = stored(NF4 | {"bnb_4bit_use_double_quant": False})
    plan = plan_from_request(model, CARD, request_from({}))
    assert (plan.method, plan.quantization, plan.double_quant) == (Method.QLORA, Quantization.NF4, False)
    same = plan_from_request(in_16_bit(model), CARD, request_from({"method": "qlora", "double_quant": False}))
    assert estimate_memory(model, plan).peak_allocated_bytes == estimate_memory(in_16_bit(model), same).peak_allocated_bytes
    with pytest.raises(InvalidInputError, match="stored without it"):
        plan_from_request(model, CARD, request_from({"double_quant": True}))


def test_gptq_keeps_the_expanded_weight_and_awq_does_not() -> None:
    """Without checkpointing torch's product holds every expanded matrix: a 16-bit copy of the layers (GPT-QModel 7.7 torch.py)."""
    awq, gptq = (stored(settings) for settings in (AWQ, GPTQ))
    options = request_from({"checkpointing": False, "seq_len": 16, "batch_size": 1, "precision": "fp16"})
    peaks = [estimate_memory(model, plan_from_request(model, CARD, options)).peak_allocated_bytes for model in (awq, gptq)]
    matrices = sum(linear.weight_params * block.count for block in awq.shape.blocks for linear in block.linears)
    assert peaks[1] - peaks[0] == pytest.approx(2 * matrices, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (AWQ, "buffers, which FSDP and ZeRO-3 do not shard"),
        (GPTQ, "buffers, which FSDP and ZeRO-3 do not shard"),
        (NF4, "as uint8"),
        (NF4 | {"bnb_4bit_quant_storage": "bfloat16"}, ""),
    ],
    ids=str,
)
def test_what_is_stored_as_integers_is_not_sharded(settings: dict[str, Any], words: str) -> None:
    model = stored(settings)
    plan = plan_from_request(model, CARD, request_from({"gpus": 2})).model_copy(update={"sharding": Sharding.FSDP2})
    if not words:
        assert estimate_memory(model, plan).peak_allocated_bytes > 0
        return
    with pytest.raises(UnsupportedError, match=words):
        estimate_memory(model, plan)
    tiny = CARD.model_copy(update={"usable_bytes": 1 << 30})
    assert advise(model, tiny, request_from({"gpus": 2})).exit_code == 1  # replicas are tried, shards are not


# -------------------------------------------------------------------------------------------- code that loads them


def save_bitsandbytes(folder: Path, torch: Any, transformers: Any) -> None:
    plain = folder / "plain"
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).to(torch.bfloat16).save_pretrained(plain)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, device_map="cpu", dtype=torch.bfloat16)
    model.save_pretrained(folder / "stored")


def save_fp8(folder: Path, torch: Any, transformers: Any) -> None:
    """DeepSeek's layout: fp8 matrices with an inverse scale per block of 16 × 16."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).to(torch.bfloat16)
    tensors = dict(model.state_dict())
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = torch.ones(rows // 16, columns // 16)
    _write(folder, tensors, LLAMA | {"quantization_config": FP8})


def save_mxfp4(folder: Path, torch: Any, transformers: Any) -> None:
    """gpt-oss's layout: blocks of 32 four-bit values with a scale of eight bits each."""
    model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**GPT_OSS)).to(torch.bfloat16)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = tensor.shape
            tensors[f"{name}_blocks"] = torch.zeros(experts, outputs, inputs // 32, 16, dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.full((experts, outputs, inputs // 32), 120, dtype=torch.uint8)
        else:
            tensors[name] = tensor
    _write(folder, tensors, GPT_OSS | {"quantization_config": MXFP4})


def _write(folder: Path, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    (folder / "stored").mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "stored" / "model.safetensors", {"format": "pt"})
    (folder / "stored" / "config.json").write_text(json.dumps(config))


SAVERS = {"bitsandbytes": save_bitsandbytes, "fp8": save_fp8, "mxfp4": save_mxfp4}
METHODS = {"bitsandbytes": ("qlora", "qdora"), "fp8": ("lora", "qlora", "dora", "qdora", "full"), "mxfp4": ("lora", "qlora", "full")}


def on_the_cpu(text: str) -> str:
    """The printed code, up to its training: the tests bring the data."""
    return text.replace('{"": 0}', '"cpu"').replace("loader = ...", "loader = []")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """Real, tiny checkpoints on disk, and what their config.json is read as."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("bitsandbytes")
    made = {}
    for name, save in SAVERS.items():
        folder = tmp_path_factory.mktemp(name)
        save(folder, torch, transformers)
        config = json.loads((folder / "stored" / "config.json").read_text())
        made[name] = spec_from_config(config, id=str(folder / "stored"), source="made for the test")
    return made


@pytest.mark.filterwarnings("ignore")  # the libraries' own: deprecated names, no GPU
@pytest.mark.parametrize(("name", "method"), [(name, method) for name, methods in METHODS.items() for method in methods])
def test_the_printed_code_loads_and_trains(
    checkpoints: dict[str, ModelSpec], name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand-written loop runs a step on the checkpoint; only the device is changed."""
    import torch

    monkeypatch.chdir(tmp_path)
    model = checkpoints[name]
    targets = "q_proj,v_proj" if name == "mxfp4" else None
    options = {"method": method, "stack": "plain", "seq_len": 16, "grad_accum": 1, "rank": 4, "target_modules": targets}
    plan = plan_from_request(model, CARD, request_from(options if method != "full" else {**options, "rank": None, "target_modules": None}))
    names: dict[str, Any] = {}
    exec(compile(on_the_cpu(snippet(model, plan)), "snippet", "exec"), names)
    built = names["model"]
    kinds = {type(module).__name__ for module in built.modules()}
    assert ("Linear4bit" in kinds) is plan.method.is_quantized
    assert not any("FP8" in kind or "Mxfp4" in kind for kind in kinds)
    trained = {key: value.detach().clone() for key, value in built.named_parameters() if value.requires_grad}
    tokens = torch.randint(0, 128, (1, 16))
    names["train"]([{"input_ids": tokens, "labels": tokens}])
    assert any(not torch.equal(value, trained[key]) for key, value in built.named_parameters() if key in trained)


def save_packed(folder: Path, settings: dict[str, Any], torch: Any, transformers: Any) -> None:
    """The layout of GPTQ (eight inputs to an int32) or AWQ (eight outputs to an int32), with a scale and a zero per 32 inputs."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).to(torch.float16)
    tensors = dict(model.state_dict())
    gptq = settings["quant_method"] == "gptq"
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        stem, groups = name.removesuffix("weight"), inputs // 32
        packed = (inputs // 8, outputs) if gptq else (inputs, outputs // 8)
        tensors[f"{stem}qweight"] = torch.randint(0, 2**31 - 1, packed, dtype=torch.int32)
        tensors[f"{stem}qzeros"] = torch.randint(0, 2**31 - 1, (groups, outputs // 8), dtype=torch.int32)
        tensors[f"{stem}scales"] = torch.full((groups, outputs), 0.01, dtype=torch.float16)
        if gptq:
            tensors[f"{stem}g_idx"] = torch.arange(inputs, dtype=torch.int32) // 32
    _write(folder, tensors, LLAMA | {"quantization_config": settings})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [AWQ | {"group_size": 32}, GPTQ | {"group_size": 32, "desc_act": False}], ids=lambda row: row["quant_method"]
)
def test_the_printed_code_trains_on_packed_layers(settings: dict[str, Any], tmp_path: Path) -> None:
    """Real GPT-QModel layers on the CPU, in an environment of their own (`.ci/frameworks`); only the device is changed."""
    if os.environ.get("FRAMEWORK") != "gptqmodel":
        pytest.importorskip("gptqmodel", exc_type=ImportError)
    import torch
    import transformers

    save_packed(tmp_path, settings, torch, transformers)
    config = json.loads((tmp_path / "stored" / "config.json").read_text())
    model = spec_from_config(config, id=str(tmp_path / "stored"), source="made for the test")
    options = {"method": "qlora", "stack": "plain", "seq_len": 16, "grad_accum": 1, "rank": 4}
    plan = plan_from_request(model, CARD, request_from(options))
    names: dict[str, Any] = {}
    exec(compile(on_the_cpu(snippet(model, plan)), "snippet", "exec"), names)
    kinds = {type(module).__name__ for module in names["model"].modules()}
    assert {kind for kind in kinds if kind.endswith("LoraLinear")} == {
        f"{settings['quant_method'].title().replace('Gptq', 'GPTQ')}LoraLinear"
    }
    trained = {key: value.detach().clone() for key, value in names["model"].named_parameters() if value.requires_grad}
    assert sum(value.numel() for value in trained.values()) == trainable_params(model, plan)
    tokens = torch.randint(0, 128, (1, 16))
    names["train"]([{"input_ids": tokens, "labels": tokens}])
    assert any(not torch.equal(value, trained[key]) for key, value in names["model"].named_parameters() if key in trained)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (AWQ, ['AwqConfig(backend="auto_trainable")', "dtype=torch.float16", "import AutoModelForCausalLM, AwqConfig"]),
        (GPTQ, ['GPTQConfig(bits=4, backend="auto_trainable")', "dtype=torch.bfloat16"]),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else "",
)
def test_the_printed_code_of_packed_layers(settings: dict[str, Any], lines: list[str]) -> None:
    """The code is compiled, its settings are made, and the layers are named (they are no nn.Linear)."""
    transformers = pytest.importorskip("transformers")
    model = stored(settings)
    text = snippet(model, plan_from_request(model, CARD, request_from({})))
    compile(text, "snippet", "exec")
    for line in lines:
        assert line in text
    assert '"all-linear"' not in text
    made = eval(lines[0], {"AwqConfig": transformers.AwqConfig, "GPTQConfig": transformers.GPTQConfig})
    assert made.get_loading_attributes()["backend"] == "auto_trainable"


@pytest.mark.parametrize(
    ("settings", "stack", "method", "words"),
    [
        (MXFP4, "axolotl", "lora", "model_quantization_config: Mxfp4Config\nmodel_quantization_config_kwargs:\n  dequantize: true"),
        (MXFP4, "llamafactory", "lora", "lora_rank: 16"),
        (AWQ, "llamafactory", "qlora", "lora_rank: 16"),
        (NF4, "trl", "qlora", "load_in_4bit: true"),
    ],
)
def test_the_written_file_loads_it(settings: dict[str, Any], stack: str, method: str, words: str) -> None:
    model = stored(settings)
    text = yaml_config(plan_from_request(model, CARD, request_from({"stack": stack, "method": method})), model, "1e-4")
    assert words in text
    assert "quantization_bit" not in text


@pytest.mark.parametrize(
    ("settings", "stack", "method", "words"),
    [
        (MXFP4, "trl", "lora", r"Mxfp4Config\(dequantize=True\); use --stack hf"),
        (MXFP4, "llamafactory", "qlora", "quantises 16-bit checkpoints only"),
        (AWQ, "trl", "qlora", "auto_trainable"),
    ],
)
def test_a_framework_without_a_setting_for_it_says_so(settings: dict[str, Any], stack: str, method: str, words: str) -> None:
    model = stored(settings)
    plan = plan_from_request(model, CARD, request_from({"stack": stack, "method": method}))
    with pytest.raises(UnsupportedError, match=words):
        yaml_config(plan, model, "1e-4")


# ------------------------------------------------------------------------------------------------- files and hooks

LORA_FILE = {"model_name_or_path": "m", "per_device_train_batch_size": 1, "bf16": True, "gradient_checkpointing": True}
FILES: dict[str, dict[str, Any]] = {
    "llamafactory": {
        **LORA_FILE, "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "cutoff_len": 2048
    },
    "trl": {**LORA_FILE, "dtype": "bfloat16", "use_peft": True, "lora_r": 8, "lora_target_modules": "q_proj,v_proj", "max_length": 2048},
    "ms-swift": {"model": "m", "train_type": "lora", "lora_rank": 8, "max_length": 2048, "torch_dtype": "bfloat16"},
    "axolotl": {
        "base_model": "m", "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True, "sequence_len": 2048,
        "micro_batch_size": 1, "bf16": True, "gradient_checkpointing": True,
    },
}  # fmt: skip


def read_file(stack: str, model: ModelSpec, launch: Any = None, **changes: Any) -> Any:
    from advisor.stacks.fields import Fields
    from advisor.stacks.known import defaults_of, room_of
    from advisor.stacks.reading import Around, Launch
    from advisor.values import Stack

    around = Around(model, CARD, defaults_of(Stack(stack)), launch or Launch())
    return room_of(Stack(stack)).read(Fields({**FILES[stack], **changes}, "f.yaml"), around)


@pytest.mark.parametrize("stack", FILES)
@pytest.mark.parametrize("settings", [AWQ, GPTQ, NF4], ids=lambda settings: settings["quant_method"])
def test_a_file_that_names_a_quantised_checkpoint(stack: str, settings: dict[str, Any]) -> None:
    reading = read_file(stack, stored(settings))
    plan = reading.plan
    assert plan.method is Method.QLORA
    assert plan.quantization is format_of(settings, "x").trained_as  # type: ignore[union-attr]
    assert plan.double_quant is (settings is NF4)
    assert plan.base_dtype.value == ("fp16" if settings is AWQ else "bf16")
    assert estimate_memory(stored(settings), plan).peak_allocated_bytes < 12 << 30


SECOND = {
    "trl": {"load_in_4bit": True},
    "ms-swift": {"quant_bits": 4, "quant_method": "bnb"},
    "axolotl": {"load_in_4bit": True, "adapter": "qlora"},
    "llamafactory": {"quantization_bit": 4},
}


@pytest.mark.parametrize(
    ("stack", "changes", "settings"),
    [(stack, SECOND[stack], settings) for stack in ("trl", "ms-swift") for settings in (AWQ, MXFP4, FP8)]
    + [("axolotl", SECOND["axolotl"], settings) for settings in (MXFP4, FP8)],
)
def test_a_second_quantisation_stops_at_loading(stack: str, changes: dict[str, Any], settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="transformers stops at loading"):
        read_file(stack, stored(settings), **changes)


@pytest.mark.parametrize("stack", ["axolotl", "llamafactory"])
@pytest.mark.parametrize("settings", [AWQ, GPTQ], ids=lambda settings: settings["quant_method"])
def test_a_second_quantisation_without_effect(stack: str, settings: dict[str, Any]) -> None:
    """axolotl 0.19 loaders/model.py `_set_quantization_config`; llamafactory 0.9.5 model/model_utils/quantization.py."""
    reading = read_file(stack, stored(settings), **SECOND[stack])
    assert reading.plan.quantization is format_of(settings, "x").trained_as  # type: ignore[union-attr]
    assert "without effect" in " ".join(reading.taken)


@pytest.mark.parametrize("settings", [AWQ, GPTQ, NF4], ids=lambda settings: settings["quant_method"])
def test_llamafactory_shards_no_quantised_checkpoint(settings: dict[str, Any]) -> None:
    """llamafactory 0.9.5 model/model_utils/quantization.py `configure_quantization` raises ValueError; it lets FP8 and MXFP4 pass."""
    from advisor.stacks.reading import Launch

    sharded = Launch(n_gpus=2, fsdp=True)
    with pytest.raises(InvalidInputError, match="does not train under FSDP or ZeRO-3"):
        read_file("llamafactory", stored(settings), launch=sharded)
    assert read_file("llamafactory", stored(FP8), launch=sharded).plan.sharding is Sharding.FSDP1


def test_llamafactory_leaves_compressed_tensors_as_they_are() -> None:
    """llamafactory 0.9.5 model/model_utils/quantization.py expands MXFP4 and FP8 alone."""
    remarks = read_file("llamafactory", stored({"quant_method": "compressed-tensors", "format": "float-quantized"})).remarks
    assert [str(remark.way) for remark in remarks if "compressed-tensors" in remark.text] == [str(Way.DOWN)]


def test_llamafactory_ignores_it() -> None:
    reading = read_file("llamafactory", stored(FP8), quantization_bit=4)
    assert reading.plan.method is Method.LORA
    assert "without effect" in " ".join(reading.taken)
    assert reading.remarks == ()  # it loads FP8 and MXFP4 with dequantize=True itself


@pytest.mark.parametrize(
    ("stack", "changes", "way"),
    [
        ("trl", {}, "down"),
        ("axolotl", {}, "down"),
        ("axolotl", {"model_quantization_config": "FineGrainedFP8Config", "model_quantization_config_kwargs": {"dequantize": True}}, None),
        ("axolotl", {"model_quantization_config": "FineGrainedFP8Config"}, "either"),
    ],
)
def test_fp8_that_is_not_expanded_takes_less(stack: str, changes: dict[str, Any], way: str | None) -> None:
    remarks = [remark for remark in read_file(stack, stored(FP8), **changes).remarks if "FP8" in remark.text]
    assert [remark.way and remark.way.value for remark in remarks] == ([] if way is None else [way])


def test_preflight_reads_what_would_be_loaded(tmp_path: Path) -> None:
    """A GPTQ base of 70B needs some 45 GiB with checkpointing; in 16 bit it would be 141."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    from advisor import preflight

    def flight(quantization: Any, checkpointing: bool = True, on_misfit: str = "raise") -> Any:
        args = transformers.TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=1, bf16=True, gradient_checkpointing=checkpointing, use_cpu=True
        )
        lora = peft.LoraConfig(r=16, target_modules="all-linear")
        options = {"gpu": "80GB", "seq_len": 512, "on_misfit": on_misfit, "quantization_config": quantization}
        return preflight("llama-70b", args, lora, **options)

    report = flight(transformers.GPTQConfig(4))
    assert (report.plan.method, report.plan.quantization) == (Method.QLORA, Quantization.GPTQ)
    assert 36 << 30 < report.memory.expected_bytes < 60 << 30
    assert flight(transformers.GPTQConfig(4), checkpointing=False, on_misfit="ignore").exit_code == 3  # the kernel decides: never raised
    with pytest.raises(UnsupportedError, match="HQQ"):
        flight({"quant_method": "hqq"})


def test_a_live_config_says_how_it_was_loaded() -> None:
    transformers = pytest.importorskip("transformers")
    from advisor.hooks import live

    config = transformers.LlamaConfig(**{key: value for key, value in LLAMA.items() if key not in ("architectures", "model_type")})
    config.quantization_config = transformers.GPTQConfig(4, group_size=64)
    found = live.spec_of_config(config).checkpoint_format
    assert found is not None
    assert (found.trained_as, found.group_size_weights) == (Quantization.GPTQ, 64)
    config.quantization_config = NF4  # quantised on loading: a matter of the plan
    assert live.spec_of_config(config).checkpoint_format is None


@pytest.mark.parametrize(
    ("settings", "words"), [(AWQ, "does not run GPT-QModel's layers"), (NF4 | {"llm_int8_skip_modules": ["q_proj"]}, "16 bit")]
)
def test_the_dry_run_says_what_it_does_not_run(settings: dict[str, Any], words: str) -> None:
    from advisor.dryrun import trace

    model = stored(settings)
    with pytest.raises(UnsupportedError, match=words):
        trace(model, plan_from_request(model, CARD, request_from({})))


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_written_script_reads_back(method: str) -> None:
    """A script that expands MXFP4 first is the plan of its second loading."""
    from advisor.configs.emit import text_of

    text = text_of(stored(MXFP4, GPT_OSS), plan_from_request(stored(MXFP4, GPT_OSS), CARD, request_from({"method": method})))
    assert "Mxfp4Config(dequantize=True)" in text


# ---------------------------------------------------------------------------------------------------- stacked experts


def test_quantised_experts() -> None:
    """axolotl's `quantize_moe_experts` on Qwen3-30B-A3B: a floor of 17 to 24 GiB reserved was measured (axolotl issue 3787)."""
    from advisor.hub import load_model

    model = load_model("qwen3-30b-a3b")
    changes = {"adapter": "qlora", "load_in_4bit": True, "lora_target_linear": None, "lora_target_modules": ["q_proj", "v_proj"]}
    plain = read_file("axolotl", model, **changes).plan
    plan = read_file("axolotl", model, quantize_moe_experts=True, **changes).plan
    assert plan.quantized_experts
    assert not plain.quantized_experts
    memory = estimate_memory(model, plan)
    assert 17 << 30 < memory.expected_bytes < 24 << 30
    bare = 48 * 128 * 3 * 2048 * 768
    saved = weights_bytes(model, plain) - weights_bytes(model, plan)
    assert saved == pytest.approx(bare * (2 - 0.516), rel=0.01)  # QLoRA: 4.127 bits a weight


@pytest.mark.parametrize(
    ("release", "changes", "ways"),
    [((4, 57, 6), {}, ["down"]), (None, {}, ["down"]), ((5, 0), {}, []), ((4, 57), {"quantize_moe_experts": True}, [])],
)
def test_the_release_decides_what_experts_are(release: tuple[int, ...] | None, changes: dict[str, Any], ways: list[str]) -> None:
    """GLM-4.5-Air as QLoRA trains on 2 x 96 GB under transformers 4.57.6 and runs out of memory under 5.0 (axolotl issue 3374)."""
    from advisor.hub import load_model
    from advisor.stacks.stored import expert_remarks

    model = load_model("qwen3-30b-a3b")
    plan = read_file("axolotl", model, load_in_4bit=True, adapter="qlora", **changes).plan
    assert [remark.way.value for remark in expert_remarks(model, plan, release)] == ways


# ---------------------------------------------------------------------------- what peft's layers keep on packed bases


def packed_base(kind: str, torch: Any) -> Any:
    """A base layer that computes as GPT-QModel 7.7's trainable kernels do: torch.py `_forward_eager`, gemm_awq.py `AwqGemmFn`."""

    class Expands(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, packed: Any) -> Any:
            ctx.save_for_backward(packed)
            return torch.matmul(x, packed.to(x.dtype))

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return torch.matmul(gradient, ctx.saved_tensors[0].to(gradient.dtype).t()), None

    class Base(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.in_features, self.out_features = 64, 96
            self.register_buffer("qweight", torch.ones(64, 96, dtype=torch.int8))

        def forward(self, x: Any) -> Any:
            if kind == "awq":
                return Expands.apply(x.half() if x.dtype is torch.float32 else x, self.qweight).to(x.dtype)
            return torch.matmul(x, self.qweight.to(x.dtype))

    return Base()


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_what_peft_keeps_around_a_packed_layer(kind: str, autocast: bool) -> None:
    """peft's own LoRA layers on such a base, against the tape: bytes that forward leaves for backward."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from peft.tuners.lora.awq import AwqLoraLinear
    from peft.tuners.lora.gptq import GPTQLoraLinear

    from advisor.memory.layers import Setting, linear
    from advisor.memory.tape import Size, Tape, Tensor, forward

    tokens, rank = 10, 4
    base = packed_base(kind, torch)
    layer = {"awq": AwqLoraLinear, "gptq": GPTQLoraLinear}[kind](base, "default", peft.LoraConfig(r=rank), r=rank, lora_alpha=8)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), *layer.buffers())}
    x = torch.ones(1, tokens, 64, dtype=torch.bfloat16, requires_grad=True)
    kept: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with keeping, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = layer(x)
    setting = Setting(
        stream_bytes=2, compute_bytes=2, weight_bytes=2, adapter_bytes=4, trains_base=False, quantization=Quantization(kind),
        double_quant=False, quantized_experts=False, rank=rank, dora=False, autocast=autocast, adapted=frozenset({("q_proj", True)}),
    )  # fmt: skip
    tape, entry = Tape(), Tensor(Size(64 * 2), needs_grad=True)
    result = linear(tape, entry, Linear(name="q_proj", in_features=64, out_features=96), setting, 2)
    # autocast's 16-bit copies of the adapter's fp32 matrices are among them
    assert sum(kept.values()) == forward(tape, entry, keep=True, entry_held=False).kept.at(tokens, 0)
    assert y.element_size() * 96 == result.size.per_token


# ------------------------------------------------------------------------------------------------ known by name alone


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("casperhansen/llama-3.3-70b-instruct-awq", "AWQ 4 bit"),
        ("unsloth/Qwen2.5-72B-bnb-4bit", "bitsandbytes nf4"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "GPTQ 8 bit"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", "FP8"),
        ("openai/gpt-oss-20b", "MXFP4"),
        ("unsloth/gpt-oss-20b-BF16", None),
        ("meta-llama/Llama-3.1-8B", None),
    ],
)
def test_a_name_says_how_the_weights_are_stored(name: str, label: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.hub import load_model

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = load_model(name)
    stored_as = model.checkpoint_format
    assert (stored_as and stored_as.label) == label
    if stored_as is not None and stored_as.assumed:
        assert model.id == name  # what the printed code loads


def test_a_model_said_beside_the_file_is_stored_as_the_file_says(tmp_path: Path) -> None:
    """A report of 2025: Llama-3.3-70B in AWQ on two L40S trained for a while and ran out of memory (LLaMA-Factory issue 6827)."""
    from advisor import check

    file = tmp_path / "f.yaml"
    lines = {**FILES["llamafactory"], "model_name_or_path": "casperhansen/llama-3.3-70b-instruct-awq"}
    file.write_text(json.dumps(lines))
    report = check(file, "l40s", gpus=2, model="llama-3.3-70b")
    assert report.plan.quantization is Quantization.AWQ
    assert 37 << 30 < report.memory.expected_bytes < 48 << 30
    assert report.fit is not Fit.FITS


@pytest.mark.parametrize(
    ("model", "method", "settings", "said"),
    [
        ("qwen3-30b-a3b", "qlora", {}, True),
        ("qwen3-30b-a3b", "qdora", {}, True),
        ("qwen3-30b-a3b", "qlora", {"quantized_experts": True}, False),
        ("qwen3-30b-a3b", "lora", {}, False),
        ("llama-3.2-1b", "qlora", {}, False),
    ],
)
def test_a_price_of_quantised_experts_says_who_else_quantises_them(model: str, method: str, settings: dict[str, Any], said: bool) -> None:
    from advisor.hub import load_model

    spec = load_model(model)
    plan = default_plan(Method(method), spec, None, Request(stack=Stack.AXOLOTL)).model_copy(update=settings)
    notes = estimate_memory(spec, plan).notes
    assert any("quantize_moe_experts" in note for note in notes) is said
