"""Dense decoders built like Llama: one builder, and a row of traits for each model type.

Every trait is read from transformers 5.23, `models/<type>/configuration_<type>.py` (class defaults) and `modeling_<type>.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from advisor.architectures.config import Config
from advisor.architectures.parts import (
    Heads,
    Shape,
    Trunk,
    check_rotary,
    gated_mlp,
    heads,
    linear,
    rotary_fraction,
    runs,
    trunk,
)
from advisor.architectures.patterns import Layer, plain_layers
from advisor.values import AttentionShape, Block, Linear, MlpShape


@dataclass(frozen=True, slots=True)
class Key:
    """A yes-or-no field of the config and its class default."""

    name: str
    default: bool
    other_names: tuple[str, ...] = ()


Switch = bool | Key


@dataclass(frozen=True, slots=True)
class Dense:
    """How a family differs from Llama."""

    architecture: str
    kv_default: int | None = None
    """Class default of num_key_value_heads; None means as many as query heads."""
    head_dim_default: int | None = None
    heads_divide_hidden: bool = False
    """The config class refuses a hidden size that is no multiple of the heads, even where head_dim is given."""
    qkv_bias: Switch = False
    out_bias: Switch = False
    mlp_bias: Switch = False
    fused_qkv: str = ""
    """Name of the one matrix that computes q, k and v; empty when there are three."""
    out_name: str = "o_proj"
    out_width_is_hidden: bool = False
    """The output projection reads hidden_size channels whatever the heads' width (Helium)."""
    mlp: Literal["gated", "fused", "plain"] = "gated"
    mlp_names: tuple[str, str] = ("up_proj", "down_proj")
    """Names of a plain MLP's two matrices."""
    activation_key: str = "hidden_act"
    activation: str = "silu"
    mlp_extra_params: int = 0
    norm: Literal["rms", "rms_gemma", "layer"] = "rms"
    norm_tensors: int = 1
    """Vectors of hidden_size in one norm: 1, 2 with a bias, 0 without any weight (OLMo)."""
    norms: int = 2
    placement: Literal["pre", "post", "both", "parallel"] = "pre"
    parallel: Switch = False
    """The field that makes a layer parallel, with one norm fewer (StableLM)."""
    qk_norm: Literal["none", "head", "full"] = "none"
    qk_norm_key: Key | None = None
    qk_norm_tensors: int = 1
    qk_norm_per_head: bool = False
    """Each head has its own weights (Cohere, StableLM)."""
    rotary_default: float = 1.0
    softcap_key: str = ""
    final_softcap_key: str = ""
    softcap_default: bool = False
    layers: Callable[[Config, int], tuple[Layer, ...]] = plain_layers
    tied: bool = False
    head_bias: bool = False
    embedding_scaled: bool = False
    scales_logits: bool = False


def is_on(config: Config, switch: Switch) -> bool:
    return switch if isinstance(switch, bool) else config.flag(switch.name, *switch.other_names, default=switch.default)


def build_dense(config: Config, traits: Dense) -> Shape:
    base = trunk(config)
    width = config.count("intermediate_size")
    head = heads(config, base.hidden, kv_default=traits.kv_default, dim_default=traits.head_dim_default)
    if traits.heads_divide_hidden:
        config.check_divides("num_attention_heads", head.query, "hidden_size", base.hidden)
    rotary = rotary_fraction(config, traits.rotary_default) if traits.rotary_default != 1.0 or traits.fused_qkv else 1.0
    check_rotary(config, head.dim, rotary)
    tied = config.flag("tie_word_embeddings", default=traits.tied)
    attention = _attention(config, traits, head, base)
    mlp_linears, mlp = _mlp(config, traits, base.hidden, width)
    parallel = is_on(config, traits.parallel)
    norms = traits.norms - parallel
    softcap = bool(traits.softcap_key) and config.is_number(traits.softcap_key, default=traits.softcap_default)
    qk_norm, qk_params = _qk_norm(config, traits, head)

    def build(layer: Layer, count: int) -> Block:
        return Block(
            count=count,
            linears=(*attention, *mlp_linears),
            attention=AttentionShape(
                heads=head.query,
                kv_heads=head.key_value,
                head_dim=head.dim,
                v_head_dim=head.dim,
                window_tokens=layer.window,
                qk_norm=qk_norm,
                rotary_fraction=rotary if layer.rotates else 0.0,
                softcap=softcap,
                fused_qkv=bool(traits.fused_qkv),
            ),
            mlp=mlp,
            norm=traits.norm,
            norms=norms,
            norm_placement="parallel" if parallel else traits.placement,
            other_params=norms * traits.norm_tensors * base.hidden + qk_params + traits.mlp_extra_params,
        )

    head_params = 0 if tied else base.vocab * base.hidden
    head_bias = base.vocab if traits.head_bias else 0
    return Shape(
        architecture=traits.architecture,
        trunk=base,
        blocks=runs(traits.layers(config, base.layers), build),
        embedding_params=base.vocab * base.hidden,
        head_params=head_params + head_bias,
        other_params=traits.norm_tensors * base.hidden,
        tied=tied,
        head_bias=traits.head_bias,
        embedding_scaled=traits.embedding_scaled,
        scales_logits=traits.scales_logits,
        softcaps_logits=bool(traits.final_softcap_key) and config.is_number(traits.final_softcap_key, default=traits.softcap_default),
    )


def _attention(config: Config, traits: Dense, head: Heads, base: Trunk) -> tuple[Linear, ...]:
    bias = is_on(config, traits.qkv_bias)
    out_width = base.hidden if traits.out_width_is_hidden else head.query_width
    out = linear(traits.out_name, out_width, base.hidden, is_on(config, traits.out_bias))
    if traits.fused_qkv:
        return linear(traits.fused_qkv, base.hidden, head.query_width + 2 * head.key_value_width, bias), out
    return (
        linear("q_proj", base.hidden, head.query_width, bias),
        linear("k_proj", base.hidden, head.key_value_width, bias),
        linear("v_proj", base.hidden, head.key_value_width, bias),
        out,
    )


def _mlp(config: Config, traits: Dense, hidden: int, width: int) -> tuple[tuple[Linear, ...], MlpShape]:
    bias = is_on(config, traits.mlp_bias)
    activation = config.text(traits.activation_key, default=traits.activation)
    kind: Literal["gated", "plain"] = "plain" if traits.mlp == "plain" else "gated"
    shape = MlpShape(kind=kind, intermediate_size=width, activation=activation, fused_gate_up=traits.mlp == "fused")
    if traits.mlp == "fused":
        return (linear("gate_up_proj", hidden, 2 * width, bias), linear("down_proj", width, hidden, bias)), shape
    if traits.mlp == "plain":
        up, down = traits.mlp_names
        return (linear(up, hidden, width, bias), linear(down, width, hidden, bias)), shape
    return gated_mlp(hidden, width, bias), shape


def _qk_norm(config: Config, traits: Dense, head: Heads) -> tuple[Literal["none", "head", "full"], int]:
    """Which norm queries and keys pass, and its parameters."""
    if traits.qk_norm == "none" or (traits.qk_norm_key is not None and not is_on(config, traits.qk_norm_key)):
        return "none", 0
    every_channel = traits.qk_norm == "full" or traits.qk_norm_per_head
    channels = head.query_width + head.key_value_width if every_channel else 2 * head.dim
    return traits.qk_norm, traits.qk_norm_tensors * channels
