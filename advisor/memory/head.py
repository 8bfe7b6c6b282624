"""Tape of the output head and the loss."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures.heads import head_shape
from advisor.memory.layers import FP32_BYTES, Setting, cast, linear, output_bytes
from advisor.memory.norms import norm
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.memory.task_head import task_head
from advisor.values import Head, Linear, Loss, ModelSpec, Shift

TILE_TOKENS = 4096
TILE_VOCABULARY = 32768
"""Logits of the chunked loss exist only in tiles of so many tokens and words (TRL 1.16 kernels/chunked_logprob.py
`TOKEN_CHUNK_SIZE`, trainer/utils.py `_CHUNKED_LOGPROB_CHUNK_SIZE`)."""


OUTPUT_CHUNKS = 8
"""Chunks of tokens of the chunked output (torchtune 0.6.1 modules/loss/ce_chunked_output_loss.py `num_output_chunks`)."""
WHOLE_LOGITS = (Loss.FULL, Loss.IN_PLACE, Loss.CHUNKED_OUTPUT)
"""Losses that need the logits of all tokens."""


class HeadTape(NamedTuple):
    tape: Tape
    entry: Tensor
    logits: Size
    """What `outputs.logits` holds; whether it outlives the forward is the loop's affair."""


class Ending(NamedTuple):
    """How a forward pass ends: what becomes of the logits."""

    loss: Loss = Loss.FULL
    shift: Shift = Shift.LABELS
    converts: bool = False
    """accelerate copies the outputs to fp32 after an autocast forward (accelerate 1.15 utils/operations.py `convert_outputs_to_fp32`)."""


def head_tape(model: ModelSpec, setting: Setting, ending: Ending) -> HeadTape:
    """Final norm, output head and loss; the setting is that of what stands outside the blocks."""
    tape = Tape()
    entry = Tensor(Size(model.hidden_size * setting.stream_bytes), needs_grad=True)
    normed = norm(tape, entry, model.shape.blocks[-1], model.hidden_size, setting) if model.shape.final_norm else entry
    shape = head_shape(model)
    if shape is not None and shape.head is not Head.LM:
        logits = task_head(tape, normed, model, shape, setting)
    elif ending.loss not in WHOLE_LOGITS:
        logits = _tiled(tape, normed, model, setting)
    elif ending.loss is Loss.CHUNKED_OUTPUT:
        logits = _chunked_output(tape, normed, model, setting, ending)
    else:
        logits = _whole(tape, normed, model, setting, ending)
    tape.hold(normed)  # `outputs.last_hidden_state` lives as long as the model's forward
    return HeadTape(tape, entry, logits)


def _whole(tape: Tape, normed: Tensor, model: ModelSpec, setting: Setting, ending: Ending) -> Size:
    """All logits at once and `logits.float()` (transformers 5.23 loss/loss_utils.py `ForCausalLMLoss`), then log-softmax and its
    backward in fp32; or a kernel that writes the gradient over the fp32 logits."""
    vocab = model.vocab_size
    logits, logits_bytes = _logits(tape, normed, model, setting)
    wide = cast(tape, logits, vocab, logits_bytes, FP32_BYTES)
    outputs = wide if ending.shift is Shift.LOGITS_ALONE else logits
    scored = wide if ending.shift is Shift.LABELS else tape.op((wide,), Size(vocab * FP32_BYTES))
    loss = _overwritten(tape, scored) if ending.loss is Loss.IN_PLACE else _log_softmax(tape, scored, vocab * FP32_BYTES)
    tape.hold(wide)
    _end(tape, loss, (outputs,), vocab, logits_bytes if outputs is logits else FP32_BYTES, ending)
    return outputs.size


def _logits(tape: Tape, normed: Tensor, model: ModelSpec, setting: Setting) -> tuple[Tensor, int]:
    """The head's product, scaled and capped as the model does it; and its bytes per element."""
    vocab = model.vocab_size
    head = Linear(name="lm_head", in_features=model.hidden_size, out_features=vocab, bias=model.shape.head_bias)
    logits = linear(tape, normed, head, setting, setting.stream_bytes)
    logits_bytes = output_bytes(setting, setting.stream_bytes, quantized=False)
    size = Size(vocab * logits_bytes)
    if model.shape.scales_logits:
        logits = tape.op((logits,), size)
    if model.shape.softcaps_logits:
        logits = tape.op((logits,), size)  # divided by the cap
        logits = tape.op((logits,), size)
        tape.ops[-1].kept = (logits,)  # tanh keeps its result
        logits = tape.op((logits,), size)
    return logits, logits_bytes


def _log_softmax(tape: Tape, scored: Tensor, size_bytes: int) -> Tensor:
    """`F.cross_entropy`: log-softmax, which keeps its result, and the mean of the labels' entries."""
    log_probabilities = tape.op((scored,), Size(size_bytes))
    tape.ops[-1].kept = (log_probabilities,)
    return tape.op((log_probabilities,), ZERO, keeps=(log_probabilities,))


def _overwritten(tape: Tape, scored: Tensor) -> Tensor:
    """A kernel that saves the logits, and returns them, overwritten, as their gradient (Liger 0.8.5 ops/cross_entropy.py
    `LigerCrossEntropyFunction`; flash-attn `inplace_backward`; FOAK's `Fast_CrossEntropyLoss`).

    So nothing is made for the gradient: the storage is kept until what made the logits has run backward too.
    """
    maker = tape.ops[-1]
    maker.kept = (*maker.kept, scored)
    return tape.op((scored,), ZERO, keeps=(scored,), aliases=(True,))


def _end(tape: Tape, loss: Tensor, outputs: tuple[Tensor, ...], vocab: int, logits_bytes: int, ending: Ending) -> None:
    """The outputs are there until the loop has the loss, and are copied to fp32 where accelerate does that."""
    if ending.converts and logits_bytes != FP32_BYTES:
        tape.autocast_ends = len(tape.ops)
        tape.op(outputs, Size(vocab * FP32_BYTES))
        tape.ops[-1].output.needs_grad = False
    tape.op((loss,), ZERO, aliases=(True,))
    if not ending.converts:
        for tensor in outputs:
            tape.hold(tensor)


def _chunked_output(tape: Tape, normed: Tensor, model: ModelSpec, setting: Setting, ending: Ending) -> Size:
    """The head's product in chunks of tokens, all of them kept by the loop; then an fp32 copy and log-softmax of one chunk after the
    other. Each chunk's log-probabilities are kept for backward (torchtune 0.6.1 modules/transformer.py `chunked_output`,
    modules/loss/ce_chunked_output_loss.py, without torch.compile)."""
    logits_bytes = output_bytes(setting, setting.stream_bytes, quantized=False)
    chunk, wide_bytes = _share(model.vocab_size * logits_bytes), _share(model.vocab_size * FP32_BYTES)
    gradient = model.vocab_size * model.hidden_size * setting.weight_bytes if setting.trains_base else 0
    keeps = (normed,) if setting.trains_base else ()
    chunks = []
    for index in range(OUTPUT_CHUNKS):
        last = index == OUTPUT_CHUNKS - 1  # the first in backward: it makes the weight's gradient, the others add theirs
        scratch = (ZERO, ZERO if last else Size(constant=gradient))
        made = gradient if last else 0
        chunks.append(tape.op((normed,), Size(chunk), keeps=keeps, scratch=scratch, parameter_gradient_bytes=made))
    losses = [_log_softmax(tape, cast(tape, part, _share(model.vocab_size), logits_bytes, FP32_BYTES), wide_bytes) for part in chunks]
    total = tape.op(tuple(losses), ZERO, aliases=(True,) * OUTPUT_CHUNKS)
    _end(tape, total, tuple(chunks), model.vocab_size, logits_bytes, ending)
    return Size(chunk * OUTPUT_CHUNKS)


def _share(whole: int) -> int:
    """One chunk's part, rounded up."""
    return -(-whole // OUTPUT_CHUNKS)


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
