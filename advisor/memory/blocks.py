"""Tape of a whole layer: norms, attention, feed-forward and the residual path."""

from __future__ import annotations

from advisor.memory.attention import Kernel, attention
from advisor.memory.feed_forward import feed_forward
from advisor.memory.layers import Setting, dropout
from advisor.memory.norms import norm
from advisor.memory.tape import Size, Tape, Tensor
from advisor.values import Block


def block_tape(block: Block, hidden: int, setting: Setting, kernel: Kernel, *, entry_needs_grad: bool = True) -> tuple[Tape, Tensor]:
    """One layer, from its input hidden states (the second result) to its output."""
    tape = Tape()
    entry = Tensor(Size(hidden * setting.stream_bytes), needs_grad=entry_needs_grad)
    if block.norm_placement == "parallel":
        _parallel(tape, entry, block, hidden, setting, kernel)
        return tape, entry
    before = block.norm_placement in ("pre", "both")
    after = block.norm_placement in ("post", "both")
    x = entry
    for half in ("attention", "feed_forward"):
        y = norm(tape, x, block, hidden, setting) if before else x
        y = attention(tape, y, block, setting, kernel) if half == "attention" else feed_forward(tape, y, block, setting)
        if block.residual_dropout == "both" or (block.residual_dropout == "mlp" and half == "feed_forward"):
            y = dropout(tape, y, hidden, setting.stream_bytes)
        made = y
        if after:
            y = norm(tape, y, block, hidden, setting)
            tape.hold(made)  # its name is given to the normed
            made = y
        if block.scales_residual:
            y = tape.op((y,), Size(hidden * setting.stream_bytes))
        x = _add(tape, x, y, hidden, setting)
        tape.hold(made)
    return tape, entry


def _parallel(tape: Tape, entry: Tensor, block: Block, hidden: int, setting: Setting, kernel: Kernel) -> None:
    """Attention and feed-forward side by side on the same input (GPT-NeoX, Cohere, Phi)."""
    normed = norm(tape, entry, block, hidden, setting)
    attended = attention(tape, normed, block, setting, kernel)
    if block.norms > 1:
        normed = norm(tape, entry, block, hidden, setting)
    fed = feed_forward(tape, normed, block, setting)
    _add(tape, _add(tape, attended, fed, hidden, setting), entry, hidden, setting)
    for local in (attended, fed):
        tape.hold(local)


def _add(tape: Tape, x: Tensor, y: Tensor, hidden: int, setting: Setting) -> Tensor:
    return tape.op((x, y), Size(hidden * setting.stream_bytes), aliases=(True, True))
