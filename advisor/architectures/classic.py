"""What decoders from before Llama share: LayerNorm, a plain two-matrix MLP, often learned positions and a tied head."""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.parts import Heads, Shape, Trunk, linear, runs
from advisor.values import AttentionShape, Block, Linear, MlpShape


class Frame(NamedTuple):
    """What the builders in gpt.py and early.py fill in."""

    architecture: str
    base: Trunk
    head: Heads
    attention: tuple[Linear, ...]
    mlp: tuple[Linear, Linear]
    activation: str
    fused_qkv: bool = False
    rotary: float = 0.0
    sdpa: bool = True
    flash: bool = True
    scores_in_fp32: bool = False
    copies_values: bool = False
    softmax: Literal["fp32", "own", "raised"] = "fp32"
    qk_norm_params: int = 0
    norms: int = 2
    norm_tensors: int = 2
    placement: Literal["pre", "post", "parallel"] = "pre"
    windows: tuple[int | None, ...] | None = None
    position_params: int = 0
    embedding_width: int = 0
    """Width of the embedding where it is not hidden_size."""
    other_params: int | None = None
    """Outside the blocks; the final norm unless told otherwise."""
    tied: bool = True
    head_bias: bool = False
    final_norm: bool = True


def finish(frame: Frame) -> Shape:
    base, head = frame.base, frame.head

    def build(window: int | None, count: int) -> Block:
        attention = AttentionShape(
            heads=head.query,
            kv_heads=head.key_value,
            head_dim=head.dim,
            v_head_dim=head.dim,
            window_tokens=window,
            qk_norm="head" if frame.qk_norm_params else "none",
            rotary_fraction=frame.rotary,
            fused_qkv=frame.fused_qkv,
            sdpa=frame.sdpa,
            flash=frame.flash,
            scores_in_fp32=frame.scores_in_fp32,
            copies_values=frame.copies_values,
            softmax=frame.softmax,
        )
        mlp = MlpShape(kind="plain", intermediate_size=frame.mlp[0].out_features, activation=frame.activation)
        return Block(
            count=count,
            linears=(*frame.attention, *frame.mlp),
            attention=attention,
            mlp=mlp,
            norm="layer",
            norms=frame.norms,
            norm_placement=frame.placement,
            other_params=frame.norms * frame.norm_tensors * base.hidden + frame.qk_norm_params,
        )

    words = base.vocab * (frame.embedding_width or base.hidden)
    final_norm = frame.norm_tensors * base.hidden
    return Shape(
        architecture=frame.architecture,
        trunk=base,
        blocks=runs(frame.windows or (None,) * base.layers, build),
        embedding_params=words + frame.position_params,
        head_params=0 if frame.tied else words + (base.vocab if frame.head_bias else 0),
        other_params=(final_norm if frame.other_params is None else frame.other_params)
        + (base.vocab if frame.tied and frame.head_bias else 0),
        tied=frame.tied,
        head_bias=frame.head_bias,
        final_norm=frame.final_norm,
        head_width=frame.embedding_width or None,
    )


def refuse_cross_attention(config: Config) -> None:
    if config.flag("add_cross_attention", default=False):
        raise config.bad("add_cross_attention", "is true: cross-attention is not covered")


def equal_heads(config: Config, hidden: int) -> Heads:
    """As many key and value heads as query heads, whatever else the file says."""
    query = config.count("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
    config.check_divides("num_attention_heads", query, "hidden_size", hidden)
    return Heads(query, query, hidden // query)


def positions(base: Trunk, default: int) -> int:
    return base.positions or default


def tied(config: Config, default: bool) -> bool:
    return config.flag("tie_word_embeddings", default=default)


def square(names: tuple[str, ...], hidden: int, bias: bool) -> tuple[Linear, ...]:
    return tuple(linear("attention", name, hidden, hidden, bias) for name in names)


def plain_mlp(names: tuple[str, str], hidden: int, width: int, bias: bool, *, is_subclass: bool = False) -> tuple[Linear, Linear]:
    up, down = names
    return linear("mlp", up, hidden, width, bias, is_subclass=is_subclass), linear(
        "mlp", down, width, hidden, bias, is_subclass=is_subclass
    )
