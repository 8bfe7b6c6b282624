"""Walks of the parts of a training step, forwards and backwards, each kept by what it depends on and by nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.memory.attention import Kernel
from advisor.memory.blocks import block_tape
from advisor.memory.head import Ending, head_tape
from advisor.memory.layers import Setting
from advisor.memory.tape import ZERO, Size, Tape, Tensor, Walk, backward, forward
from advisor.values import Block, ModelSpec


class Layer(NamedTuple):
    """The walks of one kind of block."""

    entry: Size
    quiet: Walk
    """Forward that keeps nothing (inside a checkpoint)."""
    keeping: Walk
    back: Walk
    adding: Walk
    """Backward that adds each gradient to an earlier micro-batch's, where the loop accumulates."""
    cached_bytes: int
    """What autocast keeps of it to the end of forward, beside what is kept for backward."""


class Part(NamedTuple):
    """What the tape of one kind of block is written from."""

    block: Block
    hidden: int
    setting: Setting
    kernel: Kernel
    entry_needs_grad: bool


KEPT = 1024
"""Parts whose walks are kept: some thirty megabytes. Judgement: those of a ladder are a hundred, of the page's readers some models'."""


@lru_cache(maxsize=KEPT)
def _recorded(part: Part) -> tuple[Tape, Tensor]:
    return block_tape(part.block, part.hidden, part.setting, part.kernel, entry_needs_grad=part.entry_needs_grad)


@lru_cache(maxsize=KEPT)
def _backward(part: Part, adds: bool) -> Walk:
    """On top of whatever forward kept."""
    return backward(_recorded(part)[0], ZERO, Size(part.hidden * part.setting.stream_bytes), adds=adds)


@lru_cache(maxsize=KEPT)
def layer_of(part: Part, checkpointing: bool, reentrant: bool, accumulates: bool) -> Layer:
    """The walks of one kind of block in a loop of a kind. Raises UnsupportedError for parts without a closed form."""
    tape, entry = _recorded(part)
    keeping = forward(tape, entry, keep=True, entry_held=checkpointing, stops_early=checkpointing and not reentrant)
    quiet = forward(tape, entry, keep=False, entry_held=True) if checkpointing else keeping
    back, adding = (_backward(part, adds).over(keeping.kept) for adds in (False, accumulates))
    return Layer(entry.size, quiet, keeping, back, adding, tape.cached_bytes if checkpointing else 0)


class Head(NamedTuple):
    """The walks of final norm, head and loss."""

    entry: Size
    logits: Size
    forward: Walk
    backward: Walk


@lru_cache(maxsize=KEPT)
def head_of(model: ModelSpec, setting: Setting, ending: Ending) -> Head:
    """Those of head and loss. Raises UnsupportedError for parts without a closed form."""
    tape, entry, logits = head_tape(model, setting, ending)
    walk = forward(tape, entry, keep=True, entry_held=False)
    return Head(entry.size, logits, walk, backward(tape, walk.kept, ZERO))
