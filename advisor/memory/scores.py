"""Tapes of attention that makes its scores: torch's math kernel, and the libraries' own code. Legend as in attention.py."""

from __future__ import annotations

from typing import NamedTuple

from advisor.memory.layers import FP32_BYTES, INDEX_BYTES
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.values import AttentionShape

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values."""


class Widths(NamedTuple):
    """Bytes per element."""

    computed: int
    """Of the products."""
    mask: int
    """Of the mask, which has the type of the embeddings."""
    projected: int
    """Of queries, keys and values as their layers return them."""


class Run(NamedTuple):
    """What changes eager attention beside its shape; see `Kernel`."""

    fuses_softmax: bool
    autocast: bool
    several: bool


def math(tape: Tape, heads: Heads, shape: AttentionShape, c: int) -> Tensor:
    """torch's math kernel, to which SDPA falls for grouped queries where flash does not run: mem-efficient knows no groups (before torch
    2.14), and without a mask transformers leaves the grouping to torch (integrations/sdpa_attention.py `use_gqa_in_sdpa`).

    It computes in fp32: 16-bit heads are copied first. Scaled queries, expanded and scaled keys, scores, masked scores and their softmax
    (ATen/native/transformers/attention.cpp `_scaled_dot_product_attention_math`, torch 2.13).
    """
    q, k, v = heads
    if c < FP32_BYTES:
        q, k, v = (tape.op((x,), Size(x.size.per_token // c * FP32_BYTES)) for x in heads)
    wide, out_size = Size(shape.heads * shape.head_dim * FP32_BYTES), Size(shape.heads * shape.v_head_dim * FP32_BYTES)
    scores = Size(per_pair=shape.heads * FP32_BYTES)
    q = tape.op((q,), wide)
    k = tape.op((tape.op((k,), wide),), wide)
    v = tape.op((v,), out_size)
    weights = tape.op((q, k), scores, keeps=(q, k))
    weights = tape.op((weights,), scores, aliases=(True,))
    probabilities = tape.op((weights,), scores, scratch=(Size(), scores))
    tape.ops[-1].kept = (probabilities,)
    out = tape.op((probabilities, v), out_size, keeps=(probabilities, v))
    return tape.op((out,), Size(shape.heads * shape.v_head_dim * c))


def eager(tape: Tape, heads: Heads, shape: AttentionShape, widths: Widths, run: Run) -> Tensor:
    """`eager_attention_forward`: scores in the computation's type, softmax in fp32, micro-batch x heads x sequence x sequence each."""
    q, k, v = heads
    c, mask_bytes, projected_bytes = widths
    fuses_softmax, autocast, several = run
    if shape.kv_heads != shape.heads:
        k = tape.op((k,), Size(shape.heads * shape.head_dim * c))
        v = tape.op((v,), Size(shape.heads * shape.v_head_dim * c))
    if shape.scores_in_fp32 and c < FP32_BYTES:
        return _fp32_scores(tape, (q, k, v), shape, c, several)
    if several:
        q, k = (_folded(tape, x, Size(shape.heads * shape.head_dim * c)) for x in (q, k))
        v = _view(tape, v, Size(shape.heads * shape.v_head_dim * c))
    scores, scores32 = Size(per_pair=shape.heads * c), Size(per_pair=shape.heads * FP32_BYTES)
    weights = tape.op((q, k), scores, keeps=(q, k))
    weights = tape.op((weights,), scores)  # times scaling
    if shape.softcap:
        weights = tape.op((weights,), scores)  # divided by the cap
        weights = tape.op((weights,), scores)
        tape.ops[-1].kept = (weights,)  # tanh keeps its result
        weights = tape.op((weights,), scores)
    # plus the mask, which has the type of the embeddings: an fp32 one widens 16-bit scores, whose gradient is cast back
    wide = max(c, mask_bytes)
    weights = tape.op((weights,), Size(per_pair=shape.heads * wide), aliases=(wide == c,))
    if shape.sinks:
        return _softmax_with_sinks(tape, weights, v, shape, (c, wide, projected_bytes), several)
    if shape.softmax != "fp32" and not autocast:  # which runs every softmax in fp32 (torch 2.13 autocast_mode.h, fp32 list)
        return _own_softmax(tape, weights, v, shape, c, several)
    masked = weights
    if wide != FP32_BYTES and not fuses_softmax:
        weights = tape.op((weights,), scores32)
    # softmax keeps its result; CUDA's backward makes grad * output inside (ATen/native/cuda/SoftMax.cu)
    probabilities = tape.op((weights,), scores32, scratch=(Size(), scores32))
    tape.ops[-1].kept = (probabilities,)
    if c != FP32_BYTES:
        probabilities = tape.op((probabilities,), scores)
    tape.hold(masked)  # until its name is given to the probabilities
    if shape.dropout:
        probabilities = tape.op((probabilities,), scores, keeps=(Tensor(Size(per_pair=shape.heads)),))
    return _mixed(tape, probabilities, v, shape, c, several)


def _folded(tape: Tape, x: Tensor, own: Size) -> Tensor:
    """Heads as a product over batch and heads takes them: those of several sequences that are views of a wider matrix are copied out of it,
    and the copy is kept in its place (torch 2.13 aten/src/ATen/native/LinearAlgebra.cpp `_matmul_impl`, `reshape`)."""
    return x if x.size == own else tape.op((x,), own, aliases=(x.gradient_size == own,))


def _view(tape: Tape, x: Tensor, own: Size) -> Tensor:
    """A part of a wider matrix: its gradient is as large as itself until that of the matrix is made."""
    if x.size == own:
        return x
    view = tape.op((x,), ZERO)
    view.shares(x, own)
    return view


def _mixed(tape: Tape, probabilities: Tensor, v: Tensor, shape: AttentionShape, c: int, several: bool) -> Tensor:
    """Values weighed by the probabilities."""
    size = Size(shape.heads * shape.v_head_dim * c)
    v = _folded(tape, v, size) if several else v
    return tape.op((probabilities, v), size, keeps=(probabilities, v))


def _fp32_scores(tape: Tape, heads: Heads, shape: AttentionShape, c: int, several: bool) -> Tensor:
    """Queries and keys are lifted to fp32 before their product (models/gptj/modeling_gptj.py `_attn`, likewise GPT-Neo's)."""
    q, k, v = heads
    q, k = (tape.op((x,), Size(shape.heads * shape.head_dim * FP32_BYTES)) for x in (q, k))
    scores32 = Size(per_pair=shape.heads * FP32_BYTES)
    weights = tape.op((q, k), scores32, keeps=(q, k))
    weights = tape.op((tape.op((weights,), scores32),), scores32, aliases=(True,))
    probabilities = tape.op((weights,), scores32, scratch=(Size(), scores32))
    tape.ops[-1].kept = (probabilities,)
    probabilities = tape.op((probabilities,), Size(per_pair=shape.heads * c))
    if shape.dropout:
        kept = Tensor(Size(per_pair=shape.heads))
        probabilities = tape.op((probabilities,), Size(per_pair=shape.heads * c), keeps=(kept,))
    return _mixed(tape, probabilities, v, shape, c, several)


def _own_softmax(tape: Tape, weights: Tensor, v: Tensor, shape: AttentionShape, c: int, several: bool) -> Tensor:
    """The softmax runs in the scores' own type (models/bert/modeling_bert.py `eager_attention_forward`, likewise GPT-2's and Falcon's).
    XGLM first raises masked scores to the type's least number, which keeps them, and leaves fp16 alone
    (models/xglm/modeling_xglm.py `XGLMAttention.forward`)."""
    scores = Size(per_pair=shape.heads * c)
    if shape.softmax == "raised":
        weights = tape.op((weights,), scores, keeps=(weights,))
    probabilities = tape.op((weights,), scores, scratch=(Size(), scores))
    tape.ops[-1].kept = (probabilities,)
    if shape.dropout:
        probabilities = tape.op((probabilities,), scores, keeps=(Tensor(Size(per_pair=shape.heads)),))
    return _mixed(tape, probabilities, v, shape, c, several)


def _softmax_with_sinks(
    tape: Tape, weights: Tensor, v: Tensor, shape: AttentionShape, widths: tuple[int, int, int], several: bool
) -> Tensor:
    """Scores joined by a sink per head, less their maximum, softmax in their own type, which is cast to the values' type
    (models/gpt_oss/modeling_gpt_oss.py `eager_attention_forward`), before autocast runs the product in its own. `widths` are bytes per
    element of that product, of masked scores and of values."""
    c, wide, value_bytes = widths
    scores = Size(per_pair=shape.heads * wide)
    joined = tape.op((weights,), scores)
    highest = Tensor(Size(shape.heads * INDEX_BYTES))  # where the maximum of each row is, which its gradient goes to
    shifted = tape.op((joined,), scores, keeps=(highest,), aliases=(True,))
    probabilities = tape.op((shifted,), scores, scratch=(Size(), scores))
    tape.ops[-1].kept = (probabilities,)
    if wide != value_bytes:
        probabilities = tape.op((probabilities,), Size(per_pair=shape.heads * value_bytes))
    tape.hold(weights)  # until its name is given to the probabilities
    factor = tape.op((probabilities,), Size(per_pair=shape.heads * c)) if value_bytes != c else probabilities
    out = _mixed(tape, factor, v, shape, c, several)
    for local in (shifted, probabilities):
        tape.hold(local)
    return out
