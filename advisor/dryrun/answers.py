"""What a meta tensor cannot say or do, answered as a card would in training: values asked for, and shapes that depend on values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from advisor.dryrun import fake_cards
from advisor.dryrun.known import NOTHING, KnownValues

_aten = torch.ops.aten

_MASK_MODULES = ("transformers.masking_utils", "transformers.modeling_attn_mask_utils")
_FRAMES_TO_SEARCH = 14
"""Depth to which the asking function is searched; the mask code asks within a few frames."""


def answer(func: Any, args: Any, kwargs: Any, known: KnownValues, padding: bool) -> Any:
    """The operator's result where meta has none, else NOTHING."""
    if func is _aten._local_scalar_dense.default:
        return _value(args[0], known, padding) if args[0].device.type == "meta" else NOTHING
    if func is _aten.equal.default:
        return _equal(known.of(args[0]), known.of(args[1])) if args[0].device.type == "meta" else NOTHING
    if func is _aten.histc.default and not args[0].dtype.is_floating_point:
        return torch.empty(args[1], dtype=args[0].dtype, device="meta")
    if func is _aten._grouped_mm.default and args[0].dtype is not torch.bfloat16:
        return _grouped_mm(*args, **kwargs)
    among_cards = fake_cards.answer(func, args)
    if among_cards is not NOTHING:
        return among_cards
    if func.namespace == "bitsandbytes":
        return _bitsandbytes(func, args, kwargs)
    return known.answer(func, args, kwargs)


def _equal(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    return left is None or right is None or torch.equal(left, right)


def _value(tensor: torch.Tensor, known: KnownValues, padding: bool) -> Any:
    """What it is where that is known. Of other values yes to every question, 1 for a number; but in a padded batch no to the question
    of the mask's code, whether nothing is padded."""
    if tensor.dtype is torch.bool and padding and _asked_by_mask_code():
        return False
    value = known.of(tensor)
    if value is not None:
        return value.item()
    if tensor.dtype is torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 1


def _asked_by_mask_code() -> bool:
    frame: Any = sys._getframe(3)
    for _ in range(_FRAMES_TO_SEARCH):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") in _MASK_MODULES:
            return True
        frame = frame.f_back
    return False


def _grouped_mm(left: Any, right: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> torch.Tensor:
    """torch's meta kernel takes bf16 only, its CUDA kernel every type (torch 2.13 aten/src/ATen/native/cuda/GroupedBlas.cpp)."""
    if left.dim() == 2 and right.dim() == 2:
        shape: tuple[int, ...] = (offs.shape[0], left.shape[0], right.shape[1])
    elif left.dim() == 2:
        shape = (left.shape[0], right.shape[2])
    elif right.dim() == 2:
        shape = (left.shape[1], right.shape[1])
    else:
        shape = (left.shape[0], left.shape[1], right.shape[2])
    return torch.empty(shape, dtype=out_dtype or left.dtype, device=left.device)


def _bitsandbytes(func: Any, args: Any, kwargs: Any) -> Any:
    """LLM.int8() looks for outlier columns; how many depends on values, and none are assumed (bitsandbytes 0.50 backends/cuda/ops.py)."""
    name = func._opname
    if name == "int8_vectorwise_quant":
        values = args[0]
        rows = values.numel() // values.shape[-1]
        quantized = torch.empty(values.shape, dtype=torch.int8, device=values.device)
        outliers = torch.empty(0, dtype=torch.int64, device=values.device)
        return quantized, torch.empty(rows, dtype=torch.float32, device=values.device), outliers
    if name == "int8_mixed_scaled_mm":
        values, weight = args[0], args[2]
        return torch.empty((*values.shape[:-1], weight.shape[0]), dtype=values.dtype, device=values.device), None
    return NOTHING


@contextmanager
def told_in_python(known: KnownValues) -> Iterator[None]:
    """Keep what passes between Python and tensors past the dispatcher: a list that becomes a meta tensor (`torch.tensor`) is known, and a
    number that is written into text has its value, as experts are called by theirs (transformers 5.23 models/switch_transformers/
    modeling_switch_transformers.py; torch 2.13 _tensor.py `__format__` writes "tensor(…)" for meta tensors)."""
    tensor, as_text = torch.tensor, torch.Tensor.__format__

    def from_python(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = tensor(data, *args, **kwargs)
        if made.device.type == "meta" and not isinstance(data, torch.Tensor):
            known.say(made, lambda: tensor(data, dtype=made.dtype))
        return made

    def written(self: torch.Tensor, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 and self.device.type == "meta" else as_text(self, form)

    torch.tensor = from_python
    torch.Tensor.__format__ = written  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.tensor = tensor
        torch.Tensor.__format__ = as_text  # type: ignore[method-assign]
