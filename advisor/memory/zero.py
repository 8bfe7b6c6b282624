"""What one card holds under DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5).

Sources are files of DeepSpeed 0.19.8 under deepspeed/runtime/zero.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.memory.dtypes import computing
from advisor.memory.held import Held
from advisor.memory.optimizer import FP32_BYTES, state_bytes, step_temporary_bytes
from advisor.memory.params import model_tensors, trainable_params
from advisor.memory.weights import adapter_bytes, load_extra_bytes, scales_bytes, weights_bytes
from advisor.values import Masters, ModelSpec, Plan, Sharding, Stack, Term

REDUCE_BUCKET_PARAMS = 500_000_000
"""Stages 1 and 2: gradients are copied into a bucket of so many elements, made whole (config.py `reduce_bucket_size`, stage_1_and_2.py
`backward_prologue`)."""
LIVE_PARAMS = 1_000_000_000
"""Stage 3 keeps up to so many parameters gathered while they are used again soon (config.py `max_live_parameters`,
`max_reuse_distance`; partitioned_param_coordinator.py `release_sub_module`)."""
SUB_GROUP_PARAMS = 1_000_000_000
"""Stage 3 steps on so many parameters at a time (config.py `sub_group_size`)."""
LOADS_ON_THE_CARD = (Stack.LLAMAFACTORY,)
"""Stacks that load, and lift, the model on the card before DeepSpeed casts it (llamafactory 0.9.5 model/patcher.py: device_map is the
current card unless ZeRO-3 or FSDP is on); the Trainer's others leave it to the engine, which casts first
(transformers 5.23 trainer.py `place_model_on_device`)."""


def held_by_zero(model: ModelSpec, plan: Plan) -> Held:
    """What one card of `plan` holds under its stage."""
    return _stage_3(model, plan) if plan.sharding is Sharding.ZERO3 else _stage_1_or_2(model, plan)


class _Trained(NamedTuple):
    """One card's part of what is trained."""

    flat_bytes: int
    """Parameters, or their gradients, in the type that the card computes in."""
    masters_bytes: int
    """The fp32 copy, or the fp32 gradients that are made for it."""
    states_bytes: int
    foreach_bytes: int
    """Temporaries of the optimizer."""


def _trained(model: ModelSpec, plan: Plan) -> _Trained:
    params, cards = trainable_params(model, plan), plan.n_gpus
    copied = plan.masters is Masters.COPIED
    return _Trained(
        flat_bytes=-(-params * _computed_bytes(plan) // cards),
        masters_bytes=-(-params * FP32_BYTES // cards) if copied else 0,
        states_bytes=-(-state_bytes(model, plan) // cards),
        foreach_bytes=-(-step_temporary_bytes(model, plan) // cards),
    )


def _computed_bytes(plan: Plan) -> int:
    """Bytes of a trained parameter as the card computes with it."""
    computed = computing(plan)
    return computed.adapter_dtype.size_bytes if plan.method.has_adapter else computed.base_dtype.size_bytes


def _stage_1_or_2(model: ModelSpec, plan: Plan) -> Held:
    """Weights whole, in one flat tensor per group (stage_1_and_2.py `bit16_groups_flat`); masters and moments of one's own part
    (`single_partition_of_fp32_groups`); frozen parameters are in no group.

    Stage 1 keeps whole gradients to the end of an accumulation, stage 2 its own part from the first micro-batch on
    (`averaged_gradients`). The step flattens that part and makes it fp32 (`step`, `flatten_dense_tensors_aligned`), and frees both
    16-bit tensors before the optimizer makes its temporaries.
    """
    computed, trained = computing(plan), _trained(model, plan)
    weights, adapter = weights_bytes(model, computed), adapter_bytes(model, computed)
    whole = trainable_params(model, plan) * _computed_bytes(plan)
    bucket = REDUCE_BUCKET_PARAMS * _computed_bytes(plan)
    first = plan.sharding is Sharding.ZERO1
    carried = (whole if first else trained.flat_bytes) if plan.grad_accum_steps > 1 else 0
    return Held(
        load=_whole_load(model, plan, (weights, adapter), whole),
        weights_bytes=weights,
        adapter_bytes=adapter,
        states_bytes=trained.masters_bytes + trained.states_bytes,
        step_gradient_bytes=trained.flat_bytes,
        step_temporary_bytes=max(
            trained.flat_bytes + trained.masters_bytes, trained.masters_bytes + trained.foreach_bytes - trained.flat_bytes
        ),
        forward_bytes=carried,
        backward_bytes=carried + bucket,
        gradient_cards=1 if first else plan.n_gpus,
    )


def _whole_load(model: ModelSpec, plan: Plan, held: tuple[int, int], flat: int) -> tuple[tuple[Term, int], ...]:
    """Weights and their flat copy together; before that, on some stacks, the weights in the type that they are loaded in."""
    weights, adapter = held
    loaded = weights_bytes(model, plan) + adapter_bytes(model, plan)
    if plan.stack in LOADS_ON_THE_CARD and loaded > weights + adapter + flat:
        return ((Term.WEIGHTS, loaded - adapter), (Term.ADAPTER, adapter))
    extra = load_extra_bytes(model, plan)
    return ((Term.WEIGHTS, weights), (Term.ADAPTER, adapter), (Term.TEMPORARIES, max(flat, extra)))


def _stage_3(model: ModelSpec, plan: Plan) -> Held:
    """Weights in parts (stage3.py `lp_param_buffer`), gradients in a buffer that is always there (`grad_partitions_flat_buffer`),
    masters and moments in parts, one bucket of hidden size squared (transformers 5.23 integrations/deepspeed.py, `auto`).

    Gathered: up to `LIVE_PARAMS`, and no less than the largest tensor. The step works group by group.
    """
    computed, trained, cards = computing(plan), _trained(model, plan), plan.n_gpus
    scales = scales_bytes(model, plan)
    whole = weights_bytes(model, computed) - scales
    element = computed.base_dtype.size_bytes
    largest = max(group.numel for group in model_tensors(model)) * element
    adapter, bucket = -(-adapter_bytes(model, computed) // cards), model.hidden_size**2 * element
    part = min(1.0, SUB_GROUP_PARAMS / max(1, -(-trainable_params(model, plan) // cards)))
    load: tuple[tuple[Term, int], ...] = ((Term.WEIGHTS, -(-whole // cards) + scales), (Term.TEMPORARIES, largest))
    if plan.quantization is not None:  # not built under `zero.Init` (transformers 5.23 modeling_utils.py `get_init_context`)
        extra = load_extra_bytes(model, plan)
        load = ((Term.WEIGHTS, whole + scales), (Term.ADAPTER, adapter), (Term.TEMPORARIES, max(extra, -(-whole // cards))))
    return Held(
        load=load,
        weights_bytes=-(-whole // cards) + scales,
        adapter_bytes=adapter,
        states_bytes=trained.masters_bytes + trained.states_bytes,
        step_gradient_bytes=trained.flat_bytes + bucket,
        step_temporary_bytes=int((trained.masters_bytes + trained.foreach_bytes) * part),
        gathered_bytes=min(whole, max(LIVE_PARAMS * element, largest)),
        forward_bytes=trained.flat_bytes + bucket,
        backward_bytes=trained.flat_bytes + bucket,
        gradient_cards=0,
    )
