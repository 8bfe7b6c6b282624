"""Counts of parameters: what an adapter adds and what is trained. Exact, per tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.architectures.heads import head_shape, headed
from advisor.memory.replayed import trained_params
from advisor.stacks.targets import Target, targets
from advisor.values import ALL_LINEAR, GpuSpec, Method, ModelSpec, Plan


class TensorGroup(NamedTuple):
    """`copies` equal trainable tensors of `numel` elements each."""

    numel: int
    copies: int
    rows: int
    """First dimension; 0 for vectors. Adafactor's factored state needs it."""


def adapter_params(model: ModelSpec, plan: Plan) -> int:
    """Parameters that LoRA adds: r (in + out) per matrix (LoRA, section 4.1); DoRA adds a magnitude per output (DoRA, section 4.1)."""
    return sum(group.numel * group.copies for group in adapter_tensors(model, plan))


def known_adapter_params(model: ModelSpec, plan: Plan) -> int | None:
    """As `adapter_params`; None for a model without tables, whose matrices the dry run alone knows."""
    return None if model.tables is None else adapter_params(model, plan)


def adapter_tensors(model: ModelSpec, plan: Plan) -> tuple[TensorGroup, ...]:
    """The adapter's A, B and magnitudes. Stacked experts share one pair of matrices, their ranks side by side."""
    if not plan.method.has_adapter:
        return ()
    wrapped = _all_wrapped(model, plan.target_modules, plan.rank, plan.method.is_dora)
    return (*wrapped, *_head_tensors(headed(model, plan), plan))


@lru_cache(maxsize=256)
def _all_wrapped(model: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> tuple[TensorGroup, ...]:
    """What is added to all wrapped matrices: kept, because searches change everything else about a plan."""
    return _together(_each_wrapped(model, target_modules, rank, dora))


def adapter_tensors_in_order(model: ModelSpec, plan: Plan) -> Iterator[TensorGroup]:
    """The same, matrix by matrix."""
    if plan.method.has_adapter:
        yield from _each_wrapped(model, plan.target_modules, plan.rank, plan.method.is_dora)
        yield from _head_tensors(headed(model, plan), plan)


def _each_wrapped(model: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> Iterator[TensorGroup]:
    for target in targets(model, target_modules):
        for group in _wrapped(target, rank, dora):
            yield group._replace(copies=group.copies * target.block.count)


def _together(groups: Iterable[TensorGroup]) -> tuple[TensorGroup, ...]:
    """Equal tensors of all layers as one group."""
    copies: Counter[tuple[int, int]] = Counter()
    for group in groups:
        copies[group.numel, group.rows] += group.copies
    return tuple(TensorGroup(numel, number, rows) for (numel, rows), number in copies.items())


def _head_tensors(model: ModelSpec, plan: Plan) -> Iterator[TensorGroup]:
    """What an adapter adds to the head: a classifier is trained as a copy of its own (peft 0.21 `modules_to_save`), counted in the
    adapter's type; a dense layer that is no part of it is adapted like those of the layers."""
    shape = head_shape(model)
    if shape is None:
        return
    scores_labels = model.labels is not None
    if scores_labels:
        yield TensorGroup(model.shape.head_params, 1, model.labels or 0)
    dense = shape.dense
    if dense is None:
        return
    if scores_labels and shape.dense_is_saved:
        yield TensorGroup(dense.params, 1, dense.out_features)
    elif plan.target_modules == (ALL_LINEAR,) or dense.name in plan.target_modules:
        yield TensorGroup(plan.rank * dense.in_features, 1, plan.rank)
        yield TensorGroup(plan.rank * dense.out_features, 1, dense.out_features)


def block_adapter_params(model: ModelSpec, plan: Plan) -> tuple[int, ...]:
    """Parameters that the adapter adds to one layer of each kind, in the order of the model's blocks."""
    if not plan.method.has_adapter:
        return (0,) * len(model.shape.blocks)
    return _added_to_blocks(model, plan.target_modules, plan.rank, plan.method.is_dora)


@lru_cache(maxsize=256)
def _added_to_blocks(model: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> tuple[int, ...]:
    added = [0] * len(model.shape.blocks)
    for target in targets(model, target_modules):
        added[target.place] += sum(group.numel * group.copies for group in _wrapped(target, rank, dora))
    return tuple(added)


def _wrapped(target: Target, rank: int, dora: bool) -> Iterator[TensorGroup]:
    """What is added to one wrapped matrix of one layer."""
    layer = target.linear
    rank = rank * target.rank_factor * (1 if layer.is_module else layer.copies)
    copies = layer.copies if layer.is_module else 1
    yield TensorGroup(rank * layer.in_features, copies, rank)
    yield TensorGroup(rank * layer.out_features, copies, layer.out_features)
    if dora:
        yield TensorGroup(layer.out_features, copies, 0)


@lru_cache(maxsize=64)
def model_tensors(model: ModelSpec) -> tuple[TensorGroup, ...]:
    """Every parameter tensor of the model, tied ones once. Vectors of a block are lumped: they are small."""
    return _together(_model_tensors(model))


def _model_tensors(model: ModelSpec) -> Iterator[TensorGroup]:
    yield TensorGroup(model.shape.embedding_params, 1, model.vocab_size)
    if model.shape.head_params:
        yield TensorGroup(model.shape.head_params, 1, model.vocab_size)
    if model.shape.other_params:
        yield TensorGroup(model.shape.other_params, 1, 0)
    for block in model.shape.blocks:
        for layer in block.linears:
            yield TensorGroup(layer.in_features * layer.out_features, layer.copies * block.count, layer.out_features)
            if layer.bias:
                yield TensorGroup(layer.out_features, layer.copies * block.count, 0)
        if block.other_params:
            yield TensorGroup(block.other_params, block.count, 0)


def trainable_tensors(model: ModelSpec, plan: Plan) -> tuple[TensorGroup, ...]:
    return model_tensors(headed(model, plan)) if plan.method is Method.FULL else adapter_tensors(model, plan)


def trainable_params(model: ModelSpec, plan: Plan) -> int:
    return headed(model, plan).params if plan.method is Method.FULL else adapter_params(model, plan)


def known_trainable_params(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> int | None:
    """As `trainable_params`; of a model without tables an adapter's are those that its recorded step on a card like `gpu` trained, and
    None where it gets another head than its parameters are counted with. Raises NotRecorded where there is no recording."""
    if model.tables is not None:
        return trainable_params(model, plan)
    return headed(model, plan).params_built if plan.method is Method.FULL else trained_params(model, plan, gpu)
