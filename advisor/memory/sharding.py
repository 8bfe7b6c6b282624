"""What several equal cards change: a plain division, and what has to be whole for a moment.

FSDP full shard and ZeRO-3 (ZeRO, section 5; torch/distributed/fsdp, "FULL_SHARD") split weights, gradients and states evenly and
gather one unit at a time, the next one ahead. DDP keeps everything whole and adds its reduction buckets.
"""

from __future__ import annotations

from advisor.memory.gradients import gradient_bytes
from advisor.memory.weights import block_weights_bytes, weights_bytes
from advisor.units import MIB
from advisor.values import ModelSpec, Plan, Sharding

GATHERED_UNITS = 2
"""The unit at work and the one prefetched for it (torch FSDP `backward_prefetch=BACKWARD_PRE`, the default)."""

BROADCAST_BUCKET_BYTES = 250 * MIB
"""Of which DDP sends the weights to the other cards when it wraps the model (torch 2.13 nn/parallel/distributed.py,
`broadcast_bucket_size`): each is a flat copy."""


def share(size_bytes: int, plan: Plan) -> int:
    """One card's part of what is sharded."""
    return -(-size_bytes // plan.n_gpus) if plan.sharding.shards_weights else size_bytes


def gathered_bytes(model: ModelSpec, plan: Plan) -> int:
    """Whole weights on every card while it computes: two layers, and the root unit (embeddings, head, final norm), which stays
    gathered from forward to the end of backward."""
    if not plan.sharding.shards_weights:
        return 0
    layers = [block_weights_bytes(block, plan) for block in model.blocks]
    root = weights_bytes(model, plan) - sum(size * block.count for size, block in zip(layers, model.blocks, strict=True))
    return root + GATHERED_UNITS * max(layers)


def bucket_bytes(model: ModelSpec, plan: Plan) -> int:
    """DDP's reduction buckets: a second copy of the gradients (torch/nn/parallel/distributed.py, `gradient_as_bucket_view=False`)."""
    return gradient_bytes(model, plan) if plan.sharding is Sharding.DDP else 0


def first_exchange_bytes(plan: Plan, held_bytes: int) -> int:
    """What wrapping the model takes for a moment."""
    return min(held_bytes, BROADCAST_BUCKET_BYTES) if plan.sharding is Sharding.DDP else 0
