"""Backward under DeepSpeed's ZeRO: which gradients are there when, beside the buckets that `memory.zero` counts.

Sources are files of DeepSpeed 0.19.8 under deepspeed/runtime/zero; tests/test_zero.py holds this beside its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.memory.dtypes import computing
from advisor.memory.program import Station, Step, backward_stations as whole_stations, layer_stations
from advisor.memory.tape import ZERO, Size
from advisor.memory.weights import adapter_bytes, scales_bytes, weights_bytes
from advisor.memory.zero import NORM_BYTES, REDUCE_BUCKET_PARAMS, computed_bytes, gathered_bytes, in_order, reduced_part_bytes
from advisor.values import ModelSpec, Plan, Sharding


class Reduction(NamedTuple):
    """How gradients leave backward."""

    whole: bool
    """All of them are whole until backward has ended."""
    overlaps: bool
    """They are reduced while backward runs."""
    kept_bytes: int
    """Whole ones that stay though they are reduced: stage 1 frees those alone that a bucket took."""
    part_bytes: int
    """One's own part, which is made when the first of them is reduced."""
    norm_share: float
    """Of a gradient that goes to the host, what is copied to take its norm; 0 where it stays."""
    gathered_bytes: int
    """Weights that are whole in backward (stage 3); each is freed when its own is done (stage3.py, `release_sub_module`)."""
    embedding_bytes: int
    """Of the embeddings, among them."""

    def beside(self, gradient_bytes: int) -> int:
        return gradient_bytes + int(gradient_bytes * self.norm_share)


def reduction_of(model: ModelSpec, plan: Plan) -> Reduction:
    """How the gradients of `plan` are reduced, which shards by ZeRO."""
    first, third = plan.sharding is Sharding.ZERO1, plan.sharding is Sharding.ZERO3
    accumulates, overlaps, away = plan.grad_accum_steps > 1, bool(plan.deepspeed.overlap_comm), plan.offloads_optimizer
    computed, element = computing(plan), computed_bytes(plan)
    whole = first and (accumulates or not overlaps)
    bucket = plan.deepspeed.reduce_bucket_params or REDUCE_BUCKET_PARAMS
    large = sum(numel for numel in in_order(model, plan) if numel > bucket) * element if first and not whole else 0
    weights = weights_bytes(model, computed) - scales_bytes(model, plan) + adapter_bytes(model, computed)
    return Reduction(
        whole=whole,
        overlaps=overlaps,
        kept_bytes=large - large // plan.n_gpus,
        part_bytes=0 if third or away else reduced_part_bytes(model, plan),
        norm_share=NORM_BYTES / element / (plan.n_gpus if third else 1) if away else 0,
        gathered_bytes=gathered_bytes(model, plan, weights) if third else 0,
        embedding_bytes=model.shape.embedding_params * computed.base_dtype.size_bytes,
    )


def backward_stations(step: Step, reduction: Reduction) -> Iterator[Station]:
    """Moments of backward that may be its peak, beside the buckets and the carried gradients that `Held` counts."""
    if not reduction.whole:
        yield from _reduced_at_once(step, reduction)
        return
    stations = tuple(whole_stations(step))
    part = reduction.part_bytes if reduction.overlaps else 0
    of_head = len(step.head.backward.peaks)
    yield from stations[:of_head]
    yield from (_with_gradients(station, part) for station in stations[of_head:])
    whole = 0 if step.loop.accumulates else _made_bytes(step)
    yield _moment(step.held, stations[-1].kept, whole + reduction.part_bytes)


def _made_bytes(step: Step) -> int:
    """All gradients of a micro-batch."""
    layers = sum(layer.back.kept.constant * count for layer, count in step.runs)
    return step.head.backward.kept.constant + layers + step.embedding_gradient_bytes


def _moment(live: Size, kept: Size, gradient_bytes: int, freed_bytes: int = 0) -> Station:
    """A moment with gradients alone around what is kept; `freed_bytes` of the weights that `Held` counts as whole are not there."""
    return Station(live.with_constant(gradient_bytes - freed_bytes), kept, ZERO, gradient_bytes, -freed_bytes)


def _with_gradients(station: Station, more_bytes: int) -> Station:
    live = station.live.with_constant(more_bytes)
    return station._replace(live=live, gradient_bytes=station.gradient_bytes + more_bytes)


def _reduced_at_once(step: Step, reduction: Reduction) -> Iterator[Station]:
    """A gradient is gone when the next one is there: into the bucket, or reduced by itself where it is larger."""
    behind = step.under
    for layer, count in step.runs:
        behind = behind.plus(step.resting(layer), count)
    for moment in step.head.backward.peaks:
        yield Station(behind.plus(step.held).plus(moment.live), behind, moment.live.plus(step.held), 0)
    head, part = step.head.backward.kept.constant, reduction.part_bytes
    live = behind.plus(step.held).plus(step.head.entry)
    yield _moment(live, behind, part + reduction.beside(head))  # its weights may still be whole
    for layer, count in reversed(step.runs):
        for station in layer_stations(step, layer, behind.plus(step.resting(layer), -1), step.waiting_bytes):
            yield _with_gradients(station, part)
        behind = behind.plus(step.resting(layer), -count)
    made = step.embedding_gradient_bytes
    if made:
        freed = max(0, reduction.gathered_bytes - reduction.embedding_bytes)
        held = part + step.waiting_bytes + reduction.kept_bytes + reduction.beside(made)
        yield _moment(step.head.entry.plus(step.held), ZERO, held, freed)
