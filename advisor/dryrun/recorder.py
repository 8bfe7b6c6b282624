"""Records the birth and death of every tensor storage while real library code runs.

A `TorchDispatchMode` sees each operator of forward, backward and optimizer step. Each new storage counts once, views share it, and a weak
reference tells when it dies. What comes out is a stream of events in the order in which a GPU's allocator would see them.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from advisor.dryrun import answers, fake_cards, kernels, meta_outputs
from advisor.dryrun.known import NOTHING, KnownValues
from advisor.dryrun.places import Places
from advisor.memory.runtime import CUBLAS_WORKSPACE_BYTES
from advisor.tape.stream import GIVEN, Birth, Stream
from advisor.values import Phase


class Recorder(TorchDispatchMode):
    """Use as a context around the code to record. `device_type` says whose storages count: "meta" here, "cpu" for a real run."""

    def __init__(self, device_type: str = "meta", padding: bool = False) -> None:
        super().__init__()
        self.device_type = device_type
        self.padding = padding
        self.stream = Stream()
        self.phase = Phase.LOAD
        self.workspace_bytes = CUBLAS_WORKSPACE_BYTES
        """Of one cuBLAS handle."""
        self.places = Places()
        self.known = KnownValues()
        self._live: dict[int, tuple[int, Any]] = {}
        """Storage → its birth (0 while it is empty, or on the host), and what tells of its death."""
        self._last: dict[int, int] = {}
        """Storage → the last birth of one that was emptied."""
        self._hosts: dict[int, str] = {}
        """Storages on the host → whose they are."""
        self._workspaces: set[str] = set()
        self._closed = False

    @property
    def recomputing(self) -> bool:
        """True while a checkpointed block's forward runs again inside backward."""
        return self.phase is Phase.BACKWARD and self.places.in_forward

    def track_gradients(self, model: torch.nn.Module) -> None:
        """Label what ends up in `.grad`."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda held, name=name: self.label(local(held.grad), "gradients", name))

    # -- events -----------------------------------------------------------------------------------------------------------------

    def birth(self, storage: Any, op: str, kind: str = "", owner: str = "") -> None:
        """Count `storage` unless it is known already."""
        key = storage._cdata
        if key in self._live:
            return
        number = self._emit(storage.nbytes(), op, kind, owner)
        self._live[key] = (number, weakref.ref(storage, self._on_death(key)))

    def _emit(self, size_bytes: int, op: str, kind: str = "", owner: str = "") -> int:
        place = self.places.current()
        if place is None:
            place = owner
        stream = self.stream
        stream.births.append(Birth(size_bytes, op, place, self.phase, kind, owner))
        number = len(stream.births)
        stream.add(number, place, self.phase)
        return number

    def _on_death(self, key: int) -> Callable[[Any], None]:
        def died(_: Any) -> None:
            number, _ref = self._live.pop(key)
            self._last.pop(key, None)
            self._hosts.pop(key, None)
            if number and not self._closed:
                self.release(number)

        return died

    def resized(self, storage: Any) -> None:
        """A storage was emptied or filled in place: its death, or a birth under the same key."""
        key = storage._cdata
        number, ref = self._live.get(key, (0, None))
        if self._closed or not (number or key in self._last):
            return
        if number:
            self._last[key] = number
            self.release(number)
        before = self.stream.births[self._last[key] - 1]
        before.kind = before.kind or "weights"
        filled = storage.nbytes() > 0
        self._live[key] = (self._emit(storage.nbytes(), before.op, before.kind, before.owner) if filled else 0, ref)

    def release(self, number: int) -> None:
        """The storage (or kernel buffer) of that number is gone."""
        born = self.stream.births[number - 1]
        place = self.places.current()
        born.died_in, born.died_phase = place or "", self.phase
        self.stream.add(-number, born.owner or born.place if place is None else place, self.phase)

    def temporary(self, size_bytes: int, op: str) -> int:
        """A buffer inside a kernel; give the number back to `release`."""
        return self._emit(size_bytes, op, kind="temporaries")

    def _workspace(self) -> None:
        """cuBLAS takes a workspace at the first product of each thread; autograd's backward runs in a thread of its own."""
        thread = "backward" if self.phase is Phase.BACKWARD else "main"
        if thread not in self._workspaces:
            self._workspaces.add(thread)
            self._emit(self.workspace_bytes, f"cublas workspace ({thread})", "workspace")

    def label(self, tensor: torch.Tensor, kind: str, owner: str = "", op: str = GIVEN) -> None:
        """Say what a storage is for; it is counted first if it is new."""
        if self._closed:
            return
        storage = tensor.untyped_storage()
        self.birth(storage, op, kind, owner)
        number = self._live[storage._cdata][0]
        if number:
            born = self.stream.births[number - 1]
            born.kind, born.owner = kind, owner or born.owner

    def _is_for(self, tensor: torch.Tensor, kind: str) -> None:
        """What a storage is for, where nobody has said it."""
        number = self._live.get(tensor.untyped_storage()._cdata, (0,))[0]
        if number and not self.stream.births[number - 1].kind:
            self.stream.births[number - 1].kind = kind

    def on_host(self, tensor: torch.Tensor, owner: str = "") -> None:
        """The tensor's storage lies on the host: it takes nothing of the card."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._live[key] = 0, weakref.ref(storage, self._on_death(key))
        self._hosts[key] = owner

    def is_on_host(self, tensor: torch.Tensor) -> bool:
        return bool(self._hosts) and tensor.untyped_storage()._cdata in self._hosts

    def arrive(self, tensor: torch.Tensor) -> None:
        """A tensor of the host is copied onto the card, where it is a weight; one that is there stays as it is."""
        owner = self._hosts.get(tensor.untyped_storage()._cdata)
        if owner is not None:
            tensor.data = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
            self.label(tensor, "weights", owner)

    def knows(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._live

    def mark(self, text: str) -> None:
        self.stream.marks.append((len(self.stream.events), text))

    def begin(self, phase: Phase) -> None:
        """What is born and dies from here on belongs to that phase."""
        self.phase = phase

    def close(self) -> Stream:
        """Stop counting; what is born or dies after this is ignored, though hooks on the model may still tell of it."""
        self._closed = True
        self.places.unwatch()
        return self.stream

    # -- the mode ---------------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(each.__name__ == "DTensor" for each in types):
            return NotImplemented  # a wrapper that holds nothing: what it does to its own part of a tensor comes back here
        if self.places.in_forward:
            self.places.remember_node()
        if func in kernels.MATMULS:
            self._workspace()
        inside = [self.temporary(size, f"{func} (inside)") for size in kernels.inside_before(func, args, kwargs)]
        on_meta = self.device_type == "meta"
        out = answers.answer(func, args, kwargs, self.known, self.padding) if on_meta else NOTHING
        if out is NOTHING:
            out = meta_outputs.run(func, args, kwargs) if on_meta else func(*args, **kwargs)
        if on_meta:
            self.known.follow(func, args, kwargs, out)
        self._count(func, out, args)
        for tensor, kind in fake_cards.exchanged(func, args):
            self._is_for(tensor, kind)
        inside += [self.temporary(size, f"{func} (inside)") for size in kernels.inside_after(func, args, kwargs)]
        for number in reversed(inside):
            self.release(number)
        return out

    def _count(self, func: Any, out: Any, args: Any) -> None:
        if isinstance(out, torch.Tensor):
            if self._made_on_host(out, args):
                self.on_host(out, self._hosts[args[0].untyped_storage()._cdata])
            elif out.device.type == self.device_type:
                self.birth(out.untyped_storage(), str(func), owner=self._owner(args[0]) if args else "")
        elif isinstance(out, (tuple, list)):
            listed = bool(args) and isinstance(args[0], (tuple, list)) and len(args[0]) == len(out)
            for index, item in enumerate(out):
                self._count(func, item, (args[0][index],) if listed else args)

    def _made_on_host(self, out: torch.Tensor, args: Any) -> bool:
        """What is computed of a tensor on the host is made there."""
        of_host = bool(args) and isinstance(args[0], torch.Tensor) and self.is_on_host(args[0])
        return of_host and not self.knows(out)

    def _owner(self, value: Any) -> str:
        """Outside of modules and nodes (loading, optimizer step), what is made from a parameter's tensors belongs to that parameter."""
        if self.phase in (Phase.FORWARD, Phase.BACKWARD, Phase.EVALUATION) or not isinstance(value, torch.Tensor):
            return ""
        held = self._live.get(value.untyped_storage()._cdata)
        return self.stream.births[held[0] - 1].owner if held and held[0] else ""


def local(tensor: Any) -> Any:
    """This card's part of a tensor that is shared out (a `DTensor`, whose own storage holds nothing), else the tensor itself."""
    return getattr(tensor, "_local_tensor", tensor)


def collect_garbage() -> None:
    """Free reference cycles now, so that their storages do not die at a random later moment."""
    gc.collect()
