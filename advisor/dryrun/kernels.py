"""What CUDA kernels do otherwise than meta's: memory that they take inside themselves, where no dispatcher sees it, as a cited table;
and dropout, which CUDA computes in one kernel.

Each entry gives the bytes of buffers that live only while the operator runs. `inside_before` are those allocated before the operator's
outputs, `inside_after` those after them; all are released when it returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Sizes = tuple[int, ...]

FP32_BYTES = 4


def _numel_bytes(tensor: torch.Tensor, item_bytes: int | None = None) -> int:
    return tensor.numel() * (item_bytes or tensor.element_size())


def _softmax_backward(args: Any, kwargs: Any) -> Sizes:
    """`tmp = grad * output` (aten/src/ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out, torch 2.13)."""
    return (_numel_bytes(args[0]),)


def _gemm_4bit(args: Any, kwargs: Any) -> Sizes:
    """Dequantised weight and scales, when the fused kernel is not taken (bitsandbytes 0.50 backends/cuda/ops.py,
    `_dequant_linear_fallback`; the fused kernel never runs above 1,536 tokens and seldom below)."""
    activations, shape, absmax_8bit = args[0], args[2], kwargs.get("absmax_8bit")
    sizes = [math.prod(shape) * activations.element_size()]
    if absmax_8bit is not None:
        sizes = [absmax_8bit.numel() * FP32_BYTES] * 2 + sizes
    return tuple(sizes)


def _int8_quant(args: Any, kwargs: Any) -> Sizes:
    """Absolute values and where they are large, while outliers are searched (bitsandbytes 0.50 backends/cuda/ops.py)."""
    if not (kwargs.get("threshold") or (args[1] if len(args) > 1 else 0.0)):
        return ()
    return (_numel_bytes(args[0]), args[0].numel())


def _int8_matmul(args: Any, kwargs: Any) -> Sizes:
    """The int32 product, and its fp16 form where that is not the result (same file, int8_mm_dequant)."""
    values, weight = args[0], args[2]
    outputs = values.numel() // values.shape[-1] * weight.shape[0]
    return (outputs * 4, outputs * 2) if values.dtype is not torch.float16 else (outputs * 4,)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _flash_backward(args: Any, kwargs: Any) -> Sizes:
    """fp32 accumulator of dq and row sums; dk and dv of every query head before they are summed over a group
    (flash-attention 2.x csrc/flash_attn/flash_api.cpp `mha_bwd`; torch's copy in transformers/cuda/flash_attn/)."""
    query, key = args[1], args[2]
    batch, heads, tokens, head_dim = query.shape
    rounded_tokens = _round_up(tokens, 128)
    rounded_dim = _round_up(head_dim, 32) if head_dim <= 128 else _round_up(head_dim, 64)
    sizes = [batch * heads * rounded_tokens * FP32_BYTES, batch * heads * rounded_tokens * rounded_dim * FP32_BYTES]
    if key.shape[1] != heads:
        sizes += [batch * heads * key.shape[2] * head_dim * key.element_size()] * 2
    return tuple(sizes)


def _efficient_backward(args: Any, kwargs: Any) -> Sizes:
    """`delta` = row sums of grad * out in fp32, and fp32 gradients in the workspace where the kernel accumulates in fp32
    (aten/src/ATen/native/transformers/cuda/attention_backward.cu, `_efficient_attention_backward`)."""
    batch, heads, tokens, _ = args[1].shape
    return (batch * heads * tokens * FP32_BYTES,)


def _embedding_backward(args: Any, kwargs: Any) -> Sizes:
    """Sorted indices and their original places, int64 each, plus the sort's own copy (aten/src/ATen/native/cuda/Embedding.cu,
    embedding_dense_backward_cuda; taken for more than 3,072 indices)."""
    indices = args[1].numel()
    return (indices * 8,) * 3 if indices > 3072 else ()


_aten = torch.ops.aten
MATMULS = {_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default, _aten._grouped_mm.default}
"""Operators that need a cuBLAS handle."""
_BEFORE: dict[Any, Callable[[Any, Any], Sizes]] = {
    _aten._softmax_backward_data.default: _softmax_backward,
    _aten.embedding_dense_backward.default: _embedding_backward,
}
_AFTER: dict[Any, Callable[[Any, Any], Sizes]] = {
    _aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    _aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
}


_BITSANDBYTES: dict[str, Callable[[Any, Any], Sizes]] = {
    "gemm_4bit": _gemm_4bit,
    "int8_vectorwise_quant": _int8_quant,
    "int8_mixed_scaled_mm": _int8_matmul,
}
"""By name, because these operators exist only once bitsandbytes is imported."""


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """`torch.nn.functional.dropout` as a CUDA card runs it: `native_dropout`, whose backward keeps a mask of one byte per element.

    Other devices multiply by noise in the input's own type, and keep it (aten/src/ATen/native/Dropout.cpp `dropout`,
    `is_fused_kernel_acceptable`, torch 2.13).
    """
    if not training or not 0 < p < 1 or inplace:
        return torch.dropout_(input, p, training) if inplace else torch.dropout(input, p, training)
    return torch.native_dropout(input, p, training)[0]


def inside_before(func: Any, args: Any, kwargs: Any) -> Sizes:
    entry = _BITSANDBYTES.get(func._opname) if func.namespace == "bitsandbytes" else _BEFORE.get(func)
    return entry(args, kwargs) if entry else ()


def inside_after(func: Any, args: Any, kwargs: Any) -> Sizes:
    entry = _AFTER.get(func)
    return entry(args, kwargs) if entry else ()
