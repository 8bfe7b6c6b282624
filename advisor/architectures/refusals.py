"""What is not covered, and why."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.architectures.config import Config
from advisor.errors import UnsupportedError

_SHOWN = 12
"""Supported types that a refusal lists."""

_ENCODER_DECODER = "is an encoder-decoder: its cross-attention and two sequence lengths are not priced"
_HYBRID = "mixes attention with state-space or linear-attention layers, whose memory is not priced"
_STATE_SPACE = "is a state-space model without attention, whose memory is not priced"
_VISION = "is a vision model, not a language model"

REFUSED = {
    **dict.fromkeys(
        ("t5", "mt5", "umt5", "longt5", "switch_transformers", "bart", "mbart", "pegasus", "marian", "m2m_100"), _ENCODER_DECODER
    ),
    **dict.fromkeys(("t5gemma", "t5gemma2", "led", "prophetnet", "blenderbot", "nllb-moe", "whisper", "speech_to_text"), _ENCODER_DECODER),
    **dict.fromkeys(("jamba", "bamba", "zamba", "zamba2", "nemotron_h", "falcon_h1", "granitemoehybrid", "recurrent_gemma"), _HYBRID),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "kimi_linear", "lfm2"), _HYBRID),
    **dict.fromkeys(("lfm2_moe", "olmo_hybrid", "bailing_hybrid", "minimax"), _HYBRID),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), _STATE_SPACE),
    **dict.fromkeys(("vit", "clip", "siglip", "dinov2", "deit", "swin"), _VISION),
}


def check_covered(config: Config, supported: Sequence[str]) -> str:
    """The model type, if it is covered; an error that says why not otherwise."""
    if "model_type" not in config.values:
        raise config.bad("model_type", "is missing: this is no Hugging Face model config (or a truncated one)")
    model_type = config.text("model_type", default="")
    if not model_type:
        raise config.bad("model_type", "is empty")
    if model_type in REFUSED:
        raise UnsupportedError(f"{config.where}: {model_type} {REFUSED[model_type]}")
    if model_type in supported:
        return model_type
    inner = config.raw("text_config", "llm_config", "language_config")
    if isinstance(inner, dict):
        raise UnsupportedError(_wrapper(config.where, model_type, inner.get("model_type"), supported))
    known = ", ".join(supported[:_SHOWN])
    raise UnsupportedError(
        f"{config.where}: architecture {model_type!r} is not covered; covered are {known} and {len(supported) - _SHOWN} more"
    )


def _wrapper(where: str, model_type: str, inner_type: object, supported: Sequence[str]) -> str:
    text = f"{where}: {model_type} wraps a language model together with vision or audio parts, which are not covered"
    if isinstance(inner_type, str) and inner_type in supported:
        return f"{text}; to price the language model alone, save its text_config ({inner_type}) as a config.json and give its path"
    return text
