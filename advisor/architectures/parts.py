"""Pieces that most families share: heads, layer patterns, gated MLPs, runs of equal layers, and the finished spec."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TypeVar

from advisor.architectures.config import MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, Config
from advisor.values import Block, HeadShape, Linear, ModelKind

Kind = TypeVar("Kind", bound=Hashable)


class Trunk(NamedTuple):
    """The fields that every decoder's config has."""

    hidden: int
    layers: int
    vocab: int
    positions: int | None


class Shape(NamedTuple):
    """What a family's builder finds out: a ModelSpec without its origin."""

    architecture: str
    trunk: Trunk
    blocks: tuple[Block, ...]
    embedding_params: int
    head_params: int
    other_params: int
    tied: bool
    kind: ModelKind = ModelKind.DECODER
    head_bias: bool = False
    embedding_scaled: bool = False
    scales_logits: bool = False
    softcaps_logits: bool = False
    final_norm: bool = True
    head_width: int | None = None
    """Channels that the head reads; None for hidden_size."""
    heads: tuple[HeadShape, ...] = ()
    """Of an encoder; a decoder's are added by its type (heads.py)."""


def trunk(config: Config) -> Trunk:
    return Trunk(
        hidden=config.count("hidden_size", "n_embd", "d_model", "n_embed", "dim"),
        layers=config.count("num_hidden_layers", "n_layer", "n_layers", "num_layers", limit=MAX_LAYERS),
        vocab=config.count("vocab_size", limit=MAX_VOCAB),
        positions=config.optional_count("max_position_embeddings", "n_positions", "max_seq_len", limit=MAX_POSITIONS),
    )


class Heads(NamedTuple):
    """Query heads, key and value heads, and the width of one."""

    query: int
    key_value: int
    dim: int

    @property
    def query_width(self) -> int:
        return self.query * self.dim

    @property
    def key_value_width(self) -> int:
        return self.key_value * self.dim


def heads(config: Config, hidden: int, *, kv_default: int | None = None, dim_default: int | None = None) -> Heads:
    """`kv_default` is the class default of `num_key_value_heads` (None: as many as query heads); null means as many, too."""
    query = config.count("num_attention_heads", "n_head", "n_heads", "num_heads")
    key_value = config.optional_count("num_key_value_heads", default=kv_default or query) or query
    config.check_divides("num_key_value_heads", key_value, "num_attention_heads", query)
    dim = config.optional_count("head_dim", default=dim_default)
    if dim is None:
        config.check_divides("num_attention_heads", query, "hidden_size", hidden)
        dim = hidden // query
    return Heads(query, key_value, dim)


def check_rotary(config: Config, dim: int, fraction: float) -> None:
    """Rotation turns pairs of channels."""
    if int(dim * fraction) % 2:
        raise config.bad("head_dim", f"({dim}) must leave an even number of rotated channels")


def rotary_fraction(config: Config, default: float) -> float:
    """Share of a head that is rotated: `partial_rotary_factor`, inside the rope parameters or at the top."""
    for key in ("rope_parameters", "rope_scaling"):
        inner = Config(config.nested(key), f"{config.where}: {key}")
        if inner.raw("partial_rotary_factor") is not None:
            return inner.fraction("partial_rotary_factor", default=default)
    return config.fraction("partial_rotary_factor", default=default)


SLIDING = "sliding_attention"
FULL = "full_attention"


def layer_types(config: Config, layers: int, default: Sequence[str]) -> tuple[str, ...]:
    """What each layer attends to: the file's `layer_types`, or the class default. Only full and sliding attention are priced here."""
    types = config.words("layer_types", layers) or tuple(default)
    unknown = next((name for name in types if name not in (SLIDING, FULL)), None)
    if unknown is not None:
        raise config.bad("layer_types", f"holds {unknown[:40]!r}; known are {SLIDING} and {FULL}")
    return types


def every_nth_full(layers: int, n: int) -> tuple[str, ...]:
    """Sliding, except every n-th layer."""
    return tuple(SLIDING if (layer + 1) % n else FULL for layer in range(layers))


def runs(kinds: Sequence[Kind], build: Callable[[Kind, int], Block]) -> tuple[Block, ...]:
    """Consecutive layers of one kind become one block; equal runs share one value."""
    built: dict[tuple[Kind, int], Block] = {}
    blocks = []
    for kind, group in groupby(kinds):
        key = (kind, sum(1 for _ in group))
        if key not in built:
            built[key] = build(*key)
        blocks.append(built[key])
    return tuple(blocks)


def linear(
    part: Literal["attention", "mlp"], name: str, in_features: int, out_features: int, bias: bool = False, *, is_subclass: bool = False
) -> Linear:
    return Linear(name=name, in_features=in_features, out_features=out_features, bias=bias, part=part, is_subclass=is_subclass)


def gated_mlp(hidden: int, width: int, bias: bool = False) -> tuple[Linear, ...]:
    """gate_proj, up_proj, down_proj: SwiGLU and its kin, as in Llama."""
    return (
        linear("mlp", "gate_proj", hidden, width, bias),
        linear("mlp", "up_proj", hidden, width, bias),
        linear("mlp", "down_proj", width, hidden, bias),
    )
