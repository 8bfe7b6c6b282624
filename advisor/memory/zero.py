"""What one card holds under DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5).

Sources are files of DeepSpeed 0.19.8 under deepspeed/runtime/zero; tests/test_zero.py holds its own steps beside this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.memory.dtypes import computing
from advisor.memory.held import Held
from advisor.memory.optimizer import FP32_BYTES, state_bytes, step_temporary_bytes
from advisor.memory.params import adapter_tensors_in_order, model_tensors, trainable_params, trainable_tensors
from advisor.memory.weights import adapter_bytes, load_extra_bytes, scales_bytes, weights_bytes
from advisor.values import Masters, Method, ModelSpec, Plan, Sharding, Stack, Term

REDUCE_BUCKET_PARAMS = 500_000_000
"""Elements that are reduced at once in stages 1 and 2 where nobody says (config.py `reduce_bucket_size`); in stage 3 it is what the
Trainer fills in for `auto`, the hidden size squared (transformers 5.23 integrations/deepspeed.py)."""
PREFETCH_SHARE = 0.9
"""Of the hidden size squared: stage 3's `prefetch_bucket_size` as the Trainer fills it in (ibid.)."""
NORM_BYTES = 8
"""Of a gradient's element while its norm is taken (utils.py `get_norm_dtype`)."""
LOADS_ON_THE_CARD = (Stack.LLAMAFACTORY,)
"""Stacks that load, and lift, the model on the card before DeepSpeed casts it (llamafactory 0.9.5 model/patcher.py: device_map is the
current card unless ZeRO-3 or FSDP is on); the Trainer's others leave it to the engine, which casts first
(transformers 5.23 trainer.py `place_model_on_device`)."""


def held_by_zero(model: ModelSpec, plan: Plan) -> Held:
    """What one card of `plan` holds under its stage."""
    return _stage_3(model, plan) if plan.sharding is Sharding.ZERO3 else _stage_1_or_2(model, plan)


class Trained(NamedTuple):
    """One card's part of what is trained, and the largest of it."""

    flat_bytes: int
    """Parameters, or their gradients, in the type that the card computes in."""
    gradient_bytes: int
    """Gradients in the type that they are accumulated in."""
    masters_bytes: int
    """The fp32 copy, or the fp32 gradients that are made for it."""
    states_bytes: int
    foreach_bytes: int
    """Temporaries of the optimizer."""
    largest_bytes: int
    """The largest trained tensor, whole."""
    largest_norm_bytes: int
    """A copy of its part in the type that norms are taken in."""
    element_bytes: int
    """A parameter in the type that the card computes in."""


def trained_part(model: ModelSpec, plan: Plan) -> Trained:
    """One card's part under ZeRO."""
    params, cards, element = trainable_params(model, plan), plan.n_gpus, computed_bytes(plan)
    copied = plan.masters is Masters.COPIED
    largest = max((group.numel for group in trainable_tensors(model, plan)), default=0)
    part = -(-params // cards)
    within = -(-largest // cards) if plan.sharding is Sharding.ZERO3 else min(largest, part)
    return Trained(
        flat_bytes=part * element,
        gradient_bytes=part * (FP32_BYTES if plan.deepspeed.fp32_gradients else element),
        masters_bytes=part * FP32_BYTES if copied else 0,
        states_bytes=-(-state_bytes(model, plan) // cards),
        foreach_bytes=-(-step_temporary_bytes(model, plan) // cards),
        largest_bytes=largest * element,
        largest_norm_bytes=within * NORM_BYTES,
        element_bytes=element,
    )


def reduced_part_bytes(model: ModelSpec, plan: Plan) -> int:
    """The largest of the buffers that the cards reduce their own gradients into: every tensor of which a card has a part is there whole
    (stage_1_and_2.py `copy_grads_in_partition`, `total_size`). Tensors lie in the order of the model."""
    numels = list(in_order(model, plan))
    part = -(-sum(numels) // plan.n_gpus)
    element = FP32_BYTES if plan.deepspeed.fp32_gradients else computed_bytes(plan)
    held: dict[int, int] = {}
    start = 0
    for numel in numels:
        for card in range(start // part, (start + numel - 1) // part + 1):
            held[card] = held.get(card, 0) + numel
        start += numel
    return max(held.values(), default=0) * element


def in_order(model: ModelSpec, plan: Plan) -> Iterator[int]:
    """Elements of the trained tensors, layer by layer. Vectors are left out: they are in a group of their own (transformers 5.23
    trainer.py `get_decay_parameter_names`), and small."""
    if plan.method is not Method.FULL:
        for group in adapter_tensors_in_order(model, plan):
            yield from [group.numel] * group.copies
        return
    yield model.shape.embedding_params
    for block in model.shape.blocks:
        layer = [linear.in_features * linear.out_features for linear in block.linears for _ in range(linear.copies)]
        yield from layer * block.count
    if model.shape.head_params:
        yield model.shape.head_params


def computed_bytes(plan: Plan) -> int:
    """Bytes of a trained parameter as the card computes with it."""
    computed = computing(plan)
    return computed.adapter_dtype.size_bytes if plan.method.has_adapter else computed.base_dtype.size_bytes


def buckets_bytes(model: ModelSpec, plan: Plan) -> int:
    """What gradients are copied into to be reduced, always made whole: in stages 1 and 2 a second one where reduction runs beside
    backward (stage_1_and_2.py `setup_buckets`)."""
    stated = plan.deepspeed.reduce_bucket_params
    if plan.sharding is Sharding.ZERO3:
        return (stated or model.hidden_size**2) * computed_bytes(plan)
    return (stated or REDUCE_BUCKET_PARAMS) * computed_bytes(plan) * (2 if plan.deepspeed.overlap_comm else 1)


def _stage_1_or_2(model: ModelSpec, plan: Plan) -> Held:
    """Weights whole, in one flat tensor per group (stage_1_and_2.py `bit16_groups_flat`); masters and moments of one's own part
    (`single_partition_of_fp32_groups`); frozen parameters are in no group.

    Stage 1 keeps whole gradients to the end of an accumulation, with its buckets; stage 2 its own part from the first micro-batch on
    (`averaged_gradients`), and makes a second one to reduce into (`grads_in_partition`). The step flattens that part and makes it fp32
    (`step`, `flatten_dense_tensors_aligned`), and frees both 16-bit tensors before the optimizer makes its temporaries.
    With the optimizer on the host a gradient leaves the card when it is reduced, through a buffer as large as the largest of them
    (`temp_grad_buffer_for_gpu_offload`).
    """
    computed, trained = computing(plan), trained_part(model, plan)
    weights, adapter = weights_bytes(model, computed), adapter_bytes(model, computed)
    whole, buckets = trainable_params(model, plan) * computed_bytes(plan), buckets_bytes(model, plan)
    first, accumulates, away = plan.sharding is Sharding.ZERO1, plan.grad_accum_steps > 1, plan.offloads_optimizer
    passing = trained.largest_bytes if away else 0
    part = 0 if away else reduced_part_bytes(model, plan)
    carried = (whole + buckets if first else part) if accumulates else 0
    made = max(part + trained.flat_bytes + trained.masters_bytes, trained.masters_bytes + trained.foreach_bytes)
    norm = part + trained.largest_norm_bytes
    return Held(
        load=_whole_load(model, plan, (weights, adapter), whole),
        weights_bytes=weights,
        adapter_bytes=adapter,
        states_bytes=0 if away else trained.masters_bytes + trained.states_bytes,
        step_gradient_bytes=passing if away else trained.gradient_bytes,
        step_temporary_bytes=0 if away else max(made, norm) - trained.gradient_bytes,
        forward_bytes=passing + carried,
        backward_bytes=passing + carried + (0 if first and accumulates else buckets),
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
    masters and moments in parts, and one bucket. The step works group by group (`sub_group_size`).

    Gathered: prefetching stops at `max_live_parameters` (partitioned_param_coordinator.py `fetch_sub_module`), those that are used again
    within `max_reuse_distance` are not released (`__params_to_release`), and the largest tensor is whole in any case.
    """
    computed, trained, cards = computing(plan), trained_part(model, plan), plan.n_gpus
    scales = scales_bytes(model, plan)
    whole = weights_bytes(model, computed) - scales
    away = plan.offloads_optimizer
    shard = 0 if plan.offloads_params else -(-whole // cards)
    adapter = 0 if plan.offloads_params else -(-adapter_bytes(model, computed) // cards)
    buckets = buckets_bytes(model, plan)
    standing = buckets + (0 if away else trained.gradient_bytes)
    made = int((trained.masters_bytes + max(trained.foreach_bytes, trained.flat_bytes)) * stepped_share(model, plan))
    return Held(
        load=_load_of_stage_3(model, plan, whole, (shard, adapter)),
        weights_bytes=shard + scales,
        adapter_bytes=adapter,
        states_bytes=0 if away else trained.masters_bytes + trained.states_bytes,
        step_gradient_bytes=standing,
        step_temporary_bytes=0 if away else max(made, trained.largest_norm_bytes),
        gathered_bytes=gathered_bytes(model, plan, whole + adapter_bytes(model, computed)),
        forward_bytes=standing,
        backward_bytes=standing,
    )


def stepped_share(model: ModelSpec, plan: Plan) -> float:
    """Of one card's part, the most that the optimizer steps on at once: a group takes whole tensors until it reaches the limit (stage3.py
    `_create_fp16_sub_groups`)."""
    largest = group = 0
    for numel in in_order(model, plan):
        group += -(-numel // plan.n_gpus)
        largest = max(largest, group)
        if group >= plan.deepspeed.sub_group_params:
            group = 0
    return min(1.0, largest / max(1, -(-trainable_params(model, plan) // plan.n_gpus)))


def gathered_bytes(model: ModelSpec, plan: Plan, whole: int) -> int:
    """Bytes of 16-bit weights that a card holds gathered in stage 3, of the `whole` bytes that are shared out. None on a single card that
    holds them itself: it computes with them where they lie (partition_parameters.py `_no_gather_coalesced`)."""
    if plan.n_gpus == 1 and not plan.offloads_params:
        return 0
    settings, element = plan.deepspeed, computing(plan).base_dtype.size_bytes
    prefetched = settings.prefetch_params
    ahead = int(PREFETCH_SHARE * model.hidden_size**2) if prefetched is None else prefetched
    largest = max(group.numel for group in model_tensors(model))
    live = max(settings.max_live_params, settings.max_reuse_params, largest)
    return min(whole, (live + ahead) * element)


def _load_of_stage_3(model: ModelSpec, plan: Plan, whole: int, held: tuple[int, int]) -> tuple[tuple[Term, int], ...]:
    """The parts, and the largest tensor that is whole before it is parted; quantised weights are not built under `zero.Init`
    (transformers 5.23 modeling_utils.py `get_init_context`), and lie whole on each card before they are."""
    shard, adapter = held
    scales = scales_bytes(model, plan)
    if plan.quantization is not None:
        beside = max(load_extra_bytes(model, plan), -(-whole // plan.n_gpus))
        return ((Term.WEIGHTS, whole + scales), (Term.ADAPTER, adapter), (Term.TEMPORARIES, beside))
    largest = max(group.numel for group in model_tensors(model)) * computing(plan).base_dtype.size_bytes
    return ((Term.WEIGHTS, shard + scales), (Term.TEMPORARIES, largest))
