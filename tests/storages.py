"""What torch makes while it runs for real on the processor: a source for what the closed form counts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MADE_INSIDE = ("aten._softmax_backward_data.default",)
"""Operations that make one more tensor like their result on a card, and none here (torch 2.13 ATen/native/cuda/SoftMax.cu)."""


@contextmanager
def storages() -> Iterator[Any]:
    """Bytes of the storages that torch makes meanwhile and that are alive: now, and at most."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):  # type: ignore[misc]
        now_bytes = peak_bytes = 0

        def __init__(self) -> None:
            super().__init__()
            self.held: set[int] = set()

        def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            known = {one.untyped_storage()._cdata for one in tree_leaves((given, named or {})) if isinstance(one, torch.Tensor)}
            made = function(*given, **(named or {}))
            for tensor in (one for one in tree_leaves(made) if isinstance(one, torch.Tensor)):
                storage = tensor.untyped_storage()
                if storage._cdata not in known | self.held:
                    self.held.add(storage._cdata)
                    self.now_bytes += storage.nbytes()
                    self.peak_bytes = max(self.peak_bytes, self.now_bytes)
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
            if str(function) in MADE_INSIDE:
                self.peak_bytes = max(self.peak_bytes, self.now_bytes + made.nbytes)
            return made

        def gone(self, key: int, size_bytes: int) -> None:
            self.held.discard(key)
            self.now_bytes -= size_bytes

    with Live() as live:
        yield live
