"""What is not covered, and why."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.architectures.config import Config
from advisor.errors import UnsupportedError

_SHOWN = 12
"""Supported types that a refusal lists."""

_ENCODER_DECODER = "is an encoder-decoder: its cross-attention and its two sequence lengths are not priced"
_HYBRID = "mixes attention with state-space, linear-attention or convolution layers, whose memory is not priced"
_STATE_SPACE = "is a state-space or recurrent model without attention, whose memory is not priced"
_INDEXED = "chooses the tokens that it attends to with a trained index, whose memory is not priced"
_RELATIVE = "attends to relative positions through matrices of their own, whose memory is not priced"
_UNEVEN = "has layers that differ in their key and value heads and widths, which is not priced"
_OWN_CODE = "is no model of transformers 5.23: it runs on code of its own repository, which is neither run nor priced"
_VISION = "is a vision model, not a language model"
_WRAPPER = "wraps a language model together with vision or audio parts, which are not covered"

REFUSED = {
    **dict.fromkeys(
        ("t5", "mt5", "umt5", "longt5", "switch_transformers", "t5gemma", "t5gemma2", "bart", "mbart", "pegasus"), _ENCODER_DECODER
    ),
    **dict.fromkeys(("marian", "m2m_100", "led", "prophetnet", "blenderbot", "blenderbot-small", "nllb-moe"), _ENCODER_DECODER),
    **dict.fromkeys(("whisper", "speech_to_text", "encoder-decoder", "fsmt", "bigbird_pegasus", "plbart", "mvp"), _ENCODER_DECODER),
    **dict.fromkeys(("jamba", "bamba", "zamba", "zamba2", "nemotron_h", "falcon_h1", "granitemoehybrid", "recurrent_gemma"), _HYBRID),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "kimi_linear", "minimax"), _HYBRID),
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm3", "olmo_hybrid", "bailing_hybrid"), _HYBRID),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), _STATE_SPACE),
    **dict.fromkeys(("deepseek_v32", "deepseek_v4", "glm_moe_dsa"), _INDEXED),
    **dict.fromkeys(("deberta", "deberta-v2"), _RELATIVE),
    **dict.fromkeys(("mimo_v2_flash",), _UNEVEN),
    **dict.fromkeys(
        ("qwen", "internlm", "internlm2", "chatglm", "baichuan", "exaone", "minicpm", "mimo", "xverse", "phi3small"), _OWN_CODE
    ),
    **dict.fromkeys(("deepseek", "kimi_k2", "nemotron-nas", "orion", "aquila", "skywork"), _OWN_CODE),
    **dict.fromkeys(("vit", "clip", "siglip", "siglip2", "dinov2", "deit", "swin", "convnext", "resnet", "detr"), _VISION),
}

WRAPPERS = (
    *("llava", "llava_next", "llava_onevision", "mllama", "llama4", "gemma3", "gemma3n", "gemma4", "mistral3", "paligemma", "pixtral"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_audio", "qwen2_5_omni", "phi3_v", "phi4_multimodal", "idefics2"),
    *("idefics3", "smolvlm", "internvl", "internvl_chat", "kimi_k25", "kimi_k3", "minimax_m3", "step3p7", "aya_vision", "glm4v"),
    *("glm4v_moe", "cohere2_vision", "blip-2", "fuyu", "florence2"),
)
"""Model types that hold a language model in `text_config` or the like; others are told by having one."""


def check_covered(config: Config, supported: Sequence[str]) -> str:
    """The model type, if it is covered; an error that says why not otherwise."""
    if "model_type" not in config.values:
        raise config.bad("model_type", "is missing: this is no Hugging Face model config, or a truncated one")
    model_type = config.text("model_type", default="")
    if not model_type:
        raise config.bad("model_type", "is empty")
    if model_type in supported:
        return model_type
    if model_type in REFUSED:
        raise UnsupportedError(f"{config.where}: {model_type} {REFUSED[model_type]}")
    inner = config.raw("text_config", "llm_config", "language_config")
    if isinstance(inner, dict):
        raise UnsupportedError(f"{config.where}: {model_type} {_WRAPPER}{_advice(inner.get('model_type'), supported)}")
    if model_type in WRAPPERS:
        raise UnsupportedError(f"{config.where}: {model_type} {_WRAPPER}")
    known = ", ".join(supported[:_SHOWN])
    more = len(supported) - _SHOWN
    raise UnsupportedError(f"{config.where}: architecture {model_type!r} is not covered; covered are {known} and {more} more")


def _advice(inner_type: object, supported: Sequence[str]) -> str:
    if isinstance(inner_type, str) and inner_type in supported:
        return f"; to price the language model alone, save its text_config ({inner_type}) as a config.json and give its path"
    return ""
