"""The rows of decoders with experts. Source of every trait: transformers 5.23, models/<type>/."""

from __future__ import annotations

from functools import partial

from advisor.architectures import patterns
from advisor.architectures.config import Config
from advisor.architectures.traits import Count, Dense, Experts, Key

_ATTENTION_BIAS = Key("attention_bias", False)
_PER_TOKEN = ("num_experts_per_tok",)
_LOCAL = ("num_local_experts", "num_experts")
_WIDTH = Count(("intermediate_size",))


def _qwen_shared(config: Config, width: int) -> int:
    return config.count_or_zero("shared_expert_intermediate_size", default=5632)


def _deepseek_v2_shared(config: Config, width: int) -> int:
    return width * config.count_or_zero("n_shared_experts", default=2)


def _one_shared(config: Config, width: int) -> int:
    return width * config.count_or_zero("n_shared_experts", default=1)


def _ernie_shared(config: Config, width: int) -> int:
    return width * config.count_or_zero("moe_num_shared_experts", default=2)


def _granite_shared(config: Config, width: int) -> int:
    return config.count_or_zero("shared_intermediate_size", default=0)


def _llama4_shared(config: Config, width: int) -> int:
    return width


_LIKE_DEEPSEEK_V3 = partial(Experts, shared_width=_one_shared, routes_in="fp32")

MOE = {
    "mixtral": Dense(
        "MixtralForCausalLM",
        kv_default=8,
        layers=patterns.window_everywhere,
        experts=Experts(Count(_LOCAL, 8), Count(_PER_TOKEN, 2), _WIDTH, weighs_in="fp32", noise_key="router_jitter_noise"),
    ),
    "qwen2_moe": Dense(
        "Qwen2MoeForCausalLM",
        kv_default=16,
        qkv_bias=Key("qkv_bias", True),
        layers=patterns.qwen2_moe_layers,
        experts=Experts(
            Count(("num_experts",), 60),
            Count(_PER_TOKEN, 4),
            Count(("moe_intermediate_size",), 1408),
            shared_width=_qwen_shared,
            shared_gate=True,
            shared_runs_first=True,
            sparse=patterns.qwen_sparse,
        ),
    ),
    "qwen3_moe": Dense(
        "Qwen3MoeForCausalLM",
        kv_default=4,
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        qk_norm="head",
        layers=patterns.qwen3_moe_layers,
        experts=Experts(
            Count(("num_experts", "num_local_experts"), 128),
            Count(_PER_TOKEN, 8),
            Count(("moe_intermediate_size",), 768),
            sparse=patterns.qwen_sparse,
        ),
    ),
    "olmoe": Dense(
        "OlmoeForCausalLM",
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        qk_norm="full",
        experts=Experts(Count(("num_experts", "num_local_experts"), 64), Count(_PER_TOKEN, 8), _WIDTH),
    ),
    "flex_olmo": Dense(
        "FlexOlmoForCausalLM",
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        qk_norm="full",
        placement="post",
        norm="rms_gemma",
        experts=Experts(Count(("num_experts", "num_local_experts"), 7), Count(_PER_TOKEN, 5), _WIDTH),
    ),
    "phimoe": Dense(
        "PhimoeForCausalLM",
        kv_default=8,
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        norm="layer",
        norm_tensors=2,
        head_bias=Key("lm_head_bias", False),
        layers=patterns.window_everywhere,
        experts=Experts(
            Count(("num_local_experts",), 16),
            Count(_PER_TOKEN, 2),
            _WIDTH,
            router="router",
            router_is_module=True,
            noise_key="input_jitter_noise",
            noises=2,
        ),
    ),
    "deepseek_v2": Dense(
        "DeepseekV2ForCausalLM",
        attention="latent",
        heads_divide_hidden=True,
        qkv_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias", False),
        experts=Experts(
            Count(("n_routed_experts", "num_experts"), 64),
            Count(_PER_TOKEN),
            Count(("moe_intermediate_size",), 1407),
            shared_width=_deepseek_v2_shared,
            sparse=patterns.first_dense(0),
            routes_in="fp32",
            weighs_in="fp32",
        ),
    ),
    "deepseek_v3": Dense(
        "DeepseekV3ForCausalLM",
        attention="latent",
        kv_default=128,
        qkv_bias=_ATTENTION_BIAS,
        experts=_LIKE_DEEPSEEK_V3(
            Count(("n_routed_experts", "num_local_experts"), 256),
            Count(_PER_TOKEN, 8),
            Count(("moe_intermediate_size",), 2048),
            sparse=patterns.first_dense(3),
        ),
    ),
    "glm4_moe": Dense(
        "Glm4MoeForCausalLM",
        kv_default=8,
        qkv_bias=_ATTENTION_BIAS,
        qk_norm="head",
        qk_norm_key=Key("use_qk_norm", False),
        rotary_default=0.5,
        partial_rotary=True,
        experts=_LIKE_DEEPSEEK_V3(
            Count(("n_routed_experts", "num_local_experts"), 128),
            Count(_PER_TOKEN, 8),
            Count(("moe_intermediate_size",), 1408),
            sparse=patterns.first_dense(1),
        ),
    ),
    "glm4_moe_lite": Dense(
        "Glm4MoeLiteForCausalLM",
        attention="latent",
        kv_default=20,
        qkv_bias=_ATTENTION_BIAS,
        experts=_LIKE_DEEPSEEK_V3(
            Count(("n_routed_experts", "num_local_experts"), 64),
            Count(_PER_TOKEN, 4),
            Count(("moe_intermediate_size",), 1536),
            sparse=patterns.typed_sparse,
        ),
    ),
    "solar_open": Dense(
        "SolarOpenForCausalLM",
        kv_default=8,
        head_dim_default=128,
        qkv_bias=_ATTENTION_BIAS,
        experts=_LIKE_DEEPSEEK_V3(
            Count(("n_routed_experts", "num_local_experts"), 128),
            Count(_PER_TOKEN, 8),
            Count(("moe_intermediate_size",), 1280),
        ),
    ),
    "gpt_oss": Dense(
        "GptOssForCausalLM",
        kv_default=8,
        head_dim_default=64,
        qkv_bias=Key("attention_bias", True),
        out_bias=Key("attention_bias", True),
        sinks=True,
        sdpa=False,
        norm="rms_gemma",
        layers=patterns.gpt_oss_layers,
        experts=Experts(
            Count(_LOCAL, 128), Count(_PER_TOKEN, 4), _WIDTH, router="router", router_bias=True, expert_bias=True, clamped=True
        ),
    ),
    "minimax_m2": Dense(
        "MiniMaxM2ForCausalLM",
        kv_default=8,
        head_dim_default=128,
        qk_norm="full",
        partial_rotary=True,
        rotary_dim_key="rotary_dim",
        experts=Experts(Count(_LOCAL, 256), Count(_PER_TOKEN, 8), _WIDTH, weighs_in="fp32", noise_key="router_jitter_noise"),
    ),
    "ernie4_5_moe": Dense(
        "Ernie4_5_MoeForCausalLM",
        kv_default=4,
        qkv_bias=Key("use_bias", False),
        out_bias=Key("use_bias", False),
        mlp_bias=Key("use_bias", False),
        head_bias=Key("use_bias", False),
        tied=True,
        experts=Experts(
            Count(("moe_num_experts", "num_experts"), 64),
            Count(("moe_k", "num_experts_per_tok"), 6),
            Count(("moe_intermediate_size",), 1536),
            score_bias_params=True,
            shared_width=_ernie_shared,
            shared_runs_first=True,
            sparse=patterns.ernie_sparse,
            routes_in="fp32_always",
            weighs_in="stream",
        ),
    ),
    "llama4_text": Dense(
        "Llama4ForCausalLM",
        flash=False,
        kv_default=8,
        head_dim_default=128,
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        qk_norm="head",
        qk_norm_key=Key("use_qk_norm", True),
        qk_norm_tensors=0,
        layers=patterns.llama4_layers,
        experts=Experts(
            Count(("num_local_experts",), 16),
            Count(_PER_TOKEN, 1),
            _WIDTH,
            router="router",
            router_is_module=True,
            shared_width=_llama4_shared,
            sparse=patterns.llama4_sparse,
            dense_width=Count(("intermediate_size_mlp",), 16384),
            every_expert_computes=True,
        ),
    ),
    "granitemoe": Dense(
        "GraniteMoeForCausalLM",
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        embedding_scaled=True,
        scales_residual=True,
        scales_logits=True,
        experts=Experts(Count(("num_local_experts",), 8), Count(_PER_TOKEN, 2), _WIDTH, router="router", weighs_in="stream"),
    ),
    "granitemoeshared": Dense(
        "GraniteMoeSharedForCausalLM",
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        embedding_scaled=True,
        scales_residual=True,
        scales_logits=True,
        experts=Experts(
            Count(("num_local_experts",), 8),
            Count(_PER_TOKEN, 2),
            _WIDTH,
            router="router",
            weighs_in="stream",
            shared_width=_granite_shared,
            shared_names=("input_linear", "output_linear"),
        ),
    ),
    "minicpm3": Dense(
        "MiniCPM3ForCausalLM",
        attention="latent",
        kv_default=40,
        heads_divide_hidden=True,
        qkv_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias", False),
        tied=True,
        scales_residual=True,
    ),
    "youtu": Dense("YoutuForCausalLM", attention="latent", kv_default=16, qkv_bias=_ATTENTION_BIAS, tied=True),
    "dots1": Dense(
        "Dots1ForCausalLM",
        kv_default=32,
        qkv_bias=_ATTENTION_BIAS,
        out_bias=_ATTENTION_BIAS,
        qk_norm="head",
        layers=patterns.dots_layers,
        experts=_LIKE_DEEPSEEK_V3(
            Count(("n_routed_experts", "num_local_experts")),
            Count(_PER_TOKEN),
            Count(("moe_intermediate_size",), 1408),
            sparse=patterns.first_dense(0),
        ),
    ),
}
