"""Other decoders from before Llama: OPT, XGLM, BLOOM, MPT, Falcon.

Source of every builder: transformers 5.23, models/<type>/.
"""

from __future__ import annotations

from advisor.architectures.classic import Frame, equal_heads, finish, plain_mlp, positions, refuse_cross_attention, square, tied
from advisor.architectures.config import Config
from advisor.architectures.parts import Shape, linear, trunk


def opt(config: Config) -> Shape:
    """Positions start at 2; the 350M model is post-norm and projects a narrower embedding."""
    base = trunk(config)
    bias = config.flag("enable_bias", default=True)
    tensors = 2 if config.flag("layer_norm_elementwise_affine", default=True) else 0
    before = config.flag("do_layer_norm_before", default=True)
    final_norm = before and not config.flag("_remove_final_layer_norm", default=False)
    embedding = config.count("word_embed_proj_dim", default=base.hidden)
    projections = 2 * embedding * base.hidden if embedding != base.hidden else 0
    return finish(
        Frame(
            "OPTForCausalLM",
            base,
            equal_heads(config, base.hidden),
            square(("k_proj", "v_proj", "q_proj", "out_proj"), base.hidden, bias),
            plain_mlp(("fc1", "fc2"), base.hidden, config.count("ffn_dim"), bias),
            config.text("activation_function", default="relu"),
            norm_tensors=tensors,
            placement="pre" if before else "post",
            position_params=(positions(base, 2048) + 2) * base.hidden,
            embedding_width=embedding,
            other_params=projections + (tensors * base.hidden if final_norm else 0),
            tied=tied(config, True),
            final_norm=final_norm,
        )
    )


def xglm(config: Config) -> Shape:
    """Positions are computed, not learned."""
    base = trunk(config)
    refuse_cross_attention(config)
    return finish(
        Frame(
            "XGLMForCausalLM",
            base,
            equal_heads(config, base.hidden),
            square(("k_proj", "v_proj", "q_proj", "out_proj"), base.hidden, True),
            plain_mlp(("fc1", "fc2"), base.hidden, config.count("ffn_dim"), True),
            config.text("activation_function", default="gelu"),
            softmax="raised",
            sdpa=False,
            flash=False,
            tied=tied(config, True),
        )
    )


def bloom(config: Config) -> Shape:
    """ALiBi positions, and a norm over the embedding."""
    base = trunk(config)
    attention = (
        linear("attention", "query_key_value", base.hidden, 3 * base.hidden, True),
        linear("attention", "dense", base.hidden, base.hidden, True),
    )
    return finish(
        Frame(
            "BloomForCausalLM",
            base,
            equal_heads(config, base.hidden),
            attention,
            plain_mlp(("dense_h_to_4h", "dense_4h_to_h"), base.hidden, 4 * base.hidden, True),
            "bloom_gelu",
            fused_qkv=True,
            sdpa=False,
            flash=False,
            other_params=4 * base.hidden,
            tied=tied(config, True),
        )
    )


def mpt(config: Config) -> Shape:
    """ALiBi positions, norms without bias, four times hidden_size whatever `expansion_ratio` says."""
    base = trunk(config)
    attention = (
        linear("attention", "Wqkv", base.hidden, 3 * base.hidden),
        linear("attention", "out_proj", base.hidden, base.hidden),
    )
    return finish(
        Frame(
            "MptForCausalLM",
            base,
            equal_heads(config, base.hidden),
            attention,
            plain_mlp(("up_proj", "down_proj"), base.hidden, 4 * base.hidden, False),
            "gelu",
            fused_qkv=True,
            sdpa=False,
            flash=False,
            norm_tensors=1,
            tied=tied(config, True),
        )
    )


def falcon(config: Config) -> Shape:
    """One key and value head (7B), groups of them (40B, 180B), or as many as query heads (RW). Its matrices are
    of a class of its own, `FalconLinear`."""
    base = trunk(config)
    query = equal_heads(config, base.hidden)
    new = config.flag("new_decoder_architecture", default=False)
    parallel = config.flag("parallel_attn", default=True)
    if new:
        key_value = config.optional_count("num_kv_heads", "n_head_kv") or query.query
        config.check_divides("num_kv_heads", key_value, "num_attention_heads", query.query)
    else:
        key_value = 1 if config.flag("multi_query", default=True) else query.query
    head = query._replace(key_value=key_value)
    bias = config.flag("bias", default=False)
    width = config.count("ffn_hidden_size", default=4 * base.hidden)
    attention = (
        linear("attention", "query_key_value", base.hidden, base.hidden + 2 * head.key_value_width, bias, is_subclass=True),
        linear("attention", "dense", base.hidden, base.hidden, bias, is_subclass=True),
    )
    two_norms = not parallel or config.count("num_ln_in_parallel_attn", default=2 if new else 1) == 2
    return finish(
        Frame(
            "FalconForCausalLM",
            base,
            head,
            attention,
            plain_mlp(("dense_h_to_4h", "dense_4h_to_h"), base.hidden, width, bias, is_subclass=True),
            config.text("activation", default="gelu"),
            fused_qkv=True,
            softmax="own",
            copies_values=True,
            rotary=0.0 if config.flag("alibi", default=False) else 1.0,
            norms=2 if two_norms else 1,
            placement="parallel" if parallel else "pre",
            tied=tied(config, True),
        )
    )
