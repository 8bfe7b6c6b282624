"""The attention half of a decoder layer: its matrices, its geometry, and its parameters beyond the matrices."""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.parts import Heads, Trunk, check_rotary, heads, linear, rotary_fraction
from advisor.architectures.traits import Dense, is_on
from advisor.values import AttentionShape, Linear


class AttentionPart(NamedTuple):
    linears: tuple[Linear, ...]
    shape: AttentionShape
    """As in a layer that rotates and has no window."""
    other_params: int


def attention_part(config: Config, traits: Dense, base: Trunk) -> AttentionPart:
    return _latent(config, traits, base) if traits.attention == "latent" else _standard(config, traits, base)


def _standard(config: Config, traits: Dense, base: Trunk) -> AttentionPart:
    head = heads(config, base.hidden, kv_default=traits.kv_default, dim_default=traits.head_dim_default)
    if traits.heads_divide_hidden:
        config.check_divides("num_attention_heads", head.query, "hidden_size", base.hidden)
    rotary = _rotary(config, traits, head)
    check_rotary(config, head.dim, rotary)
    qk_norm, qk_params = _qk_norm(config, traits, head)
    shape = AttentionShape(
        heads=head.query,
        kv_heads=head.key_value,
        head_dim=head.dim,
        v_head_dim=head.dim,
        qk_norm=qk_norm,
        rotary_fraction=rotary,
        softcap=bool(traits.softcap_key) and config.is_number(traits.softcap_key, default=traits.softcap_default),
        sinks=traits.sinks,
        fused_qkv=bool(traits.fused_qkv),
        sdpa=traits.sdpa,
        flash=traits.flash,
    )
    return AttentionPart(_projections(config, traits, head, base), shape, qk_params + (head.query if traits.sinks else 0))


def _rotary(config: Config, traits: Dense, head: Heads) -> float:
    if not traits.partial_rotary:
        return 1.0
    if traits.rotary_dim_key and config.raw(traits.rotary_dim_key) is not None:
        return config.count(traits.rotary_dim_key, limit=head.dim) / head.dim
    return rotary_fraction(config, traits.rotary_default)


def _projections(config: Config, traits: Dense, head: Heads, base: Trunk) -> tuple[Linear, ...]:
    bias = is_on(config, traits.qkv_bias)
    out_width = base.hidden if traits.out_width_is_hidden else head.query_width
    out = linear("attention", traits.out_name, out_width, base.hidden, is_on(config, traits.out_bias))
    if traits.fused_qkv:
        return linear("attention", traits.fused_qkv, base.hidden, head.query_width + 2 * head.key_value_width, bias), out
    return (
        linear("attention", "q_proj", base.hidden, head.query_width, bias),
        linear("attention", "k_proj", base.hidden, head.key_value_width, bias),
        linear("attention", "v_proj", base.hidden, head.key_value_width, bias),
        out,
    )


def _qk_norm(config: Config, traits: Dense, head: Heads) -> tuple[Literal["none", "head", "full"], int]:
    """Which norm queries and keys pass, and its parameters."""
    if traits.qk_norm == "none" or (traits.qk_norm_key is not None and not is_on(config, traits.qk_norm_key)):
        return "none", 0
    every_channel = traits.qk_norm == "full" or traits.qk_norm_per_head
    channels = head.query_width + head.key_value_width if every_channel else 2 * head.dim
    return traits.qk_norm, traits.qk_norm_tensors * channels


# Class defaults of the latent dimensions (models/<type>/configuration_<type>.py, transformers 5.23).
_LATENT_DEFAULTS = {
    "deepseek_v2": {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    "deepseek_v3": {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    "glm4_moe_lite": {"q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256},
    "minicpm3": {"q_lora_rank": 768, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32},
    "youtu": {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
}


def _latent(config: Config, traits: Dense, base: Trunk) -> AttentionPart:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 section 2.1): keys and values are expanded from one narrow latent."""
    defaults = _LATENT_DEFAULTS[str(config.raw("model_type"))]
    query = config.count("num_attention_heads")
    key_value = config.optional_count("num_key_value_heads", default=traits.kv_default or query) or query
    config.check_divides("num_key_value_heads", key_value, "num_attention_heads", query)
    if traits.heads_divide_hidden or "v_head_dim" not in defaults:
        config.check_divides("num_attention_heads", query, "hidden_size", base.hidden)
    q_rank = config.optional_count("q_lora_rank", default=defaults["q_lora_rank"])
    kv_rank = config.count("kv_lora_rank", default=defaults["kv_lora_rank"])
    plain = config.count("qk_nope_head_dim", default=defaults["qk_nope_head_dim"])
    rotated = config.count("qk_rope_head_dim", default=defaults["qk_rope_head_dim"])
    value = config.count("v_head_dim", default=defaults.get("v_head_dim", base.hidden // query))
    if rotated % 2:
        raise config.bad("qk_rope_head_dim", f"({rotated}) must be even")
    bias = is_on(config, traits.qkv_bias)
    width = query * (plain + rotated)
    queries = (
        (linear("attention", "q_a_proj", base.hidden, q_rank, bias), linear("attention", "q_b_proj", q_rank, width))
        if q_rank
        else (linear("attention", "q_proj", base.hidden, width),)
    )
    linears = (
        *queries,
        linear("attention", "kv_a_proj_with_mqa", base.hidden, kv_rank + rotated, bias),
        linear("attention", "kv_b_proj", kv_rank, query * (plain + value)),
        linear("attention", "o_proj", query * value, base.hidden, bias),
    )
    shape = AttentionShape(
        kind="latent",
        heads=query,
        kv_heads=query,
        head_dim=plain + rotated,
        v_head_dim=value,
        rotary_fraction=rotated / (plain + rotated),
    )
    return AttentionPart(linears, shape, (q_rank or 0) + kv_rank)
