"""Know the values that a step computes from positions and masks alone, and with them the shapes that depend on values.

A dry run's tensors hold nothing, but what a batch's ids and masks would hold is known, and so is all that is computed of them and of
counted positions: which rows a mask keeps, where a window ends, how many tokens an expert gets. Each storage of such values keeps how
they are computed. The computation runs on the CPU where a shape or a question depends on it, and never otherwise.

Indices that are chosen by scores (a router's `topk`) are taken to be spread evenly over what they choose from, as by a balanced router,
which is what the auxiliary losses of such models aim at (Switch Transformers, arXiv:2101.03961, section 2.2).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch

NOTHING = object()
"""No answer: let the operator run."""

LARGEST_BYTES = 1 << 28
"""Of one tensor's values; those of larger ones count as unknown. Judgement: a dry run is to stay below 2 GiB."""

_FACTORIES = frozenset(("arange", "eye", "full", "linspace", "ones", "scalar_tensor", "tril_indices", "triu_indices", "zeros"))
"""Operators that make values of numbers alone."""
_NUMBERS = {"zeros_like": 0, "new_zeros": 0, "zero_": 0, "ones_like": 1, "new_ones": 1}
"""Operators whose result is that number everywhere, whatever the tensor that they are given."""
_NUMBER_GIVEN = {"full_like": 1, "new_full": 2, "fill_": 1}
"""Such operators → which of their arguments is the number."""
_BY_VALUE = frozenset(("nonzero", "bincount", "_unique2", "unique_consecutive", "unique_dim", "repeat_interleave"))
"""Operators whose result is as large as the values of their arguments say."""
_CHOICES = frozenset(("topk", "sort", "max", "min", "argmax", "argmin"))
"""Operators that choose indices by scores."""


class Lazy:
    """Something that is computed when it is first asked for, and once."""

    __slots__ = ("_compute", "_found")

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute: Callable[[], Any] | None = compute
        self._found: Any = None

    def __call__(self) -> Any:
        if self._compute is not None:
            self._found, self._compute = self._compute(), None
        return self._found


class _Layout:
    """Where a tensor lies in its storage."""

    __slots__ = ("dtype", "offset", "size", "storage_bytes", "stride")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype, self.size, self.stride = tensor.dtype, tuple(tensor.shape), tensor.stride()
        self.offset, self.storage_bytes = tensor.storage_offset(), tensor.untyped_storage().nbytes()

    def view(self, storage: Any) -> torch.Tensor:
        """The tensor in a storage on the CPU."""
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.size, self.stride)

    def fill(self, values: torch.Tensor | float) -> Any:
        """A storage on the CPU in which the tensor has those values."""
        storage = torch.empty(self.storage_bytes, dtype=torch.uint8).untyped_storage()
        view = self.view(storage)
        view.copy_(values) if isinstance(values, torch.Tensor) else view.fill_(values)
        return storage


class KnownValues:
    """The storages of meta tensors whose values are known."""

    def __init__(self) -> None:
        self.spread = False
        """A shape depended on indices that were taken to be spread evenly."""
        self._storages: dict[int, tuple[Lazy, Any]] = {}

    def say(self, tensor: torch.Tensor, values: Callable[[], torch.Tensor]) -> None:
        """Say what a meta tensor that fills its storage holds: what `values` makes on the CPU."""
        layout = _Layout(tensor)
        self._set(tensor, Lazy(lambda: layout.fill(values())))

    def of(self, tensor: Any) -> torch.Tensor | None:
        """The values of a tensor, on the CPU; None where they are not known."""
        held = self._held(tensor)
        try:
            return None if held is None else held()
        except (RuntimeError, IndexError):  # an operator that the CPU lacks for a type, or an index that is out of range
            return None

    def answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operator whose shape, or whose device, asks for values that are known; else NOTHING."""
        name = func._opname
        if name == "index":
            return self._rows_kept(func, *args) if self._storages else NOTHING
        if name == "masked_select":
            mask = self.of(args[1])
            return NOTHING if mask is None else args[0].new_empty(int(mask.expand(args[0].shape).sum()))
        to_cpu = name == "_to_copy" and kwargs.get("device") == torch.device("cpu")
        if not (to_cpu or name in _BY_VALUE) or args[0].device.type != "meta":
            return NOTHING
        known = [self.of(each) if isinstance(each, torch.Tensor) else each for each in args]
        if any(found is None and each is not None for each, found in zip(args, known, strict=True)):
            return NOTHING
        result = func(*known, **kwargs)
        return result if to_cpu else self._on_meta(result)

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Remember of what `out` was computed where all of that is known, and forget what something unknown overwrites."""
        name = func._opname
        number = _NUMBERS.get(name, args[_NUMBER_GIVEN[name]] if name in _NUMBER_GIVEN else None)
        if isinstance(number, (int, float)) and _fills_its_storage(out):
            self.say(out, lambda: torch.tensor(number))
        elif func._schema.is_mutable:
            self._written(func, args, kwargs)
        elif torch.Tag.nondeterministic_seeded in func.tags:
            return
        elif name in _FACTORIES or (self._storages and self._knows_all(args) and any(True for _ in _tensors(args))):
            self._computed(func, args, kwargs, out)
        elif name in _CHOICES:
            self._spread(func, args, kwargs, out)

    # -- what is held -----------------------------------------------------------------------------------------------------------

    def _set(self, tensor: torch.Tensor, values: Lazy) -> None:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" and storage.nbytes() <= LARGEST_BYTES:
            key = storage._cdata
            self._storages[key] = values, weakref.ref(storage, lambda _: self._storages.pop(key, None))

    def _held(self, tensor: Any) -> Lazy | None:
        """The values of a tensor as they are now, whatever becomes of it later."""
        if not isinstance(tensor, torch.Tensor):
            return None
        if tensor.device.type != "meta":
            real = tensor.detach().clone()
            return Lazy(lambda: real)
        held = self._storages.get(tensor.untyped_storage()._cdata)
        if held is None:
            return None
        layout, values = _Layout(tensor), held[0]
        return Lazy(lambda: layout.view(values()))

    def _knows_all(self, values: Any) -> bool:
        return all(each.device.type != "meta" or each.untyped_storage()._cdata in self._storages for each in _tensors(values))

    # -- what follows of what ---------------------------------------------------------------------------------------------------

    def _computed(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        held = _mapped(args, torch.Tensor, self._held)
        on_cpu = {**kwargs, "device": torch.device("cpu")} if "device" in kwargs else kwargs
        results = Lazy(lambda: func(*_mapped(held, Lazy, Lazy.__call__), **on_cpu))
        several = isinstance(out, (tuple, list))
        for index, each in enumerate(out if several else (out,)):
            if isinstance(each, torch.Tensor) and each.untyped_storage()._cdata not in self._storages:  # which a view shares
                self._set(each, Lazy(_part(results, index if several else None, _Layout(each))))

    def _written(self, func: Any, args: Any, kwargs: Any) -> None:
        """An operator in place: its first argument's storage has new values, known ones or not."""
        target, rest = args[0] if args else None, args[1:]
        if torch.Tag.inplace in func.tags and isinstance(target, torch.Tensor) and self._knows_all(rest):
            before = self._storages.get(target.untyped_storage()._cdata)
            held = _mapped(rest, torch.Tensor, self._held)
            if before is not None:
                self._set(target, Lazy(_rewritten(before[0], _Layout(target), func, held, kwargs)))
                return
            if func._opname == "copy_" and _fills_its_storage(target):
                self.say(target, held[0])
                return
        for each in _written_by(func, args):
            self._storages.pop(each.untyped_storage()._cdata, None)

    def _rows_kept(self, func: Any, values: Any, chosen: Any) -> Any:
        """Rows chosen by masks: as many as the masks keep."""
        if not any(map(_is_mask, chosen)):
            return NOTHING
        indices: list[Any] = []
        for each in chosen:
            mask = self.of(each) if _is_mask(each) else None
            if mask is None and _is_mask(each):
                return NOTHING
            indices += [each] if mask is None else [column.to(values.device) for column in mask.nonzero().unbind(1)]
        return func(values, indices)

    def _on_meta(self, result: Any) -> Any:
        """Results on the CPU as meta tensors of known values."""
        if isinstance(result, (tuple, list)):
            return type(result)(self._on_meta(each) for each in result)
        out = torch.empty(result.shape, dtype=result.dtype, device="meta")
        self.say(out, lambda: result)
        return out

    def _spread(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Choices by scores that nobody knows: one class after the other through the rows; of a sort any order."""
        scores, indices = args[0], out[1] if isinstance(out, (tuple, list)) else out
        names = [argument.name for argument in func._schema.arguments]
        place = names.index("dim") if "dim" in names else len(args)
        dim = args[place] if place < len(args) else kwargs.get("dim", -1)
        if dim is None or "dim" not in names or not scores.dim():
            return
        rows = [size for axis, size in enumerate(scores.shape) if axis != dim % scores.dim()]
        each = indices.shape[dim] if indices.dim() == scores.dim() else 1
        self.say(indices, partial(self._chosen_evenly, rows, each, scores.shape[dim], dim, indices.shape))

    def _chosen_evenly(self, rows: list[int], each: int, classes: int, dim: int, shape: tuple[int, ...]) -> torch.Tensor:
        """`each` of the `classes` for every row, their axis at `dim`."""
        self.spread = True
        chosen = torch.arange(math.prod(rows) * each) % classes
        return chosen.reshape(*rows, each).movedim(-1, dim).reshape(shape)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among arguments, and in lists among them."""
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, (tuple, list)):
            yield from _tensors(each)


def _mapped(value: Any, kind: type, of: Callable[[Any], Any]) -> Any:
    """Arguments, and lists among them, with `of` of each that is of a kind."""
    if isinstance(value, kind):
        return of(value)
    return type(value)(_mapped(each, kind, of) for each in value) if isinstance(value, (tuple, list)) else value


def _part(results: Lazy, index: int | None, layout: _Layout) -> Callable[[], Any]:
    return lambda: layout.fill(results() if index is None else results()[index])


def _rewritten(before: Lazy, layout: _Layout, func: Any, held: Any, kwargs: Any) -> Callable[[], Any]:
    def after() -> Any:
        storage = before().clone()
        func(layout.view(storage), *_mapped(held, Lazy, Lazy.__call__), **kwargs)
        return storage

    return after


def _fills_its_storage(tensor: torch.Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _written_by(func: Any, args: Any) -> Iterator[torch.Tensor]:
    """The tensors that an operator writes to."""
    written = (argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)
    return _tensors(each for each, is_written in zip(args, written, strict=False) if is_written)
