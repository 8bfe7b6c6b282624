"""What one of several equal cards holds of a plan, by the engine that shares it: replicas, FSDP or ZeRO."""

from __future__ import annotations

from advisor.memory.gradients import gradient_bytes
from advisor.memory.held import Held, loaded_beside
from advisor.memory.optimizer import state_bytes, step_temporary_bytes
from advisor.memory.params import model_tensors
from advisor.memory.units import shared_adapter_bytes, shared_weights_bytes, trained_share
from advisor.memory.weights import adapter_bytes, load_extra_bytes, scales_bytes, weights_bytes
from advisor.memory.zero import held_by_zero
from advisor.units import MIB
from advisor.values import ModelSpec, Plan, Sharding, Term

BROADCAST_BUCKET_BYTES = 250 * MIB
"""Of which DDP sends the weights to the other cards when it wraps the model (torch 2.13 nn/parallel/distributed.py,
`broadcast_bucket_size`): each is a flat copy."""


def held(model: ModelSpec, plan: Plan) -> Held:
    """What one card of `plan` holds."""
    if plan.sharding.is_fsdp:
        return _held_by_fsdp(model, plan)
    if plan.sharding.is_zero:
        return held_by_zero(model, plan)
    return _replica(model, plan)


def _replica(model: ModelSpec, plan: Plan) -> Held:
    """Everything whole; DDP adds its reduction buckets, a second copy of the gradients (torch/nn/parallel/distributed.py,
    `gradient_as_bucket_view=False`)."""
    weights, adapter, gradients = weights_bytes(model, plan), adapter_bytes(model, plan), gradient_bytes(model, plan)
    buckets = gradients if plan.sharding is Sharding.DDP else 0
    exchange = min(weights + adapter, BROADCAST_BUCKET_BYTES) if plan.sharding is Sharding.DDP else 0
    carried = gradients if plan.grad_accum_steps > 1 else 0
    return Held(
        load=((Term.WEIGHTS, weights), *loaded_beside(load_extra_bytes(model, plan), adapter, exchange)),
        weights_bytes=weights,
        adapter_bytes=adapter,
        states_bytes=state_bytes(model, plan),
        step_gradient_bytes=gradients + buckets,
        step_temporary_bytes=step_temporary_bytes(model, plan),
        forward_bytes=carried + buckets,
        backward_bytes=carried + buckets,
    )


def _held_by_fsdp(model: ModelSpec, plan: Plan) -> Held:
    """A share of everything; what is gathered and reduced is in the stations of `memory.fsdp`. Nothing is gathered in the
    optimizer's step: each unit is resharded when its backward is done."""
    weights, adapter = shared_weights_bytes(model, plan), shared_adapter_bytes(model, plan)
    return Held(
        load=_fsdp_load(model, plan, weights, adapter),
        weights_bytes=weights,
        adapter_bytes=adapter,
        states_bytes=trained_share(model, plan, state_bytes(model, plan)),
        step_gradient_bytes=trained_share(model, plan, gradient_bytes(model, plan)),
        step_temporary_bytes=trained_share(model, plan, step_temporary_bytes(model, plan)),
    )


def _fsdp_load(model: ModelSpec, plan: Plan, weights: int, adapter: int) -> tuple[tuple[Term, int], ...]:
    """Quantised weights are made on the card, so that each card holds the whole model before it is sharded, and its share of it after
    (transformers 5.23 quantizers/quantizer_bnb_4bit.py `update_device_map`; accelerate 1.15 utils/fsdp_utils.py "VRAM spike").
    Others stay on the host, or on the meta device, and come unit by unit: the largest whole one is a matrix of the vocabulary or of a
    layer (`_fully_shard/_fsdp_init.py` `_move_states_to_device`)."""
    if plan.quantization is not None:
        whole = weights_bytes(model, plan)
        shards = -(-(whole - scales_bytes(model, plan)) // plan.n_gpus)
        return ((Term.WEIGHTS, whole), *loaded_beside(load_extra_bytes(model, plan), adapter, shards))
    largest = max(group.numel for group in model_tensors(model)) * plan.base_dtype.size_bytes
    return ((Term.WEIGHTS, weights), (Term.ADAPTER, adapter), (Term.TEMPORARIES, largest))
