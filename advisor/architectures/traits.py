"""What a row of the tables may say about a model type: how it differs from Llama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.patterns import Layer, all_sparse, plain_layers


class Key(NamedTuple):
    """A yes-or-no field of the config and its class default."""

    name: str
    default: bool
    other_names: tuple[str, ...] = ()


Switch = bool | Key


class Count(NamedTuple):
    """A number of the config under its names, and its class default; None where the class has none."""

    names: tuple[str, ...]
    default: int | None = None

    def read(self, config: Config, limit: int) -> int:
        return config.count(*self.names, default=self.default, limit=limit)


def is_on(config: Config, switch: Switch) -> bool:
    return switch if isinstance(switch, bool) else config.flag(switch.name, *switch.other_names, default=switch.default)


class Experts(NamedTuple):
    """Mixture-of-Experts layers. The routed experts are two bare 3-D parameters in transformers 5."""

    total: Count
    per_token: Count
    width: Count = Count(("moe_intermediate_size",))
    router: str = "gate"
    router_is_module: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    score_bias_params: bool = False
    """One trained bias per expert for the choice (ERNIE); DeepSeek's is a buffer."""
    shared_width: Callable[[Config, int], int] | None = None
    """Width of the shared experts together, from the config and the width of one routed expert; 0 for none."""
    shared_gate: bool = False
    """A linear of one output weighs the shared expert (Qwen)."""
    shared_names: tuple[str, str] | None = None
    """Names of the shared expert's fused gate-and-up matrix and its down matrix (Granite); None for gate_proj, up_proj, down_proj."""
    sparse: Callable[[Config, int], tuple[bool, ...]] = all_sparse
    """Which layers have experts; the others have a dense MLP."""
    dense_width: Count = Count(("intermediate_size",))
    """Width of the MLP in layers without experts."""
    shared_runs_first: bool = False
    routes_in: Literal["own", "fp32", "fp32_always"] = "own"
    weighs_in: Literal["logits", "stream", "fp32"] = "logits"
    clamped: bool = False
    """As in `MlpShape`."""
    noise_key: str = ""
    """A field whose number above 0 multiplies the input by noise, so many times."""
    noises: int = 1
    every_expert_computes: bool = False


class Dense(NamedTuple):
    """How a family differs from Llama."""

    architecture: str
    attention: Literal["standard", "latent"] = "standard"
    kv_default: int | None = None
    """Class default of num_key_value_heads; None means as many as query heads."""
    head_dim_default: int | None = None
    heads_divide_hidden: bool = False
    """The config class refuses a hidden size that is no multiple of the heads, even where head_dim is given."""
    qkv_bias: Switch = False
    out_bias: Switch = False
    fused_qkv: str = ""
    """Name of the one matrix that computes q, k and v; empty when there are three."""
    out_name: str = "o_proj"
    out_width_is_hidden: bool = False
    """The output projection reads hidden_size channels whatever the heads' width (Helium)."""
    qk_norm: Literal["none", "head", "full"] = "none"
    qk_norm_key: Key | None = None
    qk_norm_tensors: int = 1
    """Vectors in one such norm: 2 with a bias, 0 without weights."""
    qk_norm_per_head: bool = False
    """Each head has its own weights (Cohere, StableLM)."""
    sinks: bool = False
    """A trained number per head joins the softmax (gpt-oss)."""
    rotary_default: float = 1.0
    partial_rotary: bool = False
    """`partial_rotary_factor` is read."""
    rotary_dim_key: str = ""
    """A field that gives the rotated channels of a head instead (MiniMax)."""
    sdpa: bool = True
    flash: bool = True
    """Whether the class says `_supports_sdpa`, `_supports_flash_attn`."""
    softcap_key: str = ""
    softcap_default: bool = False
    mlp: Literal["gated", "fused", "plain"] = "gated"
    mlp_names: tuple[str, str] = ("up_proj", "down_proj")
    """Names of a plain MLP's two matrices."""
    mlp_bias: Switch = False
    mlp_extra_params: int = 0
    activation_key: str = "hidden_act"
    activation: str = "silu"
    experts: Experts | None = None
    norm: Literal["rms", "rms_gemma", "layer"] = "rms"
    layer_norm: Literal["kernel", "fp32_kernel", "fp32_ops"] = "kernel"
    norm_tensors: int = 1
    """Vectors of hidden_size in one norm: 1, 2 with a bias, 0 without any weight (OLMo)."""
    norms: int = 2
    placement: Literal["pre", "post", "both", "parallel"] = "pre"
    parallel: Switch = False
    """The field that makes a layer parallel, with one norm fewer (StableLM)."""
    layers: Callable[[Config, int], tuple[Layer, ...]] = plain_layers
    tied: bool = False
    head_bias: Switch = False
    embedding_scaled: bool = False
    scales_residual: bool = False
    scales_logits: bool = False
    final_softcap_key: str = ""
