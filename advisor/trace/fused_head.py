"""A loss that never holds all logits: the head's product in tiles, made again in backward (TRL from 1.7 on).

Written after TRL 1.16 kernels/chunked_logprob.py and trainer/utils.py `add_fused_lm_head`: the same buffers in the same order, without
the arithmetic.
Liger's and cut cross-entropy's kernels work alike and are traced as this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

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
    loss: Any
    per_token: Any


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


def install(base: Any) -> None:
    """Give the transformers model a forward that returns the loss without logits."""

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

    base.forward = forward
