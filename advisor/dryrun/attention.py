"""Pins the attention kernel to what CUDA would choose, through torch's own operators.

On meta tensors `scaled_dot_product_attention` falls back to the math kernel and invents matrices that no GPU makes. The fused kernels have
meta versions and autograd formulas: calling them directly saves for backward what the GPU saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.overrides

from advisor.dryrun import compat, kernels
from advisor.values import Attention

FLASH_MAX_HEAD_DIM = 256
"""torch 2.13 aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, check_head_dim_size_flash."""
FLASH_HEAD_DIM_MULTIPLE = 8
"""aten/src/ATen/native/transformers/attention.cpp pads the head dimension for the flash kernel (pad_last_dim)."""
BIAS_ALIGNMENT = 16
"""attention.cpp, preprocess_mask: the mem-efficient kernel wants the bias's last dimension padded to a multiple of 16."""

_aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    has_flash: bool = True,
    efficient_only: bool = False,
) -> Any:
    """`torch.nn.functional.scaled_dot_product_attention` as a CUDA card runs it.

    Flash for 16 bit without a mask, where there is a flash kernel; mem-efficient otherwise, which before torch 2.14 knows no grouped
    queries: those that the library did not expand go to the math kernel, whose matrices are tokens by tokens. `efficient_only` is a loop
    that pins mem-efficient and expands them itself.
    """
    head_dim, v_head_dim = query.shape[-1], value.shape[-1]
    same_dims = head_dim == v_head_dim and head_dim <= FLASH_MAX_HEAD_DIM
    if (
        has_flash
        and not efficient_only
        and attn_mask is None
        and query.dtype in _HALF
        and same_dims
        and not (is_causal and query.shape[2] != key.shape[2])
    ):
        return _flash(query, key, value, dropout_p, is_causal, scale)
    needs_groups = enable_gqa and query.shape[1] != key.shape[1]
    aligned = head_dim % (16 // query.element_size()) == 0 and v_head_dim % (16 // query.element_size()) == 0
    if aligned and not (needs_groups and not efficient_only and not compat.efficient_attention_knows_groups()):
        if needs_groups:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)
    return _aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _flash(query: Any, key: Any, value: Any, dropout_p: float, is_causal: bool, scale: float | None) -> Any:
    head_dim = query.shape[-1]
    scale = scale if scale is not None else head_dim**-0.5
    missing = -head_dim % FLASH_HEAD_DIM_MULTIPLE
    if missing:
        query, key, value = (torch.nn.functional.pad(tensor, (0, missing)) for tensor in (query, key, value))
    out = _aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    return out[..., :head_dim] if missing else out


def _efficient(query: Any, key: Any, value: Any, mask: Any, dropout_p: float, is_causal: bool, scale: float | None) -> Any:
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    bias = _bias(mask, query, key) if mask is not None else None
    return _aten._scaled_dot_product_efficient_attention(query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale)[0]


def _bias(mask: Any, query: Any, key: Any) -> Any:
    """A boolean mask becomes an additive one in the query's type; then padding and a broadcast view (attention.cpp)."""
    if mask.dtype is torch.bool:
        mask = torch.where(mask, torch.zeros((), dtype=query.dtype, device=mask.device), float("-inf"))
    length = mask.shape[-1]
    missing = -length % BIAS_ALIGNMENT
    if missing:
        mask = torch.nn.functional.pad(mask, (0, missing))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


@contextmanager
def pinned(attention: Attention, has_flash: bool) -> Iterator[Any]:
    """Within it, the functions that CUDA computes otherwise than meta does are answered as CUDA would: attention, dropout, and softmax
    from half to single precision. A function mode would not reach blocks that are recomputed inside backward, so they are replaced.

    `has_flash` is whether torch has a flash kernel for the card.
    """
    functional = torch.nn.functional
    real = functional.scaled_dot_product_attention, functional.softmax, functional.dropout
    efficient_only = attention is Attention.MEM_EFFICIENT

    def softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        # torch fuses the cast for fp16 to fp32 only (aten/src/ATen/native/SoftMax.cpp, `softmax`, torch 2.13)
        if dtype is torch.float32 and input.dtype is torch.float16:
            return _aten._softmax(input, dim, True)
        return real[1](input, dim, _stacklevel, dtype)

    def attend(*args: Any, **kwargs: Any) -> Any:
        if torch.overrides.has_torch_function_variadic(*args):
            return torch.overrides.handle_torch_function(attend, args, *args, **kwargs)
        return scaled_dot_product_attention(*args, **kwargs, has_flash=has_flash, efficient_only=efficient_only)

    functional.scaled_dot_product_attention = attend
    functional.softmax = softmax
    functional.dropout = kernels.dropout
    try:
        yield attend
    finally:
        functional.scaled_dot_product_attention, functional.softmax, functional.dropout = real
