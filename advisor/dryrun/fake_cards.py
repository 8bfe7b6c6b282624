"""Several cards, of which one is played: a device without streams, a process group without peers, collectives that move nothing.

torch's engines then run as they are on rank 0 of N. Sources are files of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from advisor.dryrun.known import NOTHING

DEVICE = "meta"

KINDS = {"_allgather_base_": "weights", "_reduce_scatter_base_": "gradients", "allreduce_": "gradients"}
"""Collective → what an engine exchanges by it."""


class _Event:
    """An event of a card on which nothing is late."""

    def record(self, stream: Any = None) -> _Event:
        return self

    def wait(self, stream: Any = None) -> None:
        """Nothing to wait for."""

    synchronize = wait

    def query(self) -> bool:
        return True


class CudaStream:
    """A queue of a card's work."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def wait_stream(self, stream: Any) -> None:
        """Nothing to wait for."""

    wait_event = wait_stream

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def record_event(self, event: Any = None) -> _Event:
        return event or _Event()


class _Card:
    """What an engine asks of `torch.cuda`: `torch.meta`, which torch looks up by the name of the device
    (distributed/device_mesh.py `_get_device_handle`, distributed/fsdp/_common_utils.py `_FSDPDeviceHandle`)."""

    Event = _Event

    def __init__(self) -> None:
        self._current = CudaStream()
        self._made = 0

    def Stream(self, *args: Any, **kwargs: Any) -> CudaStream:
        self._made += 1
        return CudaStream(self._made)

    def current_stream(self, device: Any = None) -> CudaStream:
        return self._current

    @contextmanager
    def stream(self, stream: CudaStream | None) -> Iterator[None]:
        before, self._current = self._current, stream or self._current
        try:
            yield
        finally:
            self._current = before

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        """There is one."""

    def device_count(self) -> int:
        return 1

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def synchronize(self, device: Any = None) -> None:
        """Nothing is late."""


@contextmanager
def one_of(cards: int, resized: Callable[[Any], None]) -> Iterator[_Card]:
    """Play rank 0 of `cards` in a fake process group (torch/testing/_internal/distributed/fake_pg.py) while this lasts; `resized` is told
    of every storage that an engine empties or fills, which is how gathered parameters come and go
    (distributed/fsdp/_fully_shard/_fsdp_param.py `alloc_storage`, distributed/utils.py `_alloc_storage`)."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    card, address = _Card(), torch.Tensor.data_ptr

    def data_ptr(tensor: Any) -> int:
        """Meta tensors have none, and all would be the same: FSDP1 tells by it whether a unit is whole (_runtime_utils.py)."""
        return tensor.untyped_storage()._cdata if tensor.device.type == DEVICE else address(tensor)

    with (
        replaced(torch, DEVICE, card),
        replaced(torch.Tensor, "data_ptr", data_ptr),
        replaced(torch.accelerator, "current_stream", card.current_stream),
        resizes_told(DEVICE, resized),
    ):
        dist.init_process_group("fake", rank=0, world_size=cards, store=FakeStore())
        try:
            yield card
        finally:
            dist.destroy_process_group()


@contextmanager
def resizes_told(device_type: str, resized: Callable[[Any], None]) -> Iterator[None]:
    """Tell of every storage on such a device that is resized while this lasts."""
    resize = torch.UntypedStorage.resize_

    def resize_(storage: Any, size: int) -> Any:
        changed = resize(storage, size)
        if storage.device.type == device_type:
            resized(storage)
        return changed

    with replaced(torch.UntypedStorage, "resize_", resize_):
        yield


@contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a module or a class that is another while this lasts."""
    own = name in vars(holder)
    before = vars(holder).get(name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if own:
            setattr(holder, name, before)
        else:
            delattr(holder, name)


def answer(func: Any, args: Any) -> Any:
    """What a collective gives back at once: the tensors that it would have filled, and work that is done. What rank 0 sent to the others
    and reads again (torch/csrc/distributed/c10d/reducer.cpp `sync_bucket_indices`) is what it holds. NOTHING for all else."""
    if func.namespace == "c10d":
        return _collective(func, args)
    read_again = func is torch.ops.aten.copy_.default and args[0].device.type == "cpu" and args[1].device.type == DEVICE
    return args[0] if read_again and dist.is_initialized() else NOTHING


def exchanged(func: Any, args: Any) -> Iterator[tuple[Any, str]]:
    """The tensors of a collective, and what they are for."""
    kind = KINDS.get(func._opname, "") if func.namespace == "c10d" else ""
    for each in args[:2] if kind else ():
        for tensor in each if isinstance(each, (list, tuple)) else (each,):
            if isinstance(tensor, torch.Tensor):
                yield tensor, kind


def _collective(func: Any, args: Any) -> Any:
    from torch._C._distributed_c10d import _create_work_from_future  # type: ignore[attr-defined]

    filled = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
    future: Any = torch.futures.Future()
    future.set_result([each for each in filled if isinstance(each, torch.Tensor)])
    work = _create_work_from_future(future).boxed()
    return work if len(func._schema.returns) == 1 else (args[0], work)
