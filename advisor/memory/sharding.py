"""What one of several equal cards holds of a plan, by the engine that shares it: replicas, FSDP or ZeRO."""

from __future__ import annotations

from advisor.errors import UnsupportedError
from advisor.memory.gradients import gradient_bytes
from advisor.memory.held import Held
from advisor.memory.loading import fsdp_load, replica_load
from advisor.memory.optimizer import state_bytes, step_temporary_bytes
from advisor.memory.units import shared_adapter_bytes, shared_weights_bytes, trained_share
from advisor.memory.weights import adapter_bytes, scales_bytes, weights_bytes
from advisor.memory.zero import held_by_zero
from advisor.values import DType, Masters, ModelSpec, Optimizer, Plan, Sharding, Stack


def check_engine(plan: Plan) -> None:
    """Raises UnsupportedError where the engine's first optimizer step would stop.

    DoRA calls each adapter matrix twice in a forward pass. Where accelerate lifts FSDP1's flat parameters from 16 bit to fp32 by giving
    them other data (1.15 accelerator.py `prepare_model`), the gradient of such a unit stays whole and in 16 bit, and the optimizer refuses
    it: seen of torch 2.13 with two processes over gloo, and of no other method.
    """
    lifts = plan.sharding is Sharding.FSDP1 and plan.masters is Masters.LIFTED and plan.adapter_dtype is not DType.FP32
    if plan.method.is_dora and lifts:
        raise UnsupportedError(
            f"{plan.sharding.value}: {plan.method.label} with adapters in {plan.adapter_dtype.value} stops at the first optimizer step "
            "under mixed precision (their gradients stay in 16 bit); keep the adapters in fp32, as peft does, or use FSDP2"
        )


HOST_OPTIMIZERS = (Optimizer.ADAMW, Optimizer.ADAMW_FUSED, Optimizer.SGD)
"""Those that step on the host: torch's, for which accelerate puts DeepSpeed's own under ZeRO (1.15 utils/deepspeed.py
`map_pytorch_optim_to_deepspeed`). bitsandbytes' kernels are the card's."""


_OFFLOAD_ACTIVATIONS = (Stack.TRL, Stack.TORCHTUNE)
"""Stacks that have TRL's manager, or the one that it was made from."""


def check_offload(plan: Plan) -> None:
    """Raises UnsupportedError for an optimizer that does not step on the host, and for activations that no setting moves there."""
    if plan.offloads_activations and plan.stack not in _OFFLOAD_ACTIVATIONS:
        raise UnsupportedError(f"offload: {plan.stack.value} has no setting that moves activations to the host; --stack trl has")
    if plan.offloads_activations and not plan.gradient_checkpointing:
        raise UnsupportedError("offload: activations without gradient checkpointing have no closed form; add --checkpointing")
    if plan.offloads_optimizer and plan.optimizer not in HOST_OPTIMIZERS:
        known = ", ".join(each.value for each in HOST_OPTIMIZERS)
        raise UnsupportedError(f"offload: {plan.optimizer.value} does not step on the host; choose one of {known}")


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
    carried = gradients if plan.grad_accum_steps > 1 else 0
    return Held(
        load=replica_load(model, plan, adapter, buckets),
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
    optimizer's step: each unit is resharded when its backward is done. With shards on the host the step is there too."""
    weights, adapter = shared_weights_bytes(model, plan), shared_adapter_bytes(model, plan)
    if plan.offloads_params:
        resting = scales_bytes(model, plan)
        return Held(fsdp_load(model, plan, resting, 0), resting, 0, states_bytes=0, step_gradient_bytes=0, step_temporary_bytes=0)
    return Held(
        load=fsdp_load(model, plan, weights, adapter),
        weights_bytes=weights,
        adapter_bytes=adapter,
        states_bytes=trained_share(model, plan, state_bytes(model, plan)),
        step_gradient_bytes=trained_share(model, plan, gradient_bytes(model, plan)),
        step_temporary_bytes=trained_share(model, plan, step_temporary_bytes(model, plan)),
    )
