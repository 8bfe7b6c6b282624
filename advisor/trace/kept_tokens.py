"""Rows chosen by the attention mask: all of them, as a batch without padding has it, and at most all of them in one with padding.

Some losses of models for images or sound score `logits[mask != 0]` (transformers 5.23 models/qwen2_audio/modeling_qwen2_audio.py). How
many rows that leaves depends on values, which meta tensors lack; but of the attention mask they are known. What is computed from
the mask alone, by operators that keep ones apart from zeros, is followed from operator to operator.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from advisor.trace.answers import NOTHING

_aten = torch.ops.aten
_FOLLOWED = frozenset(
    (
        *(_aten.ne.Scalar, _aten.gt.Scalar, _aten._to_copy.default, _aten.clone.default),
        *(_aten.bitwise_and.Tensor, _aten.logical_and.default, _aten.mul.Tensor),
    )
)
"""Of ones they make ones (compared with 0). Slices and other views share the mask's storage, and are known by it."""


class KeptTokens:
    """Storages that hold the attention mask, or what was made of it alone."""

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}

    def add(self, mask: torch.Tensor) -> None:
        storage = mask.untyped_storage()
        key = storage._cdata
        self._storages[key] = weakref.ref(storage, lambda _: self._storages.pop(key, None))

    def __contains__(self, tensor: Any) -> bool:
        return isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata in self._storages

    def follow(self, func: Any, args: Any, out: Any) -> None:
        """Remember `out` where `func` made it of masks alone."""
        if self._storages and func in _FOLLOWED and all(each in self for each in args if isinstance(each, torch.Tensor)):
            self.add(out)

    def answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Every row, where rows are chosen by a mask: as many as there are; else NOTHING."""
        if func is not _aten.index.Tensor or not self._storages:
            return NOTHING
        values, chosen = args
        masks = [each for each in chosen if each is not None]
        if len(masks) != 1 or masks[0].dtype is not torch.bool or masks[0] not in self:
            return NOTHING
        first = next(number for number, each in enumerate(chosen) if each is not None)
        rest = values.shape[first + masks[0].dim() :]
        return values.new_empty((*values.shape[:first], masks[0].numel(), *rest))
