"""FLOPs of one training step, counted as executed: recomputation is in, elementwise operations are not (they move bytes, see traffic.py).

Kaplan 2020 (arXiv:2001.08361, section 2.1): a matrix costs 2 FLOPs a weight and token, forward. PaLM (arXiv:2204.02311, appendix B):
backward costs that twice, once for the gradient of the input and once for that of the weight; attention adds 2 x 2 x heads x width x
tokens attended to, forward. FlashAttention-2 (arXiv:2307.08691, section 4.1): its backward costs 2.5 forwards, since scores are computed
anew, and a causal mask halves both. A frozen weight needs no gradient of its own: two passes where full fine-tuning makes three.
"""

from __future__ import annotations

from advisor.speed.shape import Shape, shape_of
from advisor.values import Attention, AttentionShape, Method, ModelKind, ModelSpec, Plan

FLOPS_PER_WEIGHT = 2
"""A multiplication and an addition (Kaplan 2020, section 2.1)."""
FUSED_ATTENTION_BACKWARD = 2.5
"""In forwards (FlashAttention-2, section 4.1: 5 products against 2)."""
EAGER_ATTENTION_BACKWARD = 2.0
"""In forwards: nothing is computed anew (PaLM, appendix B: 12 against 4)."""


def step_flops(model: ModelSpec, plan: Plan) -> float:
    """FLOPs of one optimizer step on one card: every micro-batch of it, forward and backward.

    DoRA's column norms are left out: their price is in its published overhead.
    """
    return product_flops(model, plan) + attention_flops(model, plan)


def tokens_per_card(plan: Plan) -> int:
    return plan.micro_batch_size * plan.seq_len_tokens * plan.grad_accum_steps


def product_flops(model: ModelSpec, plan: Plan) -> float:
    """Of that step, in products with weights. The head lies outside the checkpointed blocks and is not recomputed."""
    shape = shape_of(model, plan.target_modules)
    flops = FLOPS_PER_WEIGHT * shape.active_weights * block_passes(plan) + head_token_flops(shape, plan)
    if plan.method is not Method.FULL:
        # An adapter is trained, so it makes all three passes; r (in + out) weights a matrix (LoRA, arXiv:2106.09685, section 4.1).
        adapter_weights = plan.rank * (shape.wrapped_inputs + shape.wrapped_outputs)
        flops += FLOPS_PER_WEIGHT * adapter_weights * (3 + plan.gradient_checkpointing)
    return tokens_per_card(plan) * flops


def attention_flops(model: ModelSpec, plan: Plan) -> float:
    """Of that step, in scores and their sums of values."""
    shape = shape_of(model, plan.target_modules)
    causal = model.kind is ModelKind.DECODER and plan.attention is not Attention.EAGER
    forward = sum(run.layers * _layer_attention_flops(run.shape, plan.seq_len_tokens, causal) for run in shape.attention)
    backward = EAGER_ATTENTION_BACKWARD if plan.attention is Attention.EAGER else FUSED_ATTENTION_BACKWARD
    return tokens_per_card(plan) * forward * (1 + plan.gradient_checkpointing + backward)


def head_token_flops(shape: Shape, plan: Plan) -> float:
    """The output head's part per token."""
    return FLOPS_PER_WEIGHT * shape.head_weights * (3 if plan.method is Method.FULL else 2)


def block_passes(plan: Plan) -> int:
    """Products with each weight of the blocks: forward, gradient of the input, and as the case may be of the weight, and recomputation."""
    return 2 + (plan.method is Method.FULL) + plan.gradient_checkpointing


def _layer_attention_flops(attention: AttentionShape, seq_len_tokens: int, causal: bool) -> float:
    """Forward, per token of one layer."""
    if attention.kind in ("linear", "mamba"):
        # A state of width x width per head is written and read once a token (Katharopoulos 2020, arXiv:2006.16236, section 3.2).
        return 2 * FLOPS_PER_WEIGHT * attention.heads * attention.head_dim * attention.v_head_dim
    return (
        FLOPS_PER_WEIGHT
        * attention.heads
        * (attention.head_dim + attention.v_head_dim)
        * attended_tokens(attention, seq_len_tokens, causal)
    )


def attended_tokens(attention: AttentionShape, seq_len_tokens: int, causal: bool) -> float:
    """Mean number of keys per query that a kernel computes. Eager attention computes all and masks afterwards."""
    if not causal:
        return seq_len_tokens
    window = attention.window_tokens
    if window is None or window >= seq_len_tokens:
        return (seq_len_tokens + 1) / 2
    return window - window * (window - 1) / (2 * seq_len_tokens)
