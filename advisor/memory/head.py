"""Tape of the output head and the loss."""

from __future__ import annotations

from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory.layers import FP32_BYTES, Setting, cast, linear, output_bytes
from advisor.memory.norms import norm
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.values import Linear, Loss, ModelSpec

TILE_TOKENS = 4096
TILE_VOCABULARY = 32768
"""Logits of the chunked loss exist only in tiles of so many tokens and words (TRL 1.16 kernels/chunked_logprob.py
`TOKEN_CHUNK_SIZE`, trainer/utils.py `_CHUNKED_LOGPROB_CHUNK_SIZE`)."""


class Head(NamedTuple):
    tape: Tape
    entry: Tensor
    logits: Size
    """What `outputs.logits` holds; whether it outlives the forward is the loop's affair."""


def head_tape(model: ModelSpec, setting: Setting, loss: Loss) -> Head:
    """Final norm, output head and loss of a decoder that predicts tokens; the setting is that of what stands outside the blocks."""
    if model.output != "tokens":
        raise UnsupportedError(f"{model.id} predicts no tokens ({model.output}); the closed form covers causal language models")
    tape = Tape()
    entry = Tensor(Size(model.hidden_size * setting.stream_bytes), needs_grad=True)
    normed = norm(tape, entry, model.blocks[-1], model.hidden_size, setting)
    logits = _full(tape, normed, model, setting) if loss is Loss.FULL else _tiled(tape, normed, model, setting)
    tape.hold(normed)  # `outputs.last_hidden_state` lives as long as the model's forward
    return Head(tape, entry, logits)


def _full(tape: Tape, normed: Tensor, model: ModelSpec, setting: Setting) -> Size:
    """All logits at once, then `logits.float()`, log-softmax and its backward in fp32 (loss/loss_utils.py `ForCausalLMLoss`)."""
    vocab = model.vocab_size
    head = Linear(name="lm_head", in_features=model.hidden_size, out_features=vocab, bias=model.head_bias)
    logits = linear(tape, normed, head, setting, setting.stream_bytes)
    logits_bytes = output_bytes(setting, setting.stream_bytes, quantized=False)
    size = Size(vocab * logits_bytes)
    if model.scales_logits:
        logits = tape.op((logits,), size)
    if model.softcaps_logits:
        logits = tape.op((logits,), size)  # divided by the cap
        logits = tape.op((logits,), size)
        tape.ops[-1].kept = (logits,)  # tanh keeps its result
        logits = tape.op((logits,), size)
    wide = cast(tape, logits, vocab, logits_bytes, FP32_BYTES)
    log_probabilities = tape.op((wide,), Size(vocab * FP32_BYTES))
    tape.ops[-1].kept = (log_probabilities,)
    tape.op((log_probabilities,), ZERO, keeps=(log_probabilities,))
    tape.hold(logits)
    return size


def _tiled(tape: Tape, normed: Tensor, model: ModelSpec, setting: Setting) -> Size:
    """Logits in tiles that are recomputed in backward, gradients gathered in fp32 (TRL 1.16 kernels/chunked_logprob.py; Liger and
    cut cross-entropy work alike). The tile is counted whole also for batches shorter than it."""
    hidden, e = model.hidden_size, setting.stream_bytes
    tile = Size(constant=TILE_TOKENS * min(TILE_VOCABULARY, model.vocab_size) * setting.compute_bytes)
    scored = tape.op((normed,), Size(hidden * e))  # the positions that have a label
    params = model.vocab_size * hidden
    weight_gradient = params * setting.weight_bytes if setting.trains_base else 0
    wide_gradients = Size(hidden * FP32_BYTES, 0, params * FP32_BYTES if setting.trains_base else 0)
    tape.op((scored,), ZERO, keeps=(scored,), scratch=(tile, tile.plus(wide_gradients)), parameter_gradient_bytes=weight_gradient)
    return ZERO
