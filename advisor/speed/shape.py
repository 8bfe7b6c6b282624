"""Sums over a model's layers that the counts of FLOPs and bytes are made of. Computed once per model and set of targets.

Mixture-of-Experts counts what a token passes through: `experts_per_token` of the routed experts, and all that is shared.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.stacks.targets import targets
from advisor.values import AttentionShape, Block, Linear, ModelKind, ModelSpec


class AttentionRun(NamedTuple):
    """`layers` equal attention parts."""

    shape: AttentionShape
    layers: int


class Shape(NamedTuple):
    """Sums over all layers; "active" is what one token uses. Counts of elements are per token."""

    layers: int
    active_weights: float
    """Weights of the blocks' linear layers; the head stands apart."""
    stored_weights: int
    stored_modules: int
    """Of these, in `nn.Linear` modules: what bitsandbytes quantises."""
    head_weights: int
    vocab: int
    wrapped_weights: int
    """Weights of the matrices that carry an adapter, inactive experts too."""
    wrapped_features: int
    """in + out of every wrapped matrix: an adapter has rank times as many parameters (LoRA, section 4.1)."""
    wrapped_inputs: float
    wrapped_outputs: float
    """Active features that go into and come out of wrapped matrices."""
    rms_elements: int
    layer_norm_elements: int
    residual_elements: int
    rotated_elements: float
    gated_elements: float
    plain_elements: float
    """Outputs of gated and of plain feed-forward activations."""
    attention: tuple[AttentionRun, ...]


@lru_cache(maxsize=512)
def shape_of(model: ModelSpec, target_modules: tuple[str, ...]) -> Shape:
    blocks = model.shape.blocks
    linears = [(block, linear) for block in blocks for linear in block.linears]
    wrapped = [(block, linear) for block, linear, *_ in targets(model, target_modules)]
    hidden = model.hidden_size
    has_head = model.kind is ModelKind.DECODER or model.shape.head_params > 0
    norms = [(block, block.count * (block.norms * hidden + _qk_norm_elements(block.attention))) for block in blocks]
    feed_forward = [(block, block.count * _activation_elements(block)) for block in blocks]
    return Shape(
        layers=model.layers,
        active_weights=sum(block.count * linear.weight_params * active_share(block, linear) for block, linear in linears),
        stored_weights=sum(block.count * linear.weight_params for block, linear in linears),
        stored_modules=sum(block.count * linear.weight_params for block, linear in linears if linear.is_module),
        head_weights=hidden * model.vocab_size if has_head else 0,
        vocab=model.vocab_size if has_head else 0,
        wrapped_weights=sum(block.count * linear.weight_params for block, linear in wrapped),
        wrapped_features=sum(
            block.count * linear.copies * rank_factor * (linear.in_features + linear.out_features)
            for block, linear, rank_factor, _ in targets(model, target_modules)
        ),
        wrapped_inputs=sum(block.count * linear.in_features * _active_copies(block, linear) for block, linear in wrapped),
        wrapped_outputs=sum(block.count * linear.out_features * _active_copies(block, linear) for block, linear in wrapped),
        rms_elements=sum(elements for block, elements in norms if block.norm != "layer"),
        layer_norm_elements=sum(elements for block, elements in norms if block.norm == "layer"),
        residual_elements=2 * hidden * model.layers,
        rotated_elements=sum(block.count * _rotated_elements(block.attention) for block in blocks),
        gated_elements=sum(elements for block, elements in feed_forward if block.mlp.kind != "plain"),
        plain_elements=sum(elements for block, elements in feed_forward if block.mlp.kind == "plain"),
        attention=tuple(AttentionRun(block.attention, block.count) for block in blocks),
    )


def active_share(block: Block, linear: Linear) -> float:
    """Share of a layer's copies that one token passes through: below 1 for routed experts only."""
    experts = block.mlp.experts
    routed = block.mlp.kind == "moe" and experts > 1 and linear.copies >= experts
    return block.mlp.experts_per_token / experts if routed else 1.0


def _active_copies(block: Block, linear: Linear) -> float:
    return linear.copies * active_share(block, linear)


def _qk_norm_elements(attention: AttentionShape) -> int:
    return 0 if attention.qk_norm == "none" else (attention.heads + attention.kv_heads) * attention.head_dim


def _rotated_elements(attention: AttentionShape) -> float:
    return (attention.heads + attention.kv_heads) * attention.head_dim * attention.rotary_fraction


def _activation_elements(block: Block) -> int:
    mlp = block.mlp
    if mlp.kind == "moe":
        return mlp.intermediate_size * mlp.experts_per_token + mlp.shared_intermediate_size
    return mlp.intermediate_size
