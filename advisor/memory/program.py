"""The dynamic part of a training step as a list of candidate peaks, symbolic in micro-batch and sequence.

`compile_program` lays the tapes of embedding, blocks, head and loss one after the other, forwards and backwards, as the loop of the
stack runs them. It depends on the model and on the plan's kind, not on the batch, so it is made once and evaluated many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from advisor.memory.attention import Kernel
from advisor.memory.blocks import block_tape
from advisor.memory.head import head_tape
from advisor.memory.layers import Setting
from advisor.memory.tape import ZERO, Size, Walk, backward, forward
from advisor.values import Block, Loss, ModelSpec


@dataclass(frozen=True, slots=True)
class Loop:
    """What the training loop does that memory notices."""

    checkpointing: bool
    accumulates: bool
    """Gradients of earlier micro-batches are there through backward."""
    logits_outlive_forward: bool
    loss: Loss


@dataclass(frozen=True, slots=True)
class Station:
    """A moment that may be the peak: everything alive on top of weights, adapters and states."""

    live: Size
    kept: Size
    """Activations kept for backward, checkpoints included."""
    logits: Size
    """Logits, their fp32 copy, log-probabilities and their gradients."""
    gradient_bytes: int
    """Parameter gradients so far (included in `live`)."""


@dataclass(frozen=True, slots=True)
class Program:
    forward: tuple[Station, ...]
    backward: tuple[Station, ...]
    outlives_backward: Size
    """What the loop still holds when the optimizer steps."""
    head_transients: tuple[Size, ...]
    """Candidates for the highest that head and loss go, above what rests."""
    block_transients: tuple[Size, ...]
    """Candidates for the highest that one block goes in its backward, above what rests."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """The walks of one kind of block."""

    entry: Size
    quiet: Walk
    """Forward that keeps nothing (inside a checkpoint)."""
    keeping: Walk
    back: Walk


@lru_cache(maxsize=256)
def _layer(block: Block, hidden: int, setting: Setting, kernel: Kernel, loop: Loop) -> _Layer:
    tape, entry = block_tape(block, hidden, setting, kernel)
    held = loop.checkpointing
    keeping = forward(tape, entry, keep=True, entry_held=held)
    back = backward(tape, keeping.kept, Size(hidden * setting.stream_bytes))
    quiet = forward(tape, entry, keep=False, entry_held=True) if held else keeping
    return _Layer(entry.size, quiet, keeping, back)


@lru_cache(maxsize=256)
def compile_program(model: ModelSpec, setting: Setting, kernel: Kernel, loop: Loop) -> Program:
    """Candidate peaks of forward and backward. Raises UnsupportedError for parts without a closed form."""
    hidden = model.hidden_size
    kinds = {block.model_copy(update={"count": 1}): None for block in model.blocks}
    layers = {kind: _layer(kind, hidden, setting, kernel, loop) for kind in kinds}
    runs = [(layers[block.model_copy(update={"count": 1})], block.count) for block in model.blocks]
    tape, entry, logits = head_tape(model, setting, loop.loss)
    head_forward = forward(tape, entry, keep=True, entry_held=False)
    head_backward = backward(tape, head_forward.kept, ZERO)
    held_logits = logits if loop.logits_outlive_forward else ZERO
    outlives = held_logits
    if not setting.trains_base and loop.checkpointing and loop.logits_outlive_forward:
        # `enable_input_require_grads` makes the embeddings' output a leaf: it and its gradient live as long as the graph does
        outlives = outlives.plus(entry.size, 2)
    forwards = tuple(_forward_stations(runs, head_forward, loop))
    backwards = tuple(_backward_stations(runs, head_forward, head_backward, held_logits, loop, model, setting))
    blocks = tuple(size for layer, _ in runs for size in _block_transients(layer, loop))
    heads = tuple(moment.live for moment in (*head_forward.peaks, *head_backward.peaks))
    return Program(_front(forwards), _front(backwards), outlives, tuple(set(heads)), tuple(set(blocks)))


def _block_transients(layer: _Layer, loop: Loop) -> Iterator[Size]:
    for moment in layer.back.peaks:
        yield moment.live if loop.checkpointing else moment.live.plus(moment.kept, -1)
    if loop.checkpointing:
        yield from (moment.live for moment in layer.keeping.peaks)


def _resting(layer: _Layer, loop: Loop) -> Size:
    """What one layer leaves behind for its backward: its input alone, or everything it kept."""
    return layer.entry if loop.checkpointing else layer.keeping.kept


def _forward_stations(runs: list[tuple[_Layer, int]], head: Walk, loop: Loop) -> Iterator[Station]:
    behind = ZERO
    for layer, count in runs:
        last = behind.plus(_resting(layer, loop), count - 1)
        held = layer.entry if loop.checkpointing else ZERO
        for moment in layer.quiet.peaks:
            kept = last.plus(held) if loop.checkpointing else last.plus(moment.kept)
            yield Station(last.plus(held).plus(moment.live), kept, ZERO, 0)
        behind = behind.plus(_resting(layer, loop), count)
    for moment in head.peaks:
        yield Station(behind.plus(moment.live), behind, moment.live, 0)


def _backward_stations(
    runs: list[tuple[_Layer, int]], head_forward: Walk, head: Walk, held: Size, loop: Loop, model: ModelSpec, setting: Setting
) -> Iterator[Station]:
    behind = ZERO
    for layer, count in runs:
        behind = behind.plus(_resting(layer, loop), count)
    base = behind.plus(held)
    grads = 0
    for moment in head.peaks:
        yield Station(base.plus(moment.live), behind, moment.live.plus(held), 0)
    grads += head.kept.constant
    for layer, count in reversed(runs):
        for index in (0, count - 1) if count > 1 else (0,):  # the extremes: everything between is linear
            here = behind.plus(_resting(layer, loop), -index)
            before = here.plus(_resting(layer, loop), -1).plus(held)
            done = 0 if loop.accumulates else grads + layer.back.kept.constant * index
            if loop.checkpointing:
                kept_here = here.plus(held, 0)
                for moment in layer.keeping.peaks:  # recomputation, under the incoming gradient
                    live = here.plus(held).plus(layer.back.waiting).plus(moment.live).plus(Size(constant=done))
                    yield Station(live, kept_here.plus(moment.kept), held, done)
            for moment in layer.back.peaks:
                own = layer.entry if loop.checkpointing else ZERO
                live = before.plus(own).plus(moment.live).plus(Size(constant=done))
                kept = here.plus(_resting(layer, loop), -1).plus(own).plus(moment.kept)
                yield Station(live, kept, held, done)
        behind = behind.plus(_resting(layer, loop), -count)
        grads += layer.back.kept.constant * count
    if setting.trains_base:
        embedding = model.embedding_params * setting.weight_bytes
        gradient = Size(model.hidden_size * setting.stream_bytes)
        done = 0 if loop.accumulates else grads
        yield Station(gradient.plus(held).plus(Size(constant=done + embedding)), ZERO, held, done)


def _front(stations: tuple[Station, ...]) -> tuple[Station, ...]:
    """Stations that are the highest for some batch shape."""
    front: list[Station] = []
    for station in stations:
        live = station.live
        if any(all(a >= b for a, b in zip(other.live, live)) for other in front):
            continue
        front = [other for other in front if not all(a >= b for a, b in zip(live, other.live))]
        front.append(station)
    return tuple(front)
