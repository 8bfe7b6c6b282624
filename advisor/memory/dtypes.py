"""Types of what rests and of what is computed, where an engine that shares the model has types of its own."""

from __future__ import annotations

from advisor.values import DType, Masters, Plan, Sharding


def computing(plan: Plan) -> Plan:
    """The plan of one card alone whose step makes the tensors that each card of `plan` makes.

    FSDP under mixed precision gathers a unit's parameters in 16 bit, so that everything from the embeddings on is 16-bit, adapters and
    residual stream too (torch `MixedPrecisionPolicy.param_dtype`; accelerate 1.15 utils/dataclasses.py `set_mixed_precision`; with a
    quantised base under FSDP1 transformers sets it to the type that the 4-bit weights are stored as, 5.23 distributed/fsdp.py
    `update_fsdp_plugin_peft`, which trainer.py calls where the optimizer is made after the wrapping). DeepSpeed casts the model itself
    (0.19 runtime/engine.py `_configure_distributed_model`).
    """
    if not has_own_types(plan):
        return plan
    computed = computed_dtype(plan)
    return plan.model_copy(
        update={"base_dtype": computed, "adapter_dtype": computed, "autocast": False, "autocast_dtype": computed, "kbit_prepare": False}
    )


def has_own_types(plan: Plan) -> bool:
    """Whether the engine, not autocast, decides in which type a card computes."""
    if plan.sharding.is_fsdp:
        return plan.autocast or (plan.quantization is not None and plan.sharding is Sharding.FSDP1)
    return plan.sharding.is_zero and (plan.autocast or plan.masters is Masters.COPIED)


def computed_dtype(plan: Plan) -> DType:
    return plan.autocast_dtype if plan.autocast else plan.base_dtype
