"""Configs that make no model: every one gives an answer or one clear line that names the field. Nothing else may come out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor.architectures import SUPPORTED, spec_from_config
from advisor.errors import AdvisorError, InvalidInputError, UnsupportedError
from advisor.hub import load_model, search_models

CONFIGS = {row.id: dict(row.config) for row in search_models()}
LLAMA = CONFIGS["meta-llama/Llama-3.1-8B"]


def judge(config: dict[str, Any]) -> str:
    """The error's line, or "" for an answer. Everything that is not an AdvisorError comes through."""
    try:
        spec = spec_from_config(config, id="the-model", source="test")
        line = ""
        assert spec.params > 0
        assert spec.layers > 0
    except AdvisorError as error:
        line = str(error)
        assert line.startswith("the-model: ")
    assert "\n" not in line
    assert len(line) < 400
    return line


# (field, value, what the line says of the field)
BROKEN = [
    ("hidden_size", None, "is missing"),
    ("hidden_size", 0, "must be positive, not 0"),
    ("hidden_size", -4096, "must be positive, not -4096"),
    ("hidden_size", "4096", 'must be a whole number, not "4096"'),
    ("hidden_size", 4096.0, "must be a whole number, not 4096.0"),
    ("hidden_size", True, "must be a whole number, not true"),
    ("hidden_size", [4096], "must be a whole number, not a list"),
    ("hidden_size", {"value": 4096}, "must be a whole number, not an object"),
    ("hidden_size", 10**12, "is 1000000000000, beyond any known model"),
    ("hidden_size", 10**500, "is a number beyond 10^18, beyond any known model"),
    ("hidden_size", 4095, "(4,095) must be a multiple of num_attention_heads (32)"),
    ("num_hidden_layers", None, "is missing"),
    ("num_hidden_layers", 10**9, "beyond any known model"),
    ("num_hidden_layers", -1, "must be positive"),
    ("num_attention_heads", 0, "must be positive"),
    ("num_attention_heads", None, "is missing"),
    ("num_key_value_heads", 0, "must be positive"),
    ("num_key_value_heads", 5, "num_attention_heads (32) must be a multiple of num_key_value_heads (5)"),
    ("num_key_value_heads", 64, "num_attention_heads (32) must be a multiple of num_key_value_heads (64)"),
    ("intermediate_size", None, "is missing"),
    ("intermediate_size", "wide", 'must be a whole number, not "wide"'),
    ("vocab_size", None, "is missing"),
    ("vocab_size", 10**12, "beyond any known model"),
    ("head_dim", 127, "(127) must leave an even number of rotated channels"),
    ("head_dim", -1, "must be positive"),
    ("max_position_embeddings", -1, "must be positive"),
    ("attention_bias", "no", 'must be true or false, not "no"'),
    ("mlp_bias", 1, "must be true or false, not 1"),
    ("tie_word_embeddings", [], "must be true or false, not a list"),
    ("hidden_act", 7, "must be a short text, not 7"),
    ("model_type", 3, "must be a short text, not 3"),
    ("model_type", "", "is empty"),
    ("model_type", None, "is empty"),
]


@pytest.mark.parametrize(("field", "value", "words"), BROKEN)
def test_the_line_names_the_field(field: str, value: object, words: str) -> None:
    line = judge(LLAMA | {field: value})
    assert words in line
    assert field in line


@pytest.mark.parametrize(
    "field", ["model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
def test_a_missing_field_is_named(field: str) -> None:
    line = judge({key: value for key, value in LLAMA.items() if key != field})
    assert f"the-model: {field} is missing" in line


# (profile, field, value, words of the line)
BROKEN_ELSEWHERE = [
    ("Qwen/Qwen3-30B-A3B", "num_experts", 0, "num_experts must be positive"),
    ("Qwen/Qwen3-30B-A3B", "num_experts_per_tok", 500, "num_experts_per_tok (500) exceeds num_experts (128)"),
    ("Qwen/Qwen3-30B-A3B", "mlp_only_layers", "all", "mlp_only_layers must be a list of whole numbers"),
    ("deepseek-ai/DeepSeek-V3", "kv_lora_rank", 0, "kv_lora_rank must be positive"),
    ("deepseek-ai/DeepSeek-V3", "qk_rope_head_dim", 63, "qk_rope_head_dim (63) must be even"),
    ("google/gemma-3-1b-it", "layer_types", ["full_attention"], "layer_types has 1 entries for 26 layers"),
    ("google/gemma-3-1b-it", "layer_types", ["linear_attention"] * 26, "layer_types holds 'linear_attention'"),
    ("google/gemma-2-9b", "attn_logit_softcapping", "hot", "attn_logit_softcapping must be a number or null"),
    ("microsoft/Phi-4-mini-instruct", "partial_rotary_factor", 7, "partial_rotary_factor must be a number from 0 to 1"),
    ("HuggingFaceTB/SmolLM3-3B", "no_rope_layers", [1, 0], "no_rope_layers has 2 entries for 36 layers"),
    ("EleutherAI/gpt-neo-1.3B", "attention_types", [["global"], 3], "attention_types must be like"),
    ("EleutherAI/gpt-j-6b", "rotary_dim", 1000, "rotary_dim (1000) exceeds the width of a head (256)"),
    ("google-bert/bert-base-uncased", "is_decoder", True, "is_decoder is true"),
    ("openai-community/gpt2", "add_cross_attention", True, "add_cross_attention is true"),
    ("openai-community/gpt2", "n_embd", -1, "hidden_size must be positive"),
]


@pytest.mark.parametrize(("profile", "field", "value", "words"), BROKEN_ELSEWHERE)
def test_other_families_name_their_fields(profile: str, field: str, value: object, words: str) -> None:
    assert words in judge(CONFIGS[profile] | {field: value})


# ------------------------------------------------------------------------------------------------ what is not covered


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"^x: architecture 'megalodon' is no model type of transformers 5\.23; is it spelt as"):
        spec_from_config(LLAMA | {"model_type": "megalodon"}, id="x", source="test")


# (model type, words of the reason)
NOT_RUN = [
    ("internlm2", "is no model of transformers 5.23: it runs on code of its own repository"),
    ("vit", "is a vision model"),
    ("wav2vec2", "is a model of sounds without a language model"),
    ("time_series_transformer", "is a part of other models, or a model without a loss of its own"),
    ("autoformer", "is a part of other models, or a model without a loss of its own"),
    ("qwen2_vl_vision", "is a part of other models, or a model without a loss of its own"),
]


@pytest.mark.parametrize(("model_type", "words"), NOT_RUN)
def test_types_that_are_not_trained_on_text_give_a_reason(model_type: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^x: {model_type} {re.escape(words)}"):
        spec_from_config({"model_type": model_type}, id="x", source="test")


# (config, kind, class, width, vocabulary, layers): each as transformers 5.23 builds it
NO_TABLES = [
    ({"model_type": "t5", "d_model": 768, "num_layers": 12}, "encoder-decoder", "T5ForConditionalGeneration", 768, 32_128, 12),
    ({"model_type": "jamba"}, "decoder", "JambaForCausalLM", 4096, 65_536, 32),
    ({"model_type": "deepseek_v32"}, "decoder", "DeepseekV32ForCausalLM", 7168, 129_280, 61),
    ({"model_type": "whisper", "d_model": 1280, "encoder_layers": 32}, "speech", "WhisperForConditionalGeneration", 1280, 51_865, 32),
    # the text part's own fields, and its class's defaults beside them
    ({"model_type": "llava", "text_config": {"model_type": "llama", "num_hidden_layers": 40}}, "image-text", "", 4096, 32_000, 40),
    ({"model_type": "gemma3", "text_config": {"hidden_size": 2560}}, "image-text", "Gemma3ForConditionalGeneration", 2560, 262_208, 26),
    # older files have them beside those of the towers
    ({"model_type": "qwen2_vl", "hidden_size": 1536, "num_hidden_layers": 28}, "image-text", "", 1536, 152_064, 28),
    ({"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {"hidden_size": 2048}}}, "audio-text", "", 2048, 152_064, 28),
    # the class that config.json names, if transformers builds it of that type
    ({"model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"]}, "encoder", "", 1536, 128_100, 24),
    ({"model_type": "mamba", "architectures": ["SomebodysMamba"]}, "decoder", "MambaForCausalLM", 768, 50_280, 32),
]


@pytest.mark.parametrize(("config", "kind", "architecture", "hidden", "vocab", "layers"), NO_TABLES)
def test_types_without_tables_are_known_by_their_config(
    config: dict[str, object], kind: str, architecture: str, hidden: int, vocab: int, layers: int
) -> None:
    assert config["model_type"] not in SUPPORTED
    spec = spec_from_config(config, id="x", source="test")
    assert (spec.kind.value, spec.hidden_size, spec.vocab_size, spec.layers) == (kind, hidden, vocab, layers)
    assert architecture in ("", spec.architecture)
    assert spec.tables is None
    with pytest.raises(UnsupportedError, match=r"x: .* models have no table of dimensions"):
        _ = spec.shape
    with pytest.raises(UnsupportedError, match=r"x: its parameters are not counted; pip install 'finetune-advisor\[torch\]'"):
        _ = spec.params


def test_a_text_part_that_is_broken_is_named() -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": "wide"}}
    with pytest.raises(InvalidInputError, match=r"^x: text_config: hidden_size must be a whole number"):
        spec_from_config(config, id="x", source="test")


def test_assumptions_are_said() -> None:
    config = LLAMA | {"architectures": ["LlamaModel"], "quantization_config": {"quant_method": "awq"}}
    spec = spec_from_config(config, id="x", source="test")
    assert spec.params == 8_030_261_248
    assert any("LlamaModel" in note for note in spec.notes)
    assert spec.checkpoint_format is not None
    assert spec.checkpoint_format.label == "AWQ 4 bit"


# ------------------------------------------------------------------------------------------------ mutations

FIELDS = sorted({key for config in CONFIGS.values() for key in config})
JUNK: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.integers(0, 300),
    st.sampled_from([10**12, -(10**12), 10**40, 2**31, 2**63, 4300, 0, -1, 1, 1.5, float("nan"), float("inf"), -0.0]),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(["full_attention", "sliding_attention", "silu", "x" * 10_000, "../../etc/passwd", "\n\n", "llama", "jamba"]),
    st.lists(st.integers(-2, 40), max_size=40),
    st.lists(st.sampled_from(["full_attention", "sliding_attention", "sparse", "dense"]), max_size=40),
    st.lists(st.lists(st.one_of(st.integers(-1, 9), st.lists(st.text(max_size=6), max_size=3)), max_size=3), max_size=3),
    st.dictionaries(
        st.sampled_from(["partial_rotary_factor", "rope_type", "x"]), st.one_of(st.none(), st.floats(), st.text(max_size=5)), max_size=3
    ),
    st.just(LLAMA),
)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A profile's config with one to four of its fields dropped, swapped with one another, or filled with something else."""
    config = dict(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    for _ in range(draw(st.integers(1, 4))):
        field = draw(st.one_of(st.sampled_from(sorted(config)), st.sampled_from(FIELDS))) if config else draw(st.sampled_from(FIELDS))
        change = draw(st.sampled_from(["drop", "junk", "junk", "swap", "scale", "type"]))
        if change == "drop":
            config.pop(field, None)
        elif change == "junk":
            config[field] = draw(JUNK)
        elif change == "swap":
            other = draw(st.sampled_from(sorted(config))) if config else field
            config[field], config[other] = config.get(other), config.get(field)
        elif change == "scale" and isinstance(config.get(field), int):
            config[field] = config[field] * draw(st.sampled_from([-1, 2, 3, 1000])) + draw(st.integers(-1, 1))
        elif change == "type":
            config["model_type"] = draw(st.sampled_from(SUPPORTED))
    return config


@settings(max_examples=2000)
@given(mutated())
def test_a_mutated_config_gives_an_answer_or_a_clear_line(config: dict[str, Any]) -> None:
    judge(config)


@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]), JUNK, max_size=12), st.sampled_from(SUPPORTED))
def test_a_config_of_nothing_but_junk(config: dict[str, Any], model_type: str) -> None:
    judge(config | {"model_type": model_type})


# ------------------------------------------------------------------------------------------------ files

WHOLE = json.dumps(LLAMA, indent=2)


@given(st.integers(0, len(WHOLE) - 2))
def test_a_truncated_file(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "config.json"
    path.write_text(WHOLE[:length], encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"config\.json is (empty|not valid JSON: .* at line \d+, column \d+; is it complete\?)"):
        load_model(str(path))


# (bytes of the file, words of the line)
FILES = [
    (b"", "is empty"),
    (b"[]", "is no model config: it holds a list, not an object"),
    (b"null", "is no model config: it holds a NoneType"),
    (b'"llama"', "is no model config: it holds a str"),
    (b"{}", "model_type is missing"),
    (b'{"dim": 4096, "n_layers": 32}', "model_type is missing"),
    (b"\xff\xfe\x00", "is not text in UTF-8"),
    (b"\x80\x04pickle", "is not text in UTF-8"),
    (b"[" * 100_000, "is no model config"),
    (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is no model config"),
    (b'{"model_type": "llama",}', "is not valid JSON"),
    (b" " * 9_000_000, "larger than 8 MB"),
]


@pytest.mark.parametrize(("content", "words"), FILES)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(AdvisorError, match=words) as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())
    assert load_model(str(path)).params == 8_030_261_248


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(InvalidInputError, match=r"(cannot be read|holds no config)"):
        load_model(str(tmp_path))
