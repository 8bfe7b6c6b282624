"""Shapes of models: published counts, and parameter for parameter what transformers builds."""

from __future__ import annotations

import inspect
import json
import random
import re
from collections import Counter
from functools import cache
from typing import Any

import meta_models
import pytest

from advisor.architectures import SUPPORTED, headed, spec_from_config
from advisor.hub import ModelRow, load_model, profile_spec, search_models
from advisor.values import Head, ModelKind, ModelSpec, Plan

ROWS = search_models()
IDS = [row.id for row in ROWS]

# (name, parameters, source)
GOLDEN = [
    ("llama-3.1-8b", 8_030_261_248, "Hub, safetensors total"),
    ("llama-70b", 70_553_706_496, "Hub, safetensors total"),
    ("llama-405b", 405_853_388_800, "Hub, safetensors total"),
    ("mistral-7b", 7_241_732_096, "Hub, safetensors total"),
    ("qwen2.5-7b", 7_615_616_512, "Hub, safetensors total"),
    ("qwen3-30b-a3b", 30_532_122_624, "Hub, safetensors total"),
    ("gemma-2-9b", 9_241_705_984, "Hub, safetensors total"),
    ("gemma-3-1b", 999_885_952, "Hub, safetensors total"),
    ("phi-4", 14_659_507_200, "Hub, safetensors total"),
    ("mixtral-8x7b", 46_702_792_704, "Hub, safetensors total"),
    ("gpt2", 124_439_808, "GPT-2 paper's small model, buffers apart"),
    ("deepseek-v3", 671_026_404_352, "DeepSeek-V3 report: 671B without the prediction layer"),
    ("roberta-base", 124_697_433, "Hub, safetensors total"),
]


@pytest.mark.parametrize(("name", "params", "source"), GOLDEN)
def test_golden_counts(name: str, params: int, source: str) -> None:
    assert load_model(name).params == params, source


def test_there_are_many_profiles_over_many_types() -> None:
    assert len(ROWS) >= 400
    assert sum(len(set(row.names)) for row in ROWS) >= 1200
    assert len({row.model_type for row in ROWS}) >= 110
    assert {profile_spec(row).kind for row in ROWS} == set(ModelKind)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_published_counts(row: ModelRow) -> None:
    """Equal to the parameter where the published figure is exact, but for what the row says the figure has besides."""
    spec = profile_spec(row)
    assert row.params is None or spec.params == row.params
    if row.params_published is None:
        return
    if row.params_published_kind in ("exact", "derived exact", "same-shape sibling"):
        assert spec.params + row.published_extra == row.params_published
    else:  # "1.3B" may stand for 1.35B, and "2B" for 2.5B
        assert spec.params == pytest.approx(row.params_published, rel=0.3)


WITH_TABLES = [row for row in ROWS if row.model_type in SUPPORTED]
WITHOUT_TABLES = [row for row in ROWS if row.model_type not in SUPPORTED]
DENSE_DECODERS = [
    row
    for row in WITH_TABLES
    if profile_spec(row).kind is ModelKind.DECODER and "moe" not in {b.mlp.kind for b in profile_spec(row).shape.blocks}
]


def test_dense_decoders_need_no_excuse_but_buffers() -> None:
    """What a published figure of a dense decoder has besides is rotary buffers of old checkpoints, or a head that was left out."""
    assert {row.id for row in DENSE_DECODERS if row.published_extra} == {
        "huggyllama/llama-7b",
        "huggyllama/llama-30b",
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-13b-hf",
        "meta-llama/Llama-2-70b-hf",
        "Qwen/Qwen3-Embedding-8B",
    }


# ------------------------------------------------------------------------------------------------ against transformers


def layers_of(spec: ModelSpec) -> list[tuple[int, Counter[meta_models.Matrix]]]:
    """Parameters and matrices of every layer, as the meta model reports them."""
    layers = []
    for block in spec.shape.blocks:
        found: Counter[meta_models.Matrix] = Counter()
        for layer in block.linears:
            if layer.is_module:
                found[layer.name, layer.in_features, layer.out_features, layer.bias] += layer.copies
        layers += [(block.params, found)] * block.count
    return layers


def quantizable_of(spec: ModelSpec) -> list[Counter[meta_models.Matrix]]:
    """The matrices of every layer that the formulas count as quantised under QLoRA."""
    layers = []
    for block in spec.shape.blocks:
        found: Counter[meta_models.Matrix] = Counter()
        for layer in block.linears:
            if layer.can_be_quantized:
                found[layer.name, layer.in_features, layer.out_features, layer.bias] += layer.copies
        layers += [found] * block.count
    return layers


def check_against_transformers(config: dict[str, Any], spec: ModelSpec) -> None:
    real = meta_models.build(config, spec.architecture)
    assert layers_of(spec) == [*real.layers]
    assert quantizable_of(spec) == [*real.quantizable]
    assert spec.params == real.params
    assert spec.shape.tied_embeddings == real.tied


def distinct_prefix(spec: ModelSpec) -> int:
    """The fewest first layers that show every kind of layer (an even number, for patterns of two)."""
    seen: set[tuple[int, frozenset[meta_models.Matrix]]] = set()
    last = 0
    for index, (params, matrices) in enumerate(layers_of(spec)):
        if (params, frozenset(matrices)) not in seen:
            seen.add((params, frozenset(matrices)))
            last = index
    return min(last + 2 - last % 2, spec.layers)


@cache
def installed() -> frozenset[str]:
    transformers = pytest.importorskip("transformers")
    return frozenset(transformers.CONFIG_MAPPING)


COUNTED_QUICKLY = ("whisper-tiny", "t5-small", "mamba-130m", "lfm2-350m", "smolvlm-256m", "gemma-3-4b", "qwen3.5-0.8b", "mt5-small")


def counted(row: ModelRow) -> int:
    count = pytest.importorskip("advisor.dryrun.count")
    if row.model_type == "gemma3n":
        pytest.importorskip("timm", exc_type=ImportError)
    counted: int = count.count(profile_spec(row))
    return counted


@pytest.mark.parametrize("name", COUNTED_QUICKLY)
def test_parameters_without_tables_are_what_transformers_builds(name: str) -> None:
    (row,) = (row for row in WITHOUT_TABLES if name in row.names)
    assert row.params == counted(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", WITHOUT_TABLES, ids=[row.id for row in WITHOUT_TABLES])
def test_every_count_without_tables_is_what_transformers_builds(row: ModelRow) -> None:
    assert row.params == counted(row)


@pytest.mark.parametrize("row", WITH_TABLES, ids=[row.id for row in WITH_TABLES])
def test_profile_equals_what_transformers_builds(row: ModelRow) -> None:
    """Layer by layer on a cut that shows every kind of layer; the rest of the whole model is more of the same layers."""
    if row.model_type not in installed():
        pytest.skip("not in the installed transformers")
    spec = profile_spec(row)
    config = json.loads(spec.config_json)
    shorter = meta_models.cut(config, distinct_prefix(spec))
    short_spec = spec_from_config(shorter, id=row.id, source="cut")
    check_against_transformers(shorter, short_spec)
    outside = spec.params - sum(block.params * block.count for block in spec.shape.blocks)
    assert outside == short_spec.params - sum(block.params * block.count for block in short_spec.shape.blocks)
    known = {(block.params, block.linears) for block in short_spec.shape.blocks}
    assert {(block.params, block.linears) for block in spec.shape.blocks} == known


SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# What a small model of a type needs besides.
EXTRAS: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 8, "moe_intermediate_size": 32},
    "deepseek_v3": {"n_routed_experts": 16, "moe_intermediate_size": 32},
    "distilbert": {"hidden_dim": 96},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 32},
    "ernie4_5_moe": {"moe_num_experts": 8, "moe_intermediate_size": 32},
    "glm4_moe": {"n_routed_experts": 16, "moe_intermediate_size": 32},
    "glm4_moe_lite": {"n_routed_experts": 16, "moe_intermediate_size": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gpt_oss": {"num_local_experts": 8},
    "gptj": {"rotary_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 16},
    "llama4_text": {"intermediate_size_mlp": 112, "num_local_experts": 4},
    "minimax_m2": {"num_local_experts": 8},
    "ministral": {"head_dim": 16},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "solar_open": {"n_routed_experts": 16, "moe_intermediate_size": 32},
    "xglm": {"ffn_dim": 96},
}

# Fields that change a shape, and values to try where a config class has the field.
CHOICES: dict[str, list[Any]] = {
    "alibi": [True, False],
    "attention_bias": [True, False],
    "attention_out_bias": [True, False],
    "bias": [True, False],
    "classifier_bias": [True, False],
    "decoder_bias": [True, False],
    "decoder_sparse_step": [1, 2],
    "do_layer_norm_before": [True, False],
    "enable_bias": [True, False],
    "first_k_dense_replace": [0, 1, 3],
    "head_dim": [8, 16, 32],
    "interleave_moe_layer_step": [1, 2],
    "kv_lora_rank": [16, 32],
    "layer_norm_elementwise_affine": [True, False],
    "lm_head_bias": [True, False],
    "mlp_bias": [True, False],
    "mlp_only_layers": [[], [0], [1, 2]],
    "moe_layer_interval": [1, 2],
    "moe_layer_start_index": [0, 1, 2],
    "moe_layers": [None, [1, 3]],
    "moe_num_shared_experts": [1, 2],
    "multi_query": [True, False],
    "n_inner": [None, 80],
    "n_shared_experts": [1, 2],
    "new_decoder_architecture": [True, False],
    "norm_bias": [True, False],
    "num_key_value_heads": [1, 2, 4],
    "num_kv_heads": [1, 2, 4],
    "parallel_attn": [True, False],
    "q_lora_rank": [None, 24],
    "qk_layernorm": [True, False],
    "qkv_bias": [True, False],
    "shared_expert_intermediate_size": [40, 56],
    "shared_intermediate_size": [0, 48],
    "sliding_window": [16],
    "tie_word_embeddings": [True, False],
    "type_vocab_size": [1, 2],
    "use_bias": [True, False],
    "use_parallel_residual": [True, False],
    "use_qk_norm": [True, False],
    "use_qkv_bias": [True, False],
    "use_sliding_window": [True, False],
    "word_embed_proj_dim": [32, 64],
}
# head_dim is not the reader's to choose: it is overwritten (latent attention) or must be as wide as it is (others).
FIXED_HEAD_DIM = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu"}
VARIANTS = 10


def small_config(model_type: str, random_: random.Random, plain: bool) -> dict[str, Any]:
    import transformers

    config_class = transformers.CONFIG_MAPPING[model_type]
    fields = set(config_class.__dataclass_fields__)
    own_names = config_class.attribute_map
    wanted = {key: value for key, value in SMALL.items() if key in fields or key in own_names or key.endswith("_token_id")}
    config = {own_names.get(key, key) if own_names.get(key) in fields else key: value for key, value in wanted.items()}
    config |= EXTRAS.get(model_type, {})
    for key, values in CHOICES.items():
        if not plain and key in fields and random_.random() < 0.5 and not (key == "head_dim" and model_type in FIXED_HEAD_DIM):
            config[key] = random_.choice(values)
    if model_type == "internlm3":  # the class refuses one without the other
        config["mlp_bias"] = config.get("attention_bias", False)
    return config | {"model_type": model_type}


@pytest.mark.parametrize("model_type", SUPPORTED)
@pytest.mark.sampled(25)
def test_small_models_equal_what_transformers_builds(model_type: str) -> None:
    """Random switches of every covered type; missing fields must mean the class defaults, and patterns of layers the class's own."""
    if model_type not in installed():
        pytest.skip("not in the installed transformers")
    random_ = random.Random(model_type)
    for variant in range(VARIANTS):
        config = small_config(model_type, random_, plain=variant == 0)
        spec = spec_from_config(config, id=model_type, source="small")
        check_against_transformers(config, spec)
        assert spec.shape.blocks == spec_from_config(_resolved(config), id=model_type, source="resolved").shape.blocks


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
    """The config as the class completes it: every default and layer pattern written out."""
    import transformers

    values = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config).to_dict()
    resolved: dict[str, Any] = json.loads(json.dumps(values))
    return resolved


# ------------------------------------------------------------------------------------------------ what the memory formulas read


def attention_kernels(model_type: str) -> tuple[bool, bool]:
    import transformers

    auto = transformers.models.auto.modeling_auto
    config_class = transformers.CONFIG_MAPPING[model_type]
    mapping = auto.MODEL_FOR_CAUSAL_LM_MAPPING if load_type(model_type).kind is ModelKind.DECODER else auto.MODEL_FOR_MASKED_LM_MAPPING
    model_class = mapping[config_class]
    return model_class._supports_sdpa, model_class._supports_flash_attn


def load_type(model_type: str) -> ModelSpec:
    return spec_from_config(small_config(model_type, random.Random(0), plain=True), id=model_type, source="small")


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_attention_kernels_are_those_that_transformers_has(model_type: str) -> None:
    if model_type not in installed():
        pytest.skip("not in the installed transformers")
    shape = load_type(model_type).shape.blocks[0].attention
    assert (shape.sdpa, shape.flash) == attention_kernels(model_type)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_every_matrix_belongs_to_a_half_of_its_layer(model_type: str) -> None:
    installed()
    for block in load_type(model_type).shape.blocks:
        assert {layer.part for layer in block.linears} == {"attention", "mlp"}
        names = Counter((layer.part, layer.name) for layer in block.linears if layer.is_module)
        repeated = {name for name, count in names.items() if count > 1}
        assert repeated <= {("mlp", "dense")}, "only BERT repeats a name within a half"


def forwards_of(model_type: str) -> list[str]:
    """The source of every forward in the file of a type's models."""
    import transformers

    model_class = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[transformers.CONFIG_MAPPING[model_type]]
    classes = [each for _, each in inspect.getmembers(inspect.getmodule(model_class), inspect.isclass)]
    return [inspect.getsource(each.forward) for each in classes if "forward" in vars(each)]


# (type with a shared expert, how the module that runs it and the routed ones calls each)
SHARED = [
    ("qwen2_moe", "self.shared_expert(", "self.experts("),
    ("ernie4_5_moe", "self.shared_experts(", "self.experts("),
    *((name, "self.shared_experts(", "self.experts(") for name in ("deepseek_v2", "deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite")),
    ("solar_open", "self.shared_experts(", "self.experts("),
    ("llama4_text", "self.shared_expert(", "self.experts("),
]


@pytest.mark.parametrize(("model_type", "shared", "routed"), SHARED)
def test_the_shared_expert_runs_where_transformers_runs_it(model_type: str, shared: str, routed: str) -> None:
    if model_type not in installed():
        pytest.skip("not in the installed transformers")
    (source,) = {source for source in forwards_of(model_type) if shared in source and routed in source}
    mlps = [block.mlp for block in load_type(model_type).shape.blocks if block.mlp.shared_intermediate_size]
    assert {mlp.shared_runs_first for mlp in mlps} == {source.index(shared) < source.index(routed)}


def test_every_type_with_a_shared_expert_is_among_them() -> None:
    found = {name for name in SUPPORTED if any(block.mlp.shared_intermediate_size for block in load_type(name).shape.blocks)}
    assert found == {name for name, *_ in SHARED}


# (name, what the formulas must know)
TRAITS = [
    ("gemma-2-9b", {"softcaps_logits": True, "embedding_scaled": False, "tied_embeddings": True}),
    ("gemma-3-1b", {"softcaps_logits": False, "embedding_scaled": False, "tied_embeddings": True}),
    ("granite-8b", {"scales_logits": True, "embedding_scaled": True}),
    ("command-r", {"scales_logits": True, "tied_embeddings": True}),
    ("phi-2", {"head_bias": True, "tied_embeddings": False}),
    ("gpt-j-6b", {"head_bias": True}),
    ("llama-3.1-8b", {"head_bias": False, "scales_logits": False, "softcaps_logits": False, "embedding_scaled": False}),
    ("bge-large", {"head": "embedding", "first_head": "classification", "kind": "encoder"}),
    ("bert-base", {"head": "mlm", "first_head": "classification", "kind": "encoder", "head_bias": True}),
]


@pytest.mark.parametrize(("name", "expected"), TRAITS)
def test_traits_of_models(name: str, expected: dict[str, object]) -> None:
    spec = load_model(name)
    held = {**spec.model_dump(), **spec.shape.model_dump(), "first_head": spec.first_head}
    assert {key: held[key] for key in expected} == expected


# (name, field of the first block's attention, value)
ATTENTION = [
    ("mistral-7b", "window_tokens", 4096),
    ("mistral-7b-v0.3", "window_tokens", None),
    ("qwen2.5-7b", "window_tokens", None),
    ("gemma-3-1b", "window_tokens", 512),
    ("qwen3-8b", "qk_norm", "head"),
    ("olmo-2-7b", "qk_norm", "full"),
    ("phi-2", "rotary_fraction", 0.4),
    ("phi-4-mini", "rotary_fraction", 0.75),
    ("pythia-1b", "rotary_fraction", 0.25),
    ("gpt2", "rotary_fraction", 0.0),
    ("deepseek-v3", "kind", "latent"),
    ("deepseek-v3", "head_dim", 192),
    ("deepseek-v3", "v_head_dim", 128),
    ("phi-3-mini", "fused_qkv", True),
    ("gemma-2-9b", "softcap", True),
    ("falcon-7b", "kv_heads", 1),
    ("falcon-40b", "kv_heads", 8),
    ("minimax-m2.5", "rotary_fraction", 0.5),
]


@pytest.mark.parametrize(("name", "field", "expected"), ATTENTION)
def test_attention_of_models(name: str, field: str, expected: object) -> None:
    assert getattr(load_model(name).shape.blocks[0].attention, field) == expected


# (name, attention weights dropped, outputs dropped, embedding dropped)
DROPOUT = [
    ("llama-3.1-8b", False, "none", False),
    ("gpt2", True, "both", True),
    ("opt-1.3b", False, "both", False),
    ("pythia-1b", False, "none", False),
    ("bert-base", True, "both", True),
    ("distilbert", True, "mlp", True),
    ("modernbert", False, "none", False),
    ("seed-oss-36b", True, "both", False),
]


@pytest.mark.parametrize(("name", "attention", "residual", "embedding"), DROPOUT)
def test_dropout_of_models(name: str, attention: bool, residual: str, embedding: bool) -> None:
    spec = load_model(name)
    found = {(block.attention.dropout, block.residual_dropout) for block in spec.shape.blocks}
    assert (found, spec.shape.embedding_dropout) == ({(attention, residual)}, embedding)


# (name, runs of equal layers: how many, or (layers, window) of the first ones)
RUNS = [
    ("llama-70b", [(80, None)]),
    ("gemma-2-9b", [(1, 4096), (1, None)] * 21),
    ("gemma-3-1b", [(5, 512), (1, None)] * 4 + [(2, 512)]),
    ("olmo-3-7b", [(3, 4096), (1, None)] * 8),
    ("gpt-oss-20b", [(1, 128), (1, None)] * 12),
    ("deepseek-v3", [(3, None), (58, None)]),
    ("smollm3", [(3, None), (1, None)] * 9),
]


@pytest.mark.parametrize(("name", "expected"), RUNS)
def test_runs_of_layers_keep_their_order(name: str, expected: list[tuple[int, int | None]]) -> None:
    assert [(block.count, block.attention.window_tokens) for block in load_model(name).shape.blocks] == expected


def test_experts() -> None:
    spec = load_model("qwen3-30b-a3b")
    (block,) = spec.shape.blocks
    assert (block.mlp.kind, block.mlp.experts, block.mlp.experts_per_token, block.mlp.intermediate_size) == ("moe", 128, 8, 768)
    bare = {layer.name: (layer.in_features, layer.out_features, layer.copies) for layer in block.linears if not layer.is_module}
    assert bare == {"gate": (2048, 128, 1), "gate_up_proj": (2048, 1536, 128), "down_proj": (768, 2048, 128)}


# (file's head, its word, its labels)
NAMED_HEADS = [
    ("BertForMaskedLM", Head.MLM, None),
    ("BertModel", Head.EMBEDDING, None),
    ("BertForSequenceClassification", Head.CLASSIFICATION, 3),
    ("RobertaForSequenceClassification", Head.CLASSIFICATION, 3),
    ("DistilBertForSequenceClassification", Head.CLASSIFICATION, 3),
    ("ModernBertForTokenClassification", Head.TOKENS, 3),
    ("LlamaForSequenceClassification", Head.CLASSIFICATION, 3),
    ("Qwen2ForTokenClassification", Head.TOKENS, 3),
    ("LlamaModel", Head.LM, None),
    ("LlamaForQuestionAnswering", Head.LM, None),
]


@pytest.mark.parametrize(("architecture", "head", "labels"), NAMED_HEADS)
def test_a_config_names_its_head(architecture: str, head: Head, labels: int | None) -> None:
    installed()
    model_type = re.split("For|Model", architecture)[0].lower()
    config = small_config(model_type, random.Random(1), plain=True) | {
        "architectures": [architecture],
        "id2label": {0: "a", 1: "b", 2: "c"},
    }
    spec = spec_from_config(config, id=model_type, source="small")
    assert (spec.head, spec.labels) == (head, labels)
    check_against_transformers(config, spec)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_every_head_has_the_parameters_that_transformers_builds(model_type: str) -> None:
    """And none is missing: a head is known exactly where transformers' auto class has one."""
    if model_type not in installed():
        pytest.skip("not in the installed transformers")
    import transformers

    auto = transformers.models.auto.modeling_auto
    mappings = {
        Head.LM: auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        Head.MLM: auto.MODEL_FOR_MASKED_LM_MAPPING,
        Head.CLASSIFICATION: auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        Head.TOKENS: auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    }
    config = small_config(model_type, random.Random(1), plain=True)
    spec = spec_from_config(config, id=model_type, source="small")
    has = {head for head, mapping in mappings.items() if transformers.CONFIG_MAPPING[model_type] in mapping}
    known = {shape.head for shape in spec.shape.heads} - {Head.EMBEDDING}
    assert known == has - ({Head.LM} if spec.kind is ModelKind.ENCODER else set())
    for head in sorted(known):
        under = headed(spec, Plan(head=head, labels=5))
        check_against_transformers(config | {"num_labels": 5}, under)
