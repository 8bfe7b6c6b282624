"""The dynamic part of a training step as a list of candidate peaks, symbolic in micro-batch and sequence.

`compile_program` lays the tapes of embedding, blocks, head and loss one after the other, forwards and backwards, as the loop of the
stack runs them. It depends on the model and on the plan's kind, not on the batch, so it is made once and evaluated many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.memory.attention import Kernel
from advisor.memory.head import Ending
from advisor.memory.layers import FP32_BYTES, Setting
from advisor.memory.tape import ZERO, Size, highest
from advisor.memory.walks import KEPT, Head, Layer, Part, head_of, layer_of
from advisor.values import Block, ModelKind, ModelSpec

STASHED = 5
"""Tensors that wait on the card until their copies to the host are done (trl 1.16 models/activation_offloading.py `max_fwd_stash_size`).
Backward lets go of one when the next layer's has come. The manager keeps the last node that it brought something back for, and with it
the graph: the embeddings' output, which is a leaf where the base is frozen, and its gradient stay until the next backward."""


class Loop(NamedTuple):
    """What the training loop does that memory notices."""

    checkpointing: bool
    accumulates: bool
    """Gradients of earlier micro-batches are there through backward."""
    logits_outlive_forward: bool
    ending: Ending
    offloads: bool = False
    """Checkpoints' inputs go to the host."""
    reentrant: bool = False
    """A reentrant checkpoint holds what the recomputation put out until its backward is done (torch 2.13 utils/checkpoint.py
    `CheckpointFunction.backward`, `outputs`)."""


class Station(NamedTuple):
    """A moment that may be the peak: everything alive on top of weights, adapters and states."""

    live: Size
    kept: Size
    """Activations kept for backward, checkpoints included."""
    logits: Size
    """Logits, their fp32 copy, log-probabilities and their gradients."""
    gradient_bytes: int
    """Parameter gradients so far (included in `live`)."""
    gathered_bytes: int = 0
    """Weights that are whole for the moment only (included in `live`)."""


class Program(NamedTuple):
    forward: tuple[Station, ...]
    backward: tuple[Station, ...]
    outlives_backward: Size
    """What the loop still holds when the optimizer steps."""
    head_transients: tuple[Size, ...]
    """Candidates for the highest that head and loss go, above what rests."""
    block_transients: tuple[Size, ...]
    """Candidates for the highest that one block goes in its backward, above what rests."""


class Step(NamedTuple):
    """Everything that the stations of a step are made from."""

    under: Size
    """What the embeddings keep, less what the first layer of a frozen base does not."""
    runs: tuple[tuple[Layer, int], ...]
    """(kind of block, how many in a row), first layer first."""
    head: Head
    held: Size
    """Logits that the loop keeps through backward."""
    outlives_backward: Size
    embedding_gradient_bytes: int
    waiting_bytes: int
    """The head's gradient where it is tied to the embeddings: it waits through backward for theirs, beside those of earlier
    micro-batches."""
    loop: Loop
    still_there: tuple[Size, int] = (ZERO, 0)
    """Of checkpoints' inputs that go to the host, those that forward has not let go of yet."""
    brought_back: tuple[Size, int] = (ZERO, 0)
    """Of the same, those of other layers that are on the card through backward."""

    def resting(self, layer: Layer) -> Size:
        """What one layer leaves behind for its backward: its input alone, or everything it kept; nothing where that goes to the host."""
        if self.loop.offloads:
            return ZERO
        return layer.entry if self.loop.checkpointing else layer.keeping.kept


Stations = Callable[[Step], Iterable[Station]]


@lru_cache(maxsize=KEPT)
def compile_program(model: ModelSpec, setting: Setting, kernel: Kernel, loop: Loop) -> Program:
    """Candidate peaks of forward and backward on one card. Raises UnsupportedError for parts without a closed form."""
    return program_of(step_of(model, setting, kernel, loop), forward_stations, backward_stations)


def program_of(step: Step, forward: Stations, backward: Stations) -> Program:
    """Those of the moments that can be the highest for some batch."""
    return Program(
        forward=_peaks(forward(step._replace(under=step.under.plus(*step.still_there)))),
        backward=_peaks(backward(step._replace(under=step.under.plus(*step.brought_back)))),
        outlives_backward=step.outlives_backward,
        head_transients=highest(moment.live for moment in (*step.head.forward.peaks, *step.head.backward.peaks)),
        block_transients=highest(size for layer, _ in step.runs for size in _block_transients(layer, step.loop)),
    )


@lru_cache(maxsize=KEPT)
def step_of(model: ModelSpec, setting: Setting, kernel: Kernel, loop: Loop) -> Step:
    """The walks of every part. Raises UnsupportedError for parts without a closed form."""
    kinds = [_layer(Part(_one(block), model.hidden_size, setting, kernel, True), loop) for block in model.shape.blocks]
    head = head_of(model, setting.outside_blocks(), loop.ending)
    held = head.logits if loop.logits_outlive_forward else ZERO
    outlives = held
    if not setting.trains_base and loop.checkpointing and loop.logits_outlive_forward:
        # `enable_input_require_grads` makes the embeddings' output a leaf: it and its gradient live as long as the graph does
        outlives = outlives.plus(head.entry, 2)
    layers, leaf = sum(block.count for block in model.shape.blocks), 0 if setting.trains_base else 1
    if loop.offloads:
        outlives = outlives.plus(kinds[0].entry, 2 * leaf)
    return Step(
        under=_under(model, setting, kernel, loop, kinds[0]),
        runs=tuple(zip(kinds, (block.count for block in model.shape.blocks), strict=True)),
        head=head,
        held=held,
        outlives_backward=outlives,
        embedding_gradient_bytes=_embedding_gradient_bytes(model, setting),
        waiting_bytes=model.shape.embedding_params * setting.weight_bytes if setting.trains_base and model.shape.tied_embeddings else 0,
        loop=loop,
        still_there=(kinds[0].entry, min(STASHED - 1, layers - 1) + leaf) if loop.offloads else (ZERO, 0),
        brought_back=(kinds[0].entry, 1 + leaf) if loop.offloads else (ZERO, 0),
    )


def _layer(part: Part, loop: Loop) -> Layer:
    return layer_of(part, loop.checkpointing, loop.reentrant, loop.accumulates)


def _under(model: ModelSpec, setting: Setting, kernel: Kernel, loop: Loop, first: Layer) -> Size:
    """What the embeddings keep for backward where their output needs a gradient: the mask of their dropout, the input of an encoder's
    norm, and with a frozen base the embeddings themselves, which `enable_input_require_grads` makes a leaf of (peft 0.21
    peft_model.py). Without checkpointing a frozen base's embeddings need none, and the first layer's norm keeps nothing: less than zero.
    """
    frozen = not setting.trains_base
    if frozen and not loop.checkpointing:
        without = _layer(Part(_one(model.shape.blocks[0]), model.hidden_size, setting, kernel, False), loop)
        return without.keeping.kept.plus(first.keeping.kept, -1)
    stream_bytes = model.hidden_size * setting.stream_bytes
    size = Size(model.hidden_size if model.shape.embedding_dropout else 0)
    if model.kind is ModelKind.ENCODER:
        size = size.plus(Size(stream_bytes + 2 * FP32_BYTES))
    if model.shape.embedding_scaled:  # the first layer's input is a tensor of its own
        return size.plus(Size(stream_bytes)) if frozen else size
    return size.plus(Size(stream_bytes)) if frozen and size != ZERO else size


def _embedding_gradient_bytes(model: ModelSpec, setting: Setting) -> int:
    """What is made when backward reaches the embeddings. Tied ones already have the head's gradient, and the sum of the two is a third
    tensor: autograd cannot add in place into the transposed result of a product (torch/csrc/autograd/input_buffer.cpp)."""
    gradient = model.shape.embedding_params * setting.weight_bytes if setting.trains_base else 0
    return 2 * gradient if model.shape.tied_embeddings else gradient


def _one(block: Block) -> Block:
    """The kind of block, whatever its count."""
    return block if block.count == 1 else block.model_copy(update={"count": 1})


def _block_transients(layer: Layer, loop: Loop) -> Iterator[Size]:
    for moment in layer.back.peaks:
        yield moment.live if loop.checkpointing else moment.live.plus(moment.kept, -1)
    if loop.checkpointing:
        yield from (moment.live for moment in layer.keeping.peaks)


def forward_stations(step: Step) -> Iterator[Station]:
    """Moments of forward on one card."""
    behind, cached = step.under, ZERO
    for layer, count in step.runs:
        last = behind.plus(step.resting(layer), count - 1)
        cached = cached.plus(Size(constant=layer.cached_bytes), count)
        held = layer.entry if step.loop.checkpointing else ZERO
        for moment in layer.quiet.peaks:
            kept = last.plus(held) if step.loop.checkpointing else last.plus(moment.kept)
            yield Station(last.plus(held).plus(cached).plus(moment.live), kept, ZERO, 0)
        behind = behind.plus(step.resting(layer), count)
    for moment in step.head.forward.in_autocast if cached != ZERO else ():
        yield Station(behind.plus(cached).plus(moment.live), behind, moment.live, 0)
    for moment in step.head.forward.peaks:
        yield Station(behind.plus(moment.live), behind, moment.live, 0)


def backward_stations(step: Step) -> Iterator[Station]:
    """Moments of backward on one card, whose gradients stay whole."""
    behind = step.under
    for layer, count in step.runs:
        behind = behind.plus(step.resting(layer), count)
    for moment in step.head.backward.peaks:
        yield Station(behind.plus(step.held).plus(moment.live), behind, moment.live.plus(step.held), 0)
    done = step.head.backward.kept.constant
    for layer, count in reversed(step.runs):
        for index in (0, count - 1) if count > 1 else (0,):  # the extremes: everything between is linear
            gradients = step.waiting_bytes if step.loop.accumulates else done + layer.back.kept.constant * index
            before = behind.plus(step.resting(layer), -1 - index)
            yield from layer_stations(step, layer, before, gradients, adds=step.loop.accumulates)
        behind = behind.plus(step.resting(layer), -count)
        done += layer.back.kept.constant * count
    if step.embedding_gradient_bytes:
        gradients = step.waiting_bytes if step.loop.accumulates else done
        live = step.head.entry.plus(step.held).with_constant(gradients + step.embedding_gradient_bytes)
        yield Station(live, ZERO, step.held, gradients)


def layer_stations(step: Step, layer: Layer, before: Size, gradient_bytes: int, *, adds: bool = False) -> Iterator[Station]:
    """One layer's recomputation and backward, with `before` resting for the layers before it. `adds`: its gradients are there already."""
    base = before.plus(step.held).with_constant(gradient_bytes)
    if step.loop.checkpointing:
        before, base = before.plus(layer.entry), base.plus(layer.entry)
        # a reentrant checkpoint recomputes first, when only the gradient of its output is there
        waiting = layer.entry if step.loop.reentrant else layer.back.waiting
        for moment in layer.keeping.peaks:
            yield Station(base.plus(waiting).plus(moment.live), before.plus(moment.kept), step.held, gradient_bytes)
    if step.loop.reentrant:
        base = base.plus(layer.entry)
    for moment in (layer.adding if adds else layer.back).peaks:
        yield Station(base.plus(moment.live), before.plus(moment.kept), step.held, gradient_bytes)


def _peaks(stations: Iterable[Station]) -> tuple[Station, ...]:
    """Stations that are the highest for some batch shape; the first of equal ones."""
    by_size: dict[Size, Station] = {}
    for station in stations:
        by_size.setdefault(station.live, station)
    return tuple(by_size[size] for size in highest(by_size))
