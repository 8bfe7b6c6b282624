"""Losses other than transformers' own, put in the place of the model's forward.

In tiles: the head's product never holds all logits and is made again in backward. Written after TRL 1.16 kernels/chunked_logprob.py and
trainer/utils.py `add_fused_lm_head`: the same buffers in the same order, without the arithmetic. Liger's and cut cross-entropy's kernels
work alike and are traced as this one.
In place: transformers' loss with a kernel that writes the gradient over the logits, as Liger's is (liger_kernel 0.8.5
ops/cross_entropy.py). The kernel is Triton, and runs on a card alone; what it saves and returns is done here.
In chunks of the output: torchtune 0.6.1 modules/transformer.py `chunked_output` and modules/loss/ce_chunked_output_loss.py, which are
torch code and run here as they are written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from advisor.memory.head import OUTPUT_CHUNKS
from advisor.values import Loss

TILE_TOKENS = 4096
"""TOKEN_CHUNK_SIZE (kernels/chunked_logprob.py)."""
TILE_VOCABULARY = 32768
"""_CHUNKED_LOGPROB_CHUNK_SIZE (trainer/utils.py)."""
STATISTICS = 7
"""fp32 numbers kept per token while the tiles are folded."""
OUTPUTS = 3
"""log-probability, entropy and whether the label is the likeliest token: what SFTTrainer asks for."""


@dataclass(slots=True)
class FusedOutput:
    """What a forward in tiles returns: there are no logits."""

    loss: Any
    per_token: Any


@dataclass(slots=True)
class ChunkedOutput:
    """What a forward in chunks of the output returns."""

    loss: Any
    logits: tuple[Any, ...]


class _TiledLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, dtype: Any) -> Any:
        tokens, device = hidden.shape[0], hidden.device
        statistics = [torch.zeros(tokens, dtype=torch.float32, device=device) for _ in range(STATISTICS)]
        _tiles(hidden, weight, dtype)
        log_z, log_probs, entropy = (statistics[index] + 1.0 for index in range(OUTPUTS))
        ctx.save_for_backward(hidden, weight, log_z, entropy)
        ctx.dtype = dtype
        return log_probs

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        hidden, weight, _log_z, _entropy = ctx.saved_tensors
        wide = [
            torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device) if needed else None
            for tensor, needed in zip((hidden, weight), ctx.needs_input_grad, strict=False)
        ]
        _tiles(hidden, weight, ctx.dtype)
        narrow = [None if grad is None else grad.to(tensor.dtype) for grad, tensor in zip(wide, (hidden, weight), strict=True)]
        return narrow[0], narrow[1], None


def _tiles(hidden: Any, weight: Any, dtype: Any) -> None:
    """One buffer for all tiles; inputs are cast tile by tile where their type differs."""
    tile = torch.empty((min(hidden.shape[0], TILE_TOKENS), TILE_VOCABULARY), dtype=dtype, device=hidden.device)
    for start in range(0, hidden.shape[0], TILE_TOKENS):
        chunk = hidden[start : start + TILE_TOKENS].to(dtype)
        for column in range(0, weight.shape[0], TILE_VOCABULARY):
            piece = weight[column : column + TILE_VOCABULARY].to(dtype)
            torch.mm(chunk, piece.t(), out=tile[: chunk.shape[0], : piece.shape[0]])


class _OverwritingCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Any, labels: Any) -> Any:
        ctx.save_for_backward(logits.detach())
        return torch.zeros(logits.shape[0], dtype=logits.dtype, device=logits.device).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (overwritten,) = ctx.saved_tensors
        return overwritten, None


def _cross_entropy_in_place(logits: Any, labels: Any, *args: Any, **kwargs: Any) -> Any:
    return _OverwritingCrossEntropy.apply(logits, labels)


def install(base: Any, loss: Loss) -> None:
    """Give the transformers model the forward that computes `loss`; nothing is changed for `Loss.FULL`."""
    makers: dict[Loss, Callable[[Any], Any]] = {
        Loss.IN_PLACE: _in_place,
        Loss.CHUNKED_OUTPUT: _in_chunks,
        Loss.CHUNKED: _in_tiles,
        Loss.FUSED: _in_tiles,
    }
    if loss in makers:
        base.forward = makers[loss](base)


def _in_place(base: Any) -> Any:
    """The model's own forward, whose loss calls the kernel for `nn.functional.cross_entropy` (liger_kernel 0.8.5
    transformers/monkey_patch.py, `cross_entropy=True`)."""
    functional, own = torch.nn.functional, base.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        real = functional.cross_entropy
        functional.cross_entropy = _cross_entropy_in_place  # type: ignore[assignment]
        try:
            return own(*args, **kwargs)
        finally:
            functional.cross_entropy = real

    forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    return forward


def _in_chunks(base: Any) -> Any:
    def forward(*args: Any, labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any) -> ChunkedOutput:
        kwargs["use_cache"] = False
        states = base.base_model(*args, **kwargs).last_hidden_state
        head = base.get_output_embeddings()
        logits = tuple(head(chunk) for chunk in states.chunk(OUTPUT_CHUNKS, dim=1))
        del states
        labels = torch.hstack((labels[..., 1:], torch.full_like(labels[..., :1], IGNORED)))
        return ChunkedOutput(_chunked_cross_entropy(logits, labels), logits)

    return forward


IGNORED = -100
"""Label of a token that does not count."""


def _chunked_cross_entropy(logits: tuple[Any, ...], labels: Any) -> Any:
    count = (labels != IGNORED).sum()
    targets = [chunk.reshape(-1) for chunk in labels.chunk(OUTPUT_CHUNKS, dim=1)]
    flat = [chunk.reshape(-1, chunk.size(-1)) for chunk in logits]
    total: Any = 0.0
    for chunk, target in zip(flat, targets, strict=True):
        total = total + torch.nn.functional.cross_entropy(chunk.float(), target, ignore_index=IGNORED, reduction="sum")
    return total / count


def _in_tiles(base: Any) -> Any:
    def forward(*args: Any, labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any) -> FusedOutput:
        kwargs["use_cache"] = False
        states = base.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        mask = labels != -100
        places = torch.zeros(mask.numel(), dtype=torch.int64, device=states.device)
        scored = states.reshape(-1, states.shape[-1]).index_select(0, places)
        head = base.get_output_embeddings()
        device_type = states.device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else states.dtype
        log_probs = _TiledLogProb.apply(scored, head.weight, dtype)
        per_token = log_probs.new_zeros(mask.shape).masked_scatter(mask, log_probs)
        return FusedOutput(-per_token.sum() / num_items_in_batch, per_token)

    return forward
