"""Bytes that one training step moves to and from the card's memory beside the matrix products: they take time that FLOPs do not show.

Counts of reads and writes are read off the code that runs unfused: transformers 5.23 `models/llama/modeling_llama.py` (norm, rotation,
gated MLP, residual) and `loss/loss_utils.py`, peft 0.21 `tuners/lora/layer.py`, torch 2.13 `optim/adam.py`, bitsandbytes 0.50
`optim/optimizer.py`. Legend: e bytes per element of the residual stream. Fused kernels (Liger, torch.compile) move less.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.speed.flops import block_passes, tokens_per_card
from advisor.speed.shape import Shape
from advisor.values import Attention, DType, Loss, Method, ModelSpec, Optimizer, Plan

RMS_NORM_FP32_BYTES, RMS_NORM_STREAM_COPIES = 28, 4
"""LlamaRMSNorm: cast up (read e, write 4), square (4, 4), mean (4), product (4, 4), cast down (4, e), times weight (e, e)."""
LAYER_NORM_STREAM_COPIES = 2
"""One kernel: read, write."""
RESIDUAL_STREAM_COPIES = 3
"""Two reads and a write an addition."""
ROTARY_STREAM_COPIES = 10
"""apply_rotary_pos_emb: x cos (read, write), negate half, concatenate (3 together), times sin (2), add (3)."""
GATED_STREAM_COPIES = 5
"""Activation (read, write), product with the up branch (2 reads, write)."""
PLAIN_STREAM_COPIES = 2
"""Activation alone."""
BACKWARD_IN_FORWARDS = 1.5
"""Judgement: norms and activations move about twice their forward's bytes in backward, rotations and scalings as many, additions fewer."""
LOGIT_BYTES = 32
"""ForCausalLMLoss, forward and backward: cast up (2, 4), log-softmax (4, 4), its backward (4, 4, 4), cast down (4, 2)."""
IN_PLACE_LOGIT_BYTES = 28
"""The kernel in the place of log-softmax: cast up (2, 4), logits read twice and written (4, 4, 4), scaled (4, 4), cast down (4, 2); less
than that where a chunk is computed at a time and nothing is cast."""
FUSED_LOGIT_BYTES = 8
"""A chunk is written, read, overwritten by its gradient and read again in 16 bit (Liger fused linear cross entropy)."""
_LOGIT_BYTES = {Loss.FUSED: FUSED_LOGIT_BYTES, Loss.IN_PLACE: IN_PLACE_LOGIT_BYTES}
EAGER_SCORE_BYTES = 26
"""eager_attention_forward in 16 bit: product (2), scale (2, 2), mask (2, 2), softmax into fp32 (2, 4), cast down (4, 2), dropout (2, 2)."""
ADAPTER_INPUT_BYTES = {DType.FP32: 10, DType.BF16: 2, DType.FP16: 2}
"""lora.Linear.forward: cast of the input to the adapter's type (2, 4) and the product's read (4); without a cast the read alone."""
ADAPTER_OUTPUT_BYTES = {DType.FP32: 28, DType.BF16: 12, DType.FP16: 12}
"""B's output (4), scaling (4, 4), addition to the base's (2, 4, 4), cast down (4, 2); in 16 bit 2, 2 + 2, 2 + 2 + 2."""
OPTIMIZER_ACCESSES = {
    Optimizer.ADAMW: 20,
    Optimizer.ADAMW_FUSED: 7,
    Optimizer.ADAMW_8BIT: 3,
    Optimizer.PAGED_ADAMW_32BIT: 3,
    Optimizer.PAGED_ADAMW_8BIT: 3,
    Optimizer.ADAFACTOR: 12,
    Optimizer.LION_32BIT: 3,
    Optimizer.LION_8BIT: 3,
    Optimizer.SGD: 3,
}
"""Reads and writes of a parameter's own size in a step. foreach AdamW (`_multi_tensor_adam`): decay 2, lerp 3, second moment 2 + 3, root 2,
division 2, epsilon 2, update 4; fused: p, g, m, v read, p, m, v written. Adafactor: judgement from its code."""
OPTIMIZER_STATE_BYTES = {
    Optimizer.PAGED_ADAMW_32BIT: 16,
    Optimizer.LION_32BIT: 8,
    Optimizer.ADAMW_8BIT: 4,
    Optimizer.PAGED_ADAMW_8BIT: 4,
    Optimizer.LION_8BIT: 2,
}
"""States of bitsandbytes optimizers, read and written; torch's stand in the accesses. Paging over the bus is left out."""
GRADIENT_ACCESSES = 4
"""Norm for clipping (read), scaling (read, write), zeroing or release (write)."""
ACCUMULATION_ACCESSES = 3
"""Each further micro-batch adds to the gradient: two reads, a write."""


class Traffic(NamedTuple):
    """Bytes of one optimizer step on one card."""

    weights_bytes: float
    """Every pass of every micro-batch reads the weights: the floor of the matrix products."""
    stream_bytes: float
    """Elementwise operations, logits and adapters."""
    optimizer_bytes: float
    """The optimizer's step and clipping, of the share that this card updates."""
    dequantised_weights: float
    """4- and 8-bit weights that are expanded, once a pass: what one costs is measured, see `dequantisation` in speed.json."""


def step_traffic(shape: Shape, model: ModelSpec, plan: Plan) -> Traffic:
    passes = block_passes(plan) * plan.grad_accum_steps
    head_passes = 3 if plan.method is Method.FULL else 2
    size = plan.base_dtype.size_bytes
    touched = _touched_weights(shape, model, plan)
    quantised = (shape.stored_weights if plan.quantized_experts else shape.stored_modules) if plan.method.is_quantized else 0
    return Traffic(
        weights_bytes=size * (touched * passes + shape.head_weights * head_passes * plan.grad_accum_steps),
        stream_bytes=tokens_per_card(plan) * _token_bytes(shape, plan),
        optimizer_bytes=_optimizer_bytes(shape, model, plan),
        dequantised_weights=float(quantised * passes),
    )


def _touched_weights(shape: Shape, model: ModelSpec, plan: Plan) -> float:
    """All weights, or as many as the micro-batch's tokens can route to."""
    return min(float(shape.stored_weights), shape.active_weights * plan.micro_batch_size * plan.seq_len_tokens)


def _token_bytes(shape: Shape, plan: Plan) -> float:
    e = 4 if plan.kbit_prepare and not plan.autocast else plan.base_dtype.size_bytes
    forward: float = shape.rms_elements * (RMS_NORM_FP32_BYTES + RMS_NORM_STREAM_COPIES * e)
    forward += e * (
        shape.layer_norm_elements * LAYER_NORM_STREAM_COPIES
        + shape.residual_elements * RESIDUAL_STREAM_COPIES
        + shape.rotated_elements * ROTARY_STREAM_COPIES
        + shape.gated_elements * GATED_STREAM_COPIES
        + shape.plain_elements * PLAIN_STREAM_COPIES
    )
    if plan.method.has_adapter:
        forward += shape.wrapped_inputs * ADAPTER_INPUT_BYTES[plan.adapter_dtype]
        forward += shape.wrapped_outputs * ADAPTER_OUTPUT_BYTES[plan.adapter_dtype]
    if plan.attention is Attention.EAGER:
        forward += EAGER_SCORE_BYTES * plan.seq_len_tokens * sum(run.layers * run.shape.heads for run in shape.attention)
    forwards = 1 + BACKWARD_IN_FORWARDS + plan.gradient_checkpointing
    return forward * forwards + shape.vocab * _LOGIT_BYTES.get(plan.loss, LOGIT_BYTES)


def trained_params(shape: Shape, model: ModelSpec, plan: Plan) -> float:
    return float(model.params if plan.method is Method.FULL else plan.rank * shape.wrapped_features)


def trained_dtype(plan: Plan) -> DType:
    return plan.base_dtype if plan.method is Method.FULL else plan.adapter_dtype


def _optimizer_bytes(shape: Shape, model: ModelSpec, plan: Plan) -> float:
    trained, size = trained_params(shape, model, plan), trained_dtype(plan).size_bytes
    if plan.sharding.shards_states:
        trained /= plan.n_gpus
    accesses = OPTIMIZER_ACCESSES[plan.optimizer] + GRADIENT_ACCESSES + ACCUMULATION_ACCESSES * (plan.grad_accum_steps - 1)
    return trained * (size * accesses + OPTIMIZER_STATE_BYTES.get(plan.optimizer, 0))
