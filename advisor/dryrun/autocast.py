"""`torch.autocast` for the meta device, which torch does not offer: the same casts, at the same calls, with the same cache of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from advisor.dryrun.recorder import Recorder

_functional, _Tensor = torch.nn.functional, torch.Tensor

# The lists of aten/src/ATen/autocast_mode.h (torch 2.13, CUDA), as far as language models call them from Python.
LOWER_PRECISION: frozenset[Any] = frozenset(
    {
        _functional.linear,
        _functional.conv1d,
        _functional.conv2d,
        torch.conv1d,
        torch.conv2d,
        torch.matmul,
        _Tensor.matmul,
        _Tensor.__matmul__,
        _Tensor.__rmatmul__,
        torch.mm,
        _Tensor.mm,
        torch.bmm,
        _Tensor.bmm,
        torch.addmm,
        torch.baddbmm,
        torch.einsum,
    }
)
FULL_PRECISION: frozenset[Any] = frozenset(
    {
        _functional.cross_entropy,
        _functional.nll_loss,
        _functional.layer_norm,
        _functional.group_norm,
        _functional.softplus,
        _functional.mse_loss,
        torch.pow,
        _Tensor.pow,
        _Tensor.__pow__,
        torch.rsqrt,
        _Tensor.rsqrt,
        torch.exp,
        _Tensor.exp,
        torch.log,
        _Tensor.log,
        torch.reciprocal,
        torch.logsumexp,
        torch.norm,
    }
)
FULL_PRECISION_RESULT: frozenset[Any] = frozenset(
    {
        _functional.softmax,
        _functional.log_softmax,
        torch.softmax,
        _Tensor.softmax,
        torch.sum,
        _Tensor.sum,
        torch.cumsum,
        _Tensor.cumsum,
        torch.prod,
    }
)
PROMOTED: frozenset[Any] = frozenset({torch.cat, torch.stack, torch.addcmul, torch.tensordot})


class MetaAutocast(TorchFunctionMode):
    """Casts arguments while autocast is on: in the forward pass, and where a block is recomputed inside backward.

    The recorder enters it around each outermost module call, because a function mode does not reach into autograd's backward.
    """

    def __init__(self, recorder: Recorder, dtype: torch.dtype, attention: Callable[..., Any]) -> None:
        super().__init__()
        self.dtype = dtype
        self._recorder = recorder
        self._attention = attention
        self._depth_off = 0
        self._forward = False
        self._cache: dict[int, tuple[Any, Any]] = {}
        self._recomputation = 0

    @property
    def enabled(self) -> bool:
        return not self._depth_off and (self._forward or self._recorder.recomputing)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """The `with torch.autocast(...)` of the loop; its cache of cast weights ends with it."""
        self._forward = True
        try:
            yield
        finally:
            self._forward = False
            self._cache.clear()

    @contextmanager
    def off(self) -> Iterator[None]:
        self._depth_off += 1
        try:
            yield
        finally:
            self._depth_off -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.enabled:
            if func in LOWER_PRECISION or func is self._attention:
                args, kwargs = self._cast(args, self.dtype), self._cast(kwargs, self.dtype)
            elif func in FULL_PRECISION:
                args, kwargs = self._cast(args, torch.float32), self._cast(kwargs, torch.float32)
            elif func in FULL_PRECISION_RESULT and _is_half(args[0]) and kwargs.get("dtype") is None:
                kwargs = {**kwargs, "dtype": torch.float32}
            elif func in PROMOTED:
                args = self._cast(args, _widest(args, self.dtype))
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, torch.Tensor):
            return self._cast_tensor(value, dtype)
        if isinstance(value, (tuple, list)):
            return type(value)(self._cast(item, dtype) for item in value)
        if isinstance(value, dict):
            return {key: self._cast(item, dtype) for key, item in value.items()}
        return value

    def _cast_tensor(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """autocast_mode.cpp, `cached_cast`: 16-bit copies of fp32 leaves that need gradients are kept until autocast ends."""
        if not tensor.is_floating_point() or tensor.dtype in (dtype, torch.float64) or tensor.device.type != "meta":
            return tensor
        cacheable = dtype is self.dtype and tensor.dtype is torch.float32 and tensor.requires_grad and tensor.is_leaf
        if not cacheable:
            return tensor.to(dtype)
        if self._recomputation != self._recorder.places.recomputations:
            self._cache.clear()
            self._recomputation = self._recorder.places.recomputations
        held = self._cache.get(id(tensor))
        if held is None:
            held = self._cache[id(tensor)] = (tensor, tensor.to(dtype))
        return held[1]


def _is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def _widest(args: Any, lower_precision: torch.dtype) -> torch.dtype:
    """fp32 where one of the tensors is, else autocast's own type (torch 2.13 aten/src/ATen/autocast_mode.h, `promote_type`)."""
    tensors = args[0] if isinstance(args[0], (tuple, list)) else [item for item in args if isinstance(item, torch.Tensor)]
    return torch.float32 if any(tensor.dtype is torch.float32 for tensor in tensors) else lower_precision


@contextmanager
def answering(mode: MetaAutocast | None) -> Iterator[None]:
    """Let library code that asks autocast about the meta device, or turns it off there, get an answer."""
    real = (torch.autocast, torch.amp.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype)

    def autocast(device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None) -> Any:
        if device_type != "meta":
            return real[0](device_type, dtype, enabled, cache_enabled)
        return _nothing() if mode is None or enabled else mode.off()

    def is_autocast_enabled(device_type: str = "cuda") -> bool:
        return mode is not None and mode.enabled if device_type in ("meta", "cuda") else real[2](device_type)

    def get_autocast_dtype(device_type: str) -> Any:
        return (mode.dtype if mode else torch.float16) if device_type == "meta" else real[3](device_type)

    torch.autocast = torch.amp.autocast = autocast  # type: ignore[assignment, misc]
    torch.is_autocast_enabled, torch.get_autocast_dtype = is_autocast_enabled, get_autocast_dtype
    try:
        yield
    finally:
        torch.autocast, torch.amp.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype = real  # type: ignore[misc]


@contextmanager
def _nothing() -> Iterator[None]:
    yield
