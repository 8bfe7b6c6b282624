"""FlashAttention-2 as transformers calls it, with torch's copy of the kernel standing in for the flash-attn package."""

from __future__ import annotations

from typing import Any

import torch

from advisor.dryrun import compat

NAME = "flash_attention_2"
_aten = torch.ops.aten


def install(model: Any) -> None:
    """Let `model` run under the name that its code branches on."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS[NAME] = forward
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            compat.set_attention(config, NAME)


def forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """transformers 5.23 integrations/flash_attention.py: cast to 16 bit, unpad where there is padding, (batch, tokens, heads, dim) out."""
    head_dim, v_head_dim = query.shape[-1], value.shape[-1]
    if v_head_dim != head_dim:
        value = torch.nn.functional.pad(value, [0, head_dim - v_head_dim])
    if query.dtype is torch.float32:
        target = _target_dtype(module)
        query, key, value = query.to(target), key.to(target), value.to(target)
    scale = scaling if scaling is not None else head_dim**-0.5
    if attention_mask is not None:
        query, key, value = (_unpadded(tensor) for tensor in (query, key, value))
    out = _aten._scaled_dot_product_flash_attention(query, key, value, dropout, bool(module.is_causal), False, scale=scale)[0]
    out = out.transpose(1, 2)
    if attention_mask is not None:
        out = _unpadded(out.transpose(1, 2)).transpose(1, 2)
    return (out[..., :v_head_dim] if v_head_dim != head_dim else out), None


def _unpadded(tensor: Any) -> Any:
    """Rows gathered by index (or scattered back): a copy, as large as the batch when nothing can be dropped."""
    return tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _target_dtype(module: Any) -> torch.dtype:
    """integrations/flash_attention.py, get_target_dtype."""
    if torch.is_autocast_enabled("meta"):
        return torch.get_autocast_dtype("meta")
    if hasattr(module.config, "_is_quantized"):
        return compat.config_dtype(module.config)
    return next(layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)).weight.dtype
