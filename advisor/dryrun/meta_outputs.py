"""Remembers what operators give back on meta tensors, most of which torch works out in Python, operator by operator.

A layer's operators are those of the layer before, on tensors of the same shapes; their outputs are then made without asking torch again.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

_MOST = 1 << 16
"""Outputs that are remembered at once. Judgement: a recording of some hundred layers meets a tenth as many."""
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_VALUES = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


class _Output(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class _Unknown(Exception):
    """An argument that does not tell an operator's outputs by its shape or value."""


_remembered: dict[Any, tuple[bool, tuple[_Output, ...]]] = {}
"""By operator and arguments: whether the outputs are one tensor rather than several, and what they look like."""
_views: set[Any] = set()
"""Operators that were seen to give back an argument's storage, though their schema says that they do not (`aten::_unsafe_view`)."""


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """What `func` gives back. Operators that make all of their outputs anew are asked once for each kind of arguments."""
    if func in _views or not _makes_anew(func):
        return func(*args, **kwargs)
    try:
        key = (func, _kind(args), tuple((name, _kind(value)) for name, value in kwargs.items()))
    except _Unknown:
        return func(*args, **kwargs)
    known = _remembered.get(key)
    if known is None:
        out = func(*args, **kwargs)
        if _shares(out, (*args, *kwargs.values())):
            _views.add(func)
        else:
            _remember(key, out)
        return out
    alone, outputs = known
    made = [torch.empty_strided(each.shape, each.stride, dtype=each.dtype, device="meta") for each in outputs]
    return made[0] if alone else tuple(made)


@cache
def _makes_anew(func: Any) -> bool:
    """Whether nothing of the operator's is an alias, and all that it returns are tensors."""
    schema = func._schema
    aliases = any(each.alias_info is not None for each in (*schema.arguments, *schema.returns))
    return not aliases and bool(schema.returns) and all(str(each.type) == "Tensor" for each in schema.returns)


def _kind(value: Any) -> Any:
    """What of an argument decides the outputs' shapes: a tensor's own shape, strides and type, any other's value. Raises _Unknown."""
    if type(value) in _PLAIN:
        if value.device.type != "meta":
            raise _Unknown
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_kind, value))
    if isinstance(value, _VALUES):
        return type(value), value
    raise _Unknown


def _storages(value: Any) -> set[int]:
    """Addresses of the storages of a tensor, or of all in a list."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage()._cdata}
    return set().union(*map(_storages, value)) if isinstance(value, (tuple, list)) else set()


def _shares(out: Any, args: Any) -> bool:
    """Whether an output's storage is an argument's."""
    return not _storages(out).isdisjoint(_storages(args))


def _remember(key: Any, out: Any) -> None:
    """Keep what the outputs look like, where each is a whole storage of its own that is as large as it needs to be."""
    alone = isinstance(out, torch.Tensor)
    outputs = (out,) if alone else tuple(out)
    if not all(type(each) is torch.Tensor and each.device.type == "meta" for each in outputs):
        return
    kept = tuple(_Output(tuple(each.shape), each.stride(), each.dtype) for each in outputs)
    again = [torch.empty_strided(each.shape, each.stride, dtype=each.dtype, device="meta") for each in kept]
    if any(each.untyped_storage().nbytes() != other.untyped_storage().nbytes() for each, other in zip(outputs, again, strict=True)):
        return
    if len(_remembered) >= _MOST:
        _remembered.clear()
    _remembered[key] = alone, kept
