"""Records the birth and death of every tensor storage while real library code runs.

A `TorchDispatchMode` sees each operator of forward, backward and optimizer step. Each new storage counts once, views share it, and a weak
reference tells when it dies. What comes out is a stream of events in the order in which a GPU's allocator would see them.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from advisor.trace import kernels
from advisor.values import Phase

BACKWARD_MARK = "~"
"""Prefix of an event's place when it happened in an autograd node rather than in a module's forward."""


EMPTY_CACHE = "empty_cache"
"""Mark of a `torch.cuda.empty_cache()` call."""


@dataclass(slots=True)
class Birth:
    """One storage: what made it, where, when, and (once known) what it is for."""

    size_bytes: int
    op: str
    place: str
    """Module path; prefixed with `BACKWARD_MARK` when born in an autograd node."""
    phase: Phase
    kind: str = ""
    """weights, adapter, gradients, optimizer_state, workspace, input; empty: told from place and life (`breakdown.term_of`)."""
    owner: str = ""
    """Parameter name, for weights, adapters, gradients and optimizer states."""
    died_in: str = ""
    died_phase: Phase | None = None


@dataclass(slots=True)
class Stream:
    """Births and deaths in order. `events[i]` is +id for a birth and -id for a death; ids count from 1."""

    births: list[Birth] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Where each event happened (module path), parallel to `events`."""
    phases: list[Phase] = field(default_factory=list)
    """Phase of each event, parallel to `events`."""
    marks: list[tuple[int, str]] = field(default_factory=list)
    """(event index, text): step boundaries, `empty_cache` calls."""


class Recorder(TorchDispatchMode):
    """Use as a context around the code to record. `device_type` says whose storages count: "meta" here, "cpu" for a real run."""

    def __init__(self, device_type: str = "meta", padding: bool = False) -> None:
        super().__init__()
        self.device_type = device_type
        self.padding = padding
        self.stream = Stream()
        self.phase = Phase.LOAD
        self._live: dict[int, tuple[int, Any]] = {}
        self.recomputations = 0
        self._names: dict[int, str] = {}
        self._stack: list[str] = [""]
        self._node_places: dict[int, str] = {}
        self._hooks: list[Any] = []
        self._workspaces: set[str] = set()
        self._closed = False

    # -- places -----------------------------------------------------------------------------------------------------------------

    def watch(self, model: torch.nn.Module) -> None:
        """Follow the forward passes of `model`'s modules, so that events can be told apart by module."""
        self._names = {id(module): name for name, module in model.named_modules()}
        self.unwatch()
        register = torch.nn.modules.module
        self._hooks = [
            register.register_module_forward_pre_hook(self._enter),
            register.register_module_forward_hook(self._leave, always_call=True),
        ]

    def track_gradients(self, model: torch.nn.Module) -> None:
        """Label what ends up in `.grad`."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda held, name=name: self.label(held.grad, "gradients", name))

    def unwatch(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def recomputing(self) -> bool:
        """True while a checkpointed block's forward runs again inside backward."""
        return self.phase is Phase.BACKWARD and len(self._stack) > 1

    def _enter(self, module: torch.nn.Module, inputs: Any) -> None:
        if len(self._stack) == 1 and self.phase is Phase.BACKWARD:
            self.recomputations += 1
        self._stack.append(self._names.get(id(module), self._stack[-1]))

    def _leave(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    def place(self) -> str:
        """Module whose forward runs now, or whose autograd node does."""
        if len(self._stack) > 1:
            return self._stack[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return ""
        variable = getattr(node, "variable", None)
        if variable is not None:
            return BACKWARD_MARK
        return BACKWARD_MARK + self._node_places.get(node._sequence_nr(), "")

    # -- events -----------------------------------------------------------------------------------------------------------------

    def birth(self, storage: Any, op: str, kind: str = "", owner: str = "") -> None:
        """Count `storage` unless it is known already."""
        key = storage._cdata
        if key in self._live:
            return
        number = self._emit(storage.nbytes(), op, kind, owner)
        self._live[key] = (number, weakref.ref(storage, self._on_death(key)))

    def _emit(self, size_bytes: int, op: str, kind: str = "", owner: str = "") -> int:
        place = self.place()
        stream = self.stream
        stream.births.append(Birth(size_bytes, op, place, self.phase, kind, owner))
        number = len(stream.births)
        self._event(number, place)
        return number

    def _event(self, signed_id: int, place: str) -> None:
        self.stream.events.append(signed_id)
        self.stream.places.append(place)
        self.stream.phases.append(self.phase)

    def _on_death(self, key: int) -> Callable[[Any], None]:
        def died(_: Any) -> None:
            number, _ref = self._live.pop(key)
            if not self._closed:
                self._die(number)

        return died

    def _die(self, number: int) -> None:
        place = self.place()
        born = self.stream.births[number - 1]
        born.died_in, born.died_phase = place, self.phase
        self._event(-number, place)

    def temporary(self, size_bytes: int, op: str) -> int:
        """A buffer inside a kernel; give the number back to `release`."""
        return self._emit(size_bytes, op, kind="temporaries")

    def _workspace(self) -> None:
        """cuBLAS takes a workspace at the first product of each thread; autograd's backward runs in a thread of its own."""
        thread = "backward" if self.phase is Phase.BACKWARD else "main"
        if thread not in self._workspaces:
            self._workspaces.add(thread)
            self._emit(kernels.CUBLAS_WORKSPACE_BYTES, f"cublas workspace ({thread})", "workspace")

    def release(self, number: int) -> None:
        self._die(number)

    def label(self, tensor: torch.Tensor, kind: str, owner: str = "") -> None:
        """Say what a storage is for; it is counted first if it is new."""
        storage = tensor.untyped_storage()
        self.birth(storage, "given", kind, owner)
        born = self.stream.births[self._live[storage._cdata][0] - 1]
        born.kind, born.owner = kind, owner

    def knows(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._live

    def mark(self, text: str) -> None:
        self.stream.marks.append((len(self.stream.events), text))

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def close(self) -> Stream:
        """Stop counting; deaths after this are ignored."""
        self._closed = True
        self.unwatch()
        return self.stream

    # -- the mode ---------------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = self._answer(func, args)
        if answer is not None:
            return answer
        if len(self._stack) > 1 and torch.is_grad_enabled():
            self._node_places.setdefault(torch.autograd._get_sequence_nr() - 1, self._stack[-1])
        if func in kernels.MATMULS:
            self._workspace()
        before = [self.temporary(size, f"{func} (inside)") for size in kernels.inside_before(func, args, kwargs)]
        out = func(*args, **kwargs)
        self._count(func, out)
        for size in kernels.inside_after(func, args, kwargs):
            before.append(self.temporary(size, f"{func} (inside)"))
        for number in reversed(before):
            self.release(number)
        return out

    def _count(self, func: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            if out.device.type == self.device_type:
                self.birth(out.untyped_storage(), str(func))
        elif isinstance(out, (tuple, list)):
            for item in out:
                self._count(func, item)

    def _answer(self, func: Any, args: Any) -> Any:
        """What a meta tensor cannot say: yes to every question but "is nothing padded?" in a padded batch."""
        if self.device_type != "meta":
            return None
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            if args[0].dtype is torch.bool:
                return not (self.padding and _asked_by_mask_code())
            return 1 if not args[0].dtype.is_floating_point else 1.0
        if func is torch.ops.aten.histc.default and not args[0].dtype.is_floating_point:
            return torch.empty(args[1], dtype=args[0].dtype, device="meta")
        return None


_MASK_MODULES = ("transformers.masking_utils", "transformers.modeling_attn_mask_utils")
_FRAMES_TO_SEARCH = 12
"""Depth to which the asking function is searched; the mask code asks within a few frames."""


def _asked_by_mask_code() -> bool:
    frame = sys._getframe(2)
    for _ in range(_FRAMES_TO_SEARCH):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") in _MASK_MODULES:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def collect_garbage() -> None:
    """Free reference cycles now, so that their storages do not die at a random later moment."""
    gc.collect()
