"""A training step written down without tensors: which storages an operation makes, keeps for its backward, and frees.

The operations of a block are recorded on a `Tape` in the order in which the library runs them; `forward` and `backward` then walk
the tape and return the moments at which memory peaks. Sizes stay symbolic (`Size`: bytes per token, per token pair, constant), so
that one walk answers for every micro-batch and sequence length.

The rules are those of torch's autograd (torch 2.13): `tools/autograd/derivatives.yaml` says what each operation saves;
`torch/csrc/autograd/engine.cpp` runs nodes latest first and drops a node's saved tensors once it has run;
`torch/csrc/autograd/input_buffer.cpp` sums the gradients of a tensor that is used twice in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from advisor.memory.size import ZERO as ZERO, Size as Size, Sum


class Moment(NamedTuple):
    """What is alive at one instant of a walk: everything, and the part kept for the backward pass."""

    live: Size
    kept: Size


def highest(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Those that can be the largest for some shape, not exceeded in every coefficient by another; in the order in which they came."""
    found: list[Size] = []
    different = dict.fromkeys(sizes)
    for size in sorted(different, reverse=True):  # by bytes per token, so that only those before it can exceed a size
        _, per_pair, constant = size
        for _, other_per_pair, other_constant in found:
            if other_per_pair >= per_pair and other_constant >= constant:
                break
        else:
            found.append(size)
    chosen = set(found)
    return tuple(size for size in different if size in chosen)


class Tensor:
    """A storage. `needs_grad` follows autograd, and says nothing of what is made only to be kept; `size` is ZERO for views of something
    counted elsewhere."""

    __slots__ = ("base", "gradient_size", "last_use", "needs_grad", "size")

    def __init__(self, size: Size, needs_grad: bool = False) -> None:
        self.size = size
        self.gradient_size = size
        self.base: Tensor | None = None
        """The tensor that this one is a view of: it lives, and is kept, for its views."""
        self.needs_grad = needs_grad
        self.last_use = -1
        """Index of the last operation that reads it; -1 for tensors that an operation makes only to keep them."""

    def shares(self, other: Tensor, gradient_size: Size) -> None:
        """Make this a view of the storage of `other`."""
        self.base, self.gradient_size, self.needs_grad = other.base or other, gradient_size, other.needs_grad


class Op:
    """One autograd node."""

    __slots__ = ("aliases", "backward_scratch", "forward_scratch", "inputs", "kept", "output", "parameter_gradient_bytes")

    def __init__(self, inputs: tuple[Tensor, ...], output: Tensor, kept: tuple[Tensor, ...], scratch: tuple[Size, Size]) -> None:
        self.inputs = inputs
        self.output = output
        self.kept = kept
        self.forward_scratch, self.backward_scratch = scratch
        self.aliases = (False,) * len(inputs)
        """Per input: its gradient is the incoming gradient itself (additions, views), so that nothing is allocated for it."""
        self.parameter_gradient_bytes = 0


class Tape:
    """Operations in the order in which they run."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.cached_bytes = 0
        """Copies of parameters that autocast keeps to the end of a forward."""
        self.autocast_ends = -1
        """The first operation after autocast, where it ends before the tape does."""

    def cached(self, size_bytes: int) -> Tensor:
        """A copy of a trained fp32 parameter that autocast makes once in a forward and keeps to its end, whether backward needs it or not
        (torch 2.13 aten/src/ATen/autocast_mode.cpp, `cached_cast`)."""
        self.cached_bytes += size_bytes
        return Tensor(Size(constant=size_bytes))

    def op(
        self,
        inputs: tuple[Tensor, ...],
        size: Size,
        *,
        keeps: tuple[Tensor, ...] = (),
        scratch: tuple[Size, Size] = (ZERO, ZERO),
        aliases: tuple[bool, ...] | None = None,
        parameter_gradient_bytes: int = 0,
    ) -> Tensor:
        """One operation: `keeps` of its inputs (or internals) for backward, `scratch` forward and backward, trains a parameter or not."""
        needs_grad = parameter_gradient_bytes > 0 or any(tensor.needs_grad for tensor in inputs)
        output = Tensor(size, needs_grad)
        kept = tuple(tensor.base or tensor for tensor in keeps) if needs_grad else ()
        op = Op(inputs, output, kept, scratch)
        op.aliases = aliases or op.aliases
        op.parameter_gradient_bytes = parameter_gradient_bytes
        index = len(self.ops)
        for tensor in inputs:
            (tensor.base or tensor).last_use = tensor.last_use = index
        self.ops.append(op)
        return output

    def halves(self, x: Tensor, half: Size) -> tuple[Tensor, Tensor]:
        """`x.chunk(2)`: two views with gradients of `half` each, which are joined when both are there (derivatives.yaml `split.Tensor`)."""
        second = self.op((), ZERO)  # backward runs the latest first: it joins the gradients, and only then the second's is gone
        first = self.op((x,), ZERO)
        for half_of_x in (first, second):
            half_of_x.shares(x, half)
        return first, second

    def in_place(self, x: Tensor, *, keeps: tuple[Tensor, ...]) -> Tensor:
        """An operation whose result overwrites `x`; the gradient that it makes is a tensor of its own."""
        output = self.op((x,), ZERO, keeps=keeps)
        output.shares(x, x.gradient_size)
        return output

    def hold(self, tensor: Tensor) -> None:
        """The Python frame still refers to `tensor` when the latest operation runs."""
        held = tensor.base or tensor
        held.last_use = max(held.last_use, len(self.ops) - 1)


class Walk(NamedTuple):
    """The result of walking a tape once."""

    peaks: tuple[Moment, ...]
    kept: Size
    """What is still alive afterwards besides the output: kept activations after a forward, parameter gradients after a backward."""
    waiting: Size = ZERO
    """Of a backward: the gradients alive when it first needs a kept tensor. A checkpoint recomputes the block at that moment
    (torch/utils/checkpoint.py, `_checkpoint_hook` unpacks lazily)."""
    in_autocast: tuple[Moment, ...] = ()
    """Of a forward: its peaks before autocast ends."""

    def over(self, kept: Size) -> Walk:
        """The same backward with `kept` more alive from its start, until it frees it."""
        return self._replace(peaks=tuple(Moment(live.plus(kept), still_kept.plus(kept)) for live, still_kept in self.peaks))


def _last_saved(tape: Tape) -> int:
    """How many operations a checkpoint runs again before the last tensor is saved, and it stops (torch 2.13 utils/checkpoint.py
    `_StopRecomputationError`). Inputs are saved before an operation makes its output; results and what is made inside after."""
    last = max((index for index, op in enumerate(tape.ops) if op.kept), default=-1)
    saves_inputs = last >= 0 and all(x is not tape.ops[last].output and x.last_use >= 0 for x in tape.ops[last].kept)
    return last if saves_inputs else last + 1


def forward(tape: Tape, entry: Tensor, *, keep: bool, entry_held: bool, stops_early: bool = False) -> Walk:
    """Run the tape forwards from the live tensor `entry`; with `stops_early` only until everything that it keeps is there.

    With `keep` false (inside a checkpointed block, or evaluation) nothing is kept for backward. With `entry_held` somebody else
    holds and counts the entry (a checkpoint); otherwise it dies at its last use like any other tensor, unless it is kept.
    """
    live, kept = Sum(), ZERO
    if not entry_held:
        live.add(entry.size)
    moments: dict[Size, Size] = {}
    in_autocast: dict[Size, Size] = {}
    dying: dict[int, list[Tensor]] = {} if entry_held else {entry.last_use: [entry]}
    counted: set[int] = set()
    end = _last_saved(tape) if stops_early else len(tape.ops)
    for index, op in enumerate(tape.ops):
        in_autocast = dict(moments) if index == tape.autocast_ends else in_autocast
        output = op.output
        live.add(output.size)
        if keep:
            for tensor in op.kept:
                if id(tensor) in counted or (entry_held and tensor is entry):
                    continue
                if tensor.last_use < 0 and tensor is not output:  # made inside the operation only to be kept
                    live.add(tensor.size)
                counted.add(id(tensor))
                kept = kept.plus(tensor.size)
        if index < end:
            moments.setdefault(live.with_scratch(op.forward_scratch), kept)
        dying.setdefault(output.last_use, []).append(output)  # at -1, where nothing reads it: it stays
        for tensor in dying.pop(index, ()):
            # a tensor that a later operation keeps is kept by one of its users, which have all run by its last use
            if not (keep and id(tensor) in counted):
                live.remove(tensor.size)
    return Walk(_peaks(moments), kept, in_autocast=_peaks(in_autocast or moments))


def backward(tape: Tape, kept_size: Size, gradient: Size, *, adds: bool = False) -> Walk:
    """Run the tape backwards from a live output gradient, with everything that `forward(keep=True)` kept alive.

    Ends with the gradient of the entry tensor alive. `Walk.kept` is the total of parameter gradients, which stay. Where it `adds`, each
    goes into that of an earlier micro-batch as soon as it is there (torch/csrc/autograd/functions/accumulate_grad.h, in place).
    """
    keepers = Counter(id(tensor) for op in tape.ops for tensor in op.kept)
    holders: list[int] = [1]
    """Per gradient storage: how many tensors' gradients it is (additions hand their incoming gradient on)."""
    grads: dict[int, tuple[Size, int]] = {id(tape.ops[-1].output): (gradient, 0)}
    """Per tensor: its gradient's size and storage."""
    live, kept, parameter_gradients = Sum(), kept_size, 0
    live.add(kept_size)
    live.add(gradient)
    waiting: Size | None = None
    moments = {live.size(): kept}
    for op in reversed(tape.ops):
        incoming = grads.pop(id(op.output), None)
        if incoming is None:
            continue
        if op.kept and waiting is None:
            waiting = live.size().plus(kept, -1)
        done = [incoming]
        for tensor, alias in zip(op.inputs, op.aliases, strict=True):
            if not tensor.needs_grad:
                continue
            if alias:
                made = incoming
                holders[made[1]] += 1
            else:
                made = tensor.gradient_size, len(holders)
                holders.append(1)
                live.add(tensor.gradient_size)
            if id(tensor) in grads:  # to be summed in place into the gradient that is already there
                done.append(made)
            else:
                grads[id(tensor)] = made
        live.constant += op.parameter_gradient_bytes
        parameter_gradients += op.parameter_gradient_bytes
        moments.setdefault(live.with_scratch(op.backward_scratch), kept)
        live.constant -= op.parameter_gradient_bytes if adds else 0
        for size, storage in done:
            holders[storage] -= 1
            if holders[storage] == 0:
                live.remove(size)
        for tensor in op.kept:
            keepers[id(tensor)] -= 1
            if keepers[id(tensor)] == 0:
                live.remove(tensor.size)
                kept = kept.plus(tensor.size, -1)
    return Walk(_peaks(moments), Size(constant=parameter_gradients), waiting or ZERO)


def _peaks(moments: dict[Size, Size]) -> tuple[Moment, ...]:
    """From what was alive at each instant of a walk, and the part of it that was kept; the first of equal instants."""
    return tuple(Moment(live, moments[live]) for live in highest(moments))
