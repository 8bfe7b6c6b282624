"""Models of every kind under the dry run: against real training on the CPU, and cut against whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from advisor.dryrun import trace
from advisor.dryrun.dry_run import Settings, record_on_cpu, summarise
from advisor.dryrun.isolation import libraries_untouched
from advisor.dryrun.meta_model import whole_model_cut
from advisor.dryrun.tapes import tape_of
from advisor.errors import UnsupportedError
from advisor.memory.runtime import HANDLES, workspace_bytes
from advisor.tape.sizes import Shape
from advisor.values import ALL_LINEAR, Attention, DType, Head, ModelSpec, Phase, Plan

pytestmark = pytest.mark.filterwarnings("ignore")


def spec(model_type: str, config: dict[str, Any], architecture: str = "", head: Head = Head.LM) -> ModelSpec:
    """A model of which the config alone is known, as of every type without tables."""
    return ModelSpec(
        id=f"tiny-{model_type}",
        model_type=model_type,
        architecture=architecture,
        kind="decoder",
        hidden_size=1,
        vocab_size=1,
        layers=1,
        tables=None,
        head=head,
        config_json=json.dumps({"model_type": model_type, **config}),
        source="a test",
    )


NO_DROPOUT = dict.fromkeys(
    ("dropout", "dropout_rate", "attention_dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0
)
"""A CPU drops with other kernels than a card."""
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
}
MAMBA = {"mamba_n_heads": 16, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_expand": 2, "mamba_chunk_size": 32}
GATED_DELTA_NET = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "layer_types": ["linear_attention", "full_attention"],
}
ENCODER_DECODER = {
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "vocab_size": 1000,
    "decoder_start_token_id": 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    **NO_DROPOUT,
}
T5 = {
    "d_model": 128,
    "d_kv": 16,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 8,
    "vocab_size": 1000,
    "decoder_start_token_id": 0,
    **NO_DROPOUT,
}
BERT = {**TEXT, "type_vocab_size": 2, **NO_DROPOUT}

KINDS = {
    "image-text": spec(
        "gemma3",
        {"text_config": {**TEXT, "model_type": "gemma3_text", "sliding_window": 32}, "vision_config": VISION, "mm_tokens_per_image": 16},
        "Gemma3ForConditionalGeneration",
    ),
    "gated delta net": spec("qwen3_next", {**TEXT, **GATED_DELTA_NET}),
    "Mamba 2 and attention": spec(
        "bamba", {**TEXT, **MAMBA, "attn_layer_indices": [1], "mamba_n_heads": 16, "mamba_d_head": 16}, "BambaForCausalLM"
    ),
    "Mamba 2 beside attention": spec("falcon_h1", {**TEXT, **MAMBA, "mamba_d_ssm": 256}),
    "encoder-decoder": spec("t5", T5),
    "encoder-decoder with learned positions": spec(
        "bart", {**ENCODER_DECODER, "max_position_embeddings": 128}, "BartForConditionalGeneration"
    ),
    "speech": spec(
        "whisper",
        {**ENCODER_DECODER, "max_source_positions": 50, "max_target_positions": 128, "num_mel_bins": 20},
        "WhisperForConditionalGeneration",
    ),
    "sound beside text, its loss on the rows that the mask keeps": spec(
        "qwen2_audio",
        {
            "text_config": {**TEXT, "model_type": "qwen2"},
            "audio_config": {**ENCODER_DECODER, "num_mel_bins": 20, "max_source_positions": 50, "model_type": "qwen2_audio_encoder"},
        },
        "Qwen2AudioForConditionalGeneration",
    ),
    "encoder with a head": spec("bert", BERT, head=Head.CLASSIFICATION),
    "experts one by one": spec(
        "dbrx",
        {
            "d_model": 128,
            "n_heads": 8,
            "n_layers": 2,
            "max_seq_len": 512,
            "vocab_size": 1000,
            "attn_config": {"kv_n_heads": 4, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 4},
        },
    ),
    "experts by lists of their tokens": spec(
        "jetmoe", {**TEXT, "num_local_experts": 2, "num_experts_per_tok": 2, "kv_channels": 16, "num_key_value_heads": 4}
    ),
    "rows by their language": spec("xmod", {**BERT, "languages": ["en_XX", "de_DE"], "default_language": "en_XX", "is_decoder": True}),
    "attention to chosen tokens": spec("longformer", {**BERT, "attention_window": [16, 16]}, head=Head.MLM),
    "codes of sound": spec(
        "musicgen_decoder",
        {"hidden_size": 128, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, **NO_DROPOUT},
        "MusicgenForCausalLM",
    ),
    "parameters made by old constructors": spec(
        "xlnet", {"d_model": 128, "n_layer": 2, "n_head": 4, "d_inner": 256, "vocab_size": 1000, "dropout": 0.0}, "XLNetLMHeadModel"
    ),
    "reversible layers": spec(
        "reformer",
        {
            **BERT,
            "attention_head_size": 16,
            "attn_layers": ["local", "local"],
            "axial_pos_shape": [8, 8],
            "axial_pos_embds_dim": [64, 64],
            "feed_forward_size": 256,
            "is_decoder": True,
            "local_attn_chunk_length": 16,
            "local_attention_probs_dropout_prob": 0.0,
        },
    ),
}
WITHOUT_CHECKPOINTING = ("experts by lists of their tokens", "parameters made by old constructors", "reversible layers")
"""Types that transformers 5.23 refuses to checkpoint."""


TARGETS = {"Mamba 2 beside attention": ("q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "gate_proj", "up_proj", "down_proj")}
"""peft 0.21 wraps no `out_proj` of a Mamba mixer (tuners/tuners_utils.py, `_check_lora_target_modules_mamba`)."""
SELDOM = ("attention to chosen tokens", "parameters made by old constructors", "codes of sound", "experts by lists of their tokens")
"""Kinds of which few train; their rows are slow tests."""
DTYPES = dict.fromkeys(("parameters made by old constructors", "reversible layers"), DType.FP32)
"""The code of XLNet and Reformer takes fp32."""


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(pytest.param(kind, "lora", marks=[pytest.mark.slow] * (kind in SELDOM)) for kind in KINDS if kind != "reversible layers"),
        *((kind, "full") for kind in ("image-text", "gated delta net", "speech", "reversible layers")),
    ],
)
@pytest.mark.sampled(3)
def test_the_dry_run_equals_real_training(kind: str, method: str) -> None:
    model = KINDS[kind]
    asked = {"target_modules": TARGETS.get(kind, (ALL_LINEAR,)), "head": model.head, "base_dtype": DTYPES.get(kind, DType.BF16)}
    asked |= {"gradient_checkpointing": kind not in WITHOUT_CHECKPOINTING}
    plan = Plan(method=method, seq_len_tokens=64, micro_batch_size=2, attention=Attention.EAGER, **asked)
    with libraries_untouched(False):
        real = summarise(*record_on_cpu(model, plan, Settings(lengths=(64, 64))), model, plan).breakdown
    dry = trace(model, plan, lengths=(64, 64)).breakdown
    assert dry.peak_allocated_bytes == pytest.approx(real.peak_allocated_bytes, rel=0.01)
    for found, held in zip(dry.phases, real.phases, strict=True):
        assert found.allocated_bytes == pytest.approx(held.allocated_bytes, rel=0.01)


SEEING = {
    "qwen2_5_vl": spec(
        "qwen2_5_vl",
        {
            "text_config": {
                **TEXT,
                "model_type": "qwen2_5_vl_text",
                "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
            },
            "vision_config": {**VISION, "depth": 3, "num_heads": 4, "patch_size": 14, "out_hidden_size": 128, "fullatt_block_indexes": [1]},
            "image_token_id": 990,
            "vision_start_token_id": 991,
            "vision_end_token_id": 992,
        },
        "Qwen2_5_VLForConditionalGeneration",
    ),
    "gemma3": spec(
        "gemma3",
        {
            "text_config": {**TEXT, "model_type": "gemma3_text", "sliding_window": 32},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": 990,
            "boi_token_index": 991,
            "eoi_token_index": 992,
        },
        "Gemma3ForConditionalGeneration",
    ),
    "smolvlm": spec(
        "smolvlm",
        {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": VISION, "scale_factor": 2, "image_token_id": 990},
        "SmolVLMForConditionalGeneration",
    ),
}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("qwen2_5_vl", "lora"),
        ("gemma3", "full"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("qwen2_5_vl", "full"), ("gemma3", "lora"), ("smolvlm", "lora"))),
    ],
)
@pytest.mark.sampled(1)
def test_images_go_through_the_tower_as_in_real_training(kind: str, method: str) -> None:
    seen = {"images_per_row": 2, "image_size_pixels": (90, 60), "attention": Attention.EAGER}
    plan = Plan(method=method, seq_len_tokens=256, micro_batch_size=2, **seen)
    with libraries_untouched(False):
        real = summarise(*record_on_cpu(SEEING[kind], plan, Settings(lengths=(256, 256))), SEEING[kind], plan).breakdown
    dry = trace(SEEING[kind], plan, lengths=(256, 256))
    assert any("visi" in born.place or "visual" in born.place for born in dry.stream.births if born.phase is Phase.FORWARD)
    assert dry.breakdown.peak_allocated_bytes == pytest.approx(real.peak_allocated_bytes, rel=0.01)
    for found, held in zip(dry.breakdown.phases, real.phases, strict=True):
        assert found.allocated_bytes == pytest.approx(held.allocated_bytes, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "other"), [("gemma3", Shape(3, 640)), ("qwen2_5_vl", Shape(2, 256))])
def test_a_tape_of_images_is_the_dry_run(kind: str, other: Shape) -> None:
    plan = Plan(seq_len_tokens=512, micro_batch_size=2, images_per_row=2, image_size_pixels=(90, 60))
    tape = tape_of(SEEING[kind], plan)
    for shape in (Shape(2, 512), other):
        assert tape.regime.covers(shape)
        replay = tape.replay(shape, workspace_bytes(None) // HANDLES)
        asked = {"micro_batch_size": shape.rows, "seq_len_tokens": shape.tokens}
        dry = trace(SEEING[kind], plan.model_copy(update=asked)).breakdown
        assert max(phase.allocated_bytes for phase in replay.phases) == dry.peak_allocated_bytes
        assert replay.peak_reserved_bytes == dry.peak_reserved_bytes


def test_images_that_fill_the_row_are_refused() -> None:
    plan = Plan(images_per_row=100, image_size_pixels=(90, 60), seq_len_tokens=256)
    with pytest.raises(UnsupportedError, match=r"leave no room for text in a sequence of 256; say a longer --seq-len"):
        trace(SEEING["gemma3"], plan)


def deep(kind: str, **more: Any) -> ModelSpec:
    """The model with layers enough for repetition to save some."""
    model = KINDS[kind]
    return model.model_copy(update={"config_json": json.dumps({**json.loads(model.config_json), **more})})


FULL, LORA = {"method": "full"}, {"method": "lora", "gradient_checkpointing": False}


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (
            deep(
                "image-text",
                text_config={
                    **TEXT,
                    "model_type": "gemma3_text",
                    "sliding_window": 32,
                    "num_hidden_layers": 12,
                    "layer_types": ["sliding_attention", "full_attention"] * 6,
                },
            ),
            LORA,
        ),
        (deep("speech", encoder_layers=6, decoder_layers=6), FULL),
        pytest.param(deep("encoder-decoder", num_layers=6, num_decoder_layers=6), FULL, marks=pytest.mark.slow),
        pytest.param(deep("Mamba 2 beside attention", num_hidden_layers=6), FULL, marks=pytest.mark.slow),
        pytest.param(
            deep("gated delta net", num_hidden_layers=10, layer_types=["linear_attention", "full_attention"] * 5),
            LORA,
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: value.id if isinstance(value, ModelSpec) else value["method"],
)
def test_repeated_layers_equal_the_whole_model(model: ModelSpec, settings: dict[str, object]) -> None:
    plan = Plan(seq_len_tokens=32, attention=Attention.EAGER, **settings)
    assert whole_model_cut(model, plan) is not None
    short, whole = trace(model, plan), trace(model, plan, repeat_layers=False)
    assert short.breakdown.phases == whole.breakdown.phases
    assert short.breakdown.peak_reserved_bytes == whole.breakdown.peak_reserved_bytes
    assert len(short.stream.events) == len(whole.stream.events)


def test_a_config_that_sizes_more_than_its_layers_is_not_cut() -> None:
    """Gemma 3n's embeddings have a part for each layer, which a shorter model would lack."""
    layers = {"layer_types": ["sliding_attention"] * 12, "activation_sparsity_pattern": [0.0] * 12, "num_kv_shared_layers": 0}
    config = {**TEXT, **layers, "num_hidden_layers": 12, "vocab_size_per_layer_input": 100, "sliding_window": 32, "laurel_rank": 8}
    assert whole_model_cut(spec("gemma3n_text", config), Plan()) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("image-text", "text alone"),
        ("encoder-decoder", "64 tokens into the encoder and 64 tokens out of the decoder"),
        ("speech", "sound"),
        ("gated delta net", "transformers' own torch code"),
    ],
)
def test_what_is_said_beside_the_answer(kind: str, words: str) -> None:
    said = trace(KINDS[kind], Plan(seq_len_tokens=64), steps=1).breakdown.notes
    assert [note for note in said if words in note]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (spec("ctrl", {"n_layer": 2, "n_embd": 64, "n_head": 4, "dff": 64, "vocab_size": 100}), "--no-checkpointing"),
        (spec("mamba", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}), "name --target-modules"),
        (spec("bert", {"hidden_size": "wide"}), "makes no bert config"),
        (spec("no_such_type", {}), "no model type"),
    ],
    ids=lambda value: value.model_type if isinstance(value, ModelSpec) else "",
)
def test_refusals_say_what_to_do(model: ModelSpec, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as refusal:
        trace(model, Plan(seq_len_tokens=64))
    assert str(refusal.value).startswith(model.id)
    assert "\n" not in str(refusal.value)
