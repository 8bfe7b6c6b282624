"""GPT-2 and its kin: StarCoder (GPTBigCode), GPT-Neo, GPT-NeoX (Pythia), Persimmon, GPT-J, CodeGen.

Source of every builder: transformers 5.23, models/<type>/.
"""

from __future__ import annotations

from itertools import chain, repeat

from advisor.architectures.classic import Frame, equal_heads, finish, plain_mlp, positions, refuse_cross_attention, square, tied
from advisor.architectures.config import Config
from advisor.architectures.parts import Heads, Shape, check_rotary, linear, rotary_fraction, trunk


def gpt2(config: Config) -> Shape:
    """Its matrices are Conv1D modules, which peft wraps and bitsandbytes converts like linear layers."""
    base = trunk(config)
    refuse_cross_attention(config)
    width = config.count("n_inner", default=4 * base.hidden)
    attention = (
        linear("attention", "c_attn", base.hidden, 3 * base.hidden, True),
        linear("attention", "c_proj", base.hidden, base.hidden, True),
    )
    return finish(
        Frame(
            "GPT2LMHeadModel",
            base,
            equal_heads(config, base.hidden),
            attention,
            plain_mlp(("c_fc", "c_proj"), base.hidden, width, True),
            config.text("activation_function", default="gelu_new"),
            fused_qkv=True,
            softmax="own",
            position_params=positions(base, 1024) * base.hidden,
            tied=tied(config, True),
        )
    )


def gpt_bigcode(config: Config) -> Shape:
    """StarCoder: GPT-2 with one key and value head for all."""
    base = trunk(config)
    refuse_cross_attention(config)
    head = equal_heads(config, base.hidden)
    if config.flag("multi_query", default=True):
        head = head._replace(key_value=1)
    width = config.count("n_inner", default=4 * base.hidden)
    attention = (
        linear("attention", "c_attn", base.hidden, base.hidden + 2 * head.key_value_width, True),
        linear("attention", "c_proj", base.hidden, base.hidden, True),
    )
    return finish(
        Frame(
            "GPTBigCodeForCausalLM",
            base,
            head,
            attention,
            plain_mlp(("c_fc", "c_proj"), base.hidden, width, True),
            config.text("activation_function", default="gelu_pytorch_tanh"),
            fused_qkv=True,
            position_params=positions(base, 1024) * base.hidden,
            tied=tied(config, True),
        )
    )


def gpt_neo(config: Config) -> Shape:
    base = trunk(config)
    width = config.count("intermediate_size", default=4 * base.hidden)
    attention = (*square(("k_proj", "v_proj", "q_proj"), base.hidden, False), *square(("out_proj",), base.hidden, True))
    return finish(
        Frame(
            "GPTNeoForCausalLM",
            base,
            equal_heads(config, base.hidden),
            attention,
            plain_mlp(("c_fc", "c_proj"), base.hidden, width, True),
            config.text("activation_function", default="gelu_new"),
            sdpa=False,
            scores_in_fp32=True,
            windows=_neo_windows(config, base.layers),
            position_params=positions(base, 2048) * base.hidden,
            tied=tied(config, True),
        )
    )


def _neo_windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """`attention_types`, [[["global", "local"], 12]] for instance: local layers see `window_size` tokens."""
    window = config.count("window_size", default=256)
    listed = config.raw("attention_types")
    runs_of_kinds = [[["global", "local"], 12]] if listed is None else listed
    wrong = config.bad("attention_types", f'must be like [[["global", "local"], {layers // 2}]] and cover {layers:,} layers')
    try:
        kinds = list(chain.from_iterable(chain.from_iterable(repeat(names, min(times, layers))) for names, times in runs_of_kinds))  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise wrong from error
    if len(kinds) != layers or any(kind not in ("global", "local") for kind in kinds):
        raise wrong
    return tuple(window if kind == "local" else None for kind in kinds)


def gpt_neox(config: Config) -> Shape:
    base = trunk(config)
    head = equal_heads(config, base.hidden)
    rotary = _neox_rotary(config, head)
    bias = config.flag("attention_bias", default=True)
    attention = (
        linear("attention", "query_key_value", base.hidden, 3 * base.hidden, bias),
        linear("attention", "dense", base.hidden, base.hidden, bias),
    )
    return finish(
        Frame(
            "GPTNeoXForCausalLM",
            base,
            head,
            attention,
            plain_mlp(("dense_h_to_4h", "dense_4h_to_h"), base.hidden, config.count("intermediate_size"), True),
            config.text("hidden_act", default="gelu"),
            fused_qkv=True,
            rotary=rotary,
            placement="parallel" if config.flag("use_parallel_residual", default=True) else "pre",
            tied=tied(config, False),
        )
    )


def _neox_rotary(config: Config, head: Heads) -> float:
    """`rotary_pct` is its old name for `partial_rotary_factor`."""
    rotary = rotary_fraction(config, config.fraction("rotary_pct", default=0.25))
    check_rotary(config, head.dim, rotary)
    return rotary


def persimmon(config: Config) -> Shape:
    base = trunk(config)
    head = equal_heads(config, base.hidden)
    rotary = rotary_fraction(config, 0.5)
    check_rotary(config, head.dim, rotary)
    attention = (
        linear("attention", "query_key_value", base.hidden, 3 * base.hidden, True),
        linear("attention", "dense", base.hidden, base.hidden, True),
    )
    return finish(
        Frame(
            "PersimmonForCausalLM",
            base,
            head,
            attention,
            plain_mlp(("dense_h_to_4h", "dense_4h_to_h"), base.hidden, config.count("intermediate_size"), True),
            config.text("hidden_act", default="relu2"),
            fused_qkv=True,
            rotary=rotary,
            qk_norm_params=4 * head.dim if config.flag("qk_layernorm", default=True) else 0,
            tied=tied(config, False),
        )
    )


def gptj(config: Config) -> Shape:
    return _gptj(config, "GPTJForCausalLM", ("q_proj", "k_proj", "v_proj"), flash=True)


def codegen(config: Config) -> Shape:
    return _gptj(config, "CodeGenForCausalLM", (), flash=False)


def _gptj(config: Config, architecture: str, projections: tuple[str, ...], flash: bool) -> Shape:
    base = trunk(config)
    head = equal_heads(config, base.hidden)
    rotary_dim = config.optional_count("rotary_dim", default=64) or head.dim
    if rotary_dim > head.dim:
        raise config.bad("rotary_dim", f"({rotary_dim}) exceeds the width of a head ({head.dim})")
    width = config.count("n_inner", default=4 * base.hidden)
    queries = square(projections, base.hidden, False) or (linear("attention", "qkv_proj", base.hidden, 3 * base.hidden),)
    return finish(
        Frame(
            architecture,
            base,
            head,
            (*queries, *square(("out_proj",), base.hidden, False)),
            plain_mlp(("fc_in", "fc_out"), base.hidden, width, True),
            config.text("activation_function", default="gelu_new"),
            fused_qkv=not projections,
            rotary=rotary_dim / head.dim,
            sdpa=False,
            flash=flash,
            scores_in_fp32=True,
            copies_values=not projections,
            norms=1,
            placement="parallel",
            tied=tied(config, False),
            head_bias=True,
        )
    )
