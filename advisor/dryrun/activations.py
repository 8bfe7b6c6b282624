"""Kept activations on the host in a dry run: TRL's own manager, whose host and streams are played."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from advisor.values import Plan


class _OnHost(NamedTuple):
    """A tensor that lies on the host: its size, and nothing on the card."""

    shape: torch.Size
    dtype: torch.dtype

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> None:
        """Takes no memory of the card."""

    def to(self, device: str, non_blocking: bool = False) -> torch.Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=device)


class _Streams:
    """A card's streams, which keep no memory of their own."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self

    @staticmethod
    def stream(stream: Any) -> AbstractContextManager[None]:
        return nullcontext()


class _Torch:
    """torch as TRL's module sees it: the accelerator is the meta device, and tensors for the host are none of torch's."""

    accelerator = SimpleNamespace(current_accelerator=lambda: SimpleNamespace(type="meta"))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def get_device_module(kind: str) -> Any:
        return _Streams()

    @staticmethod
    def empty_like(tensor: torch.Tensor, **settings: Any) -> _OnHost:
        return _OnHost(tensor.shape, tensor.dtype)

    @staticmethod
    def empty(numel: int, *, dtype: torch.dtype, **settings: Any) -> _OnHost:
        return _OnHost(torch.Size((numel,)), dtype)


def _key(tensor: torch.Tensor) -> tuple[int, int, torch.dtype]:
    """Which storage; those of meta tensors have no address."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.dtype


@contextmanager
def on_the_host(model: Any, plan: Plan) -> Iterator[AbstractContextManager[Any]]:
    """What the trainer enters around each micro-batch (trl 1.16 trainer/sft_trainer.py `training_step`)."""
    if not plan.offloads_activations:
        yield nullcontext()
        return
    from trl.models import activation_offloading as trl

    kept = {"torch": trl.torch, "_get_unique_tensor_key": trl._get_unique_tensor_key}
    trl.torch, trl._get_unique_tensor_key = _Torch(), _key
    torch.Tensor.record_stream = lambda tensor, stream: None  # type: ignore[method-assign]
    try:
        yield trl.get_act_offloading_ctx_manager(model=model)
    finally:
        del torch.Tensor.record_stream
        for name, value in kept.items():
            setattr(trl, name, value)
