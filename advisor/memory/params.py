"""Counts of parameters: what an adapter adds and what is trained. Exact, per tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.values import ALL_LINEAR, Block, Linear, Method, ModelSpec, Plan


class TensorGroup(NamedTuple):
    """`copies` equal trainable tensors of `numel` elements each."""

    numel: int
    copies: int
    rows: int
    """First dimension; 0 for vectors. Adafactor's factored state needs it."""


def target_names(model: ModelSpec, plan: Plan) -> frozenset[str]:
    """Leaf names of the linear layers that carry an adapter. Empty for full fine-tuning.

    "all-linear" is every `nn.Linear` except the output head (peft 0.21 tuners/tuners_utils.py, `_maybe_include_all_linear_layers`).
    """
    if not plan.method.has_adapter:
        return frozenset()
    available = {layer.name for block in model.blocks for layer in block.linears if layer.is_module}
    if plan.target_modules == (ALL_LINEAR,):
        return frozenset(available)
    return frozenset(available.intersection(plan.target_modules))


def adapted(model: ModelSpec, plan: Plan) -> Iterator[tuple[Block, Linear]]:
    """Every (block, linear layer) that carries an adapter."""
    names = target_names(model, plan)
    return ((block, layer) for block in model.blocks for layer in block.linears if layer.is_module and layer.name in names)


def adapter_params(model: ModelSpec, plan: Plan) -> int:
    """Parameters that LoRA adds: r (in + out) per matrix (LoRA, section 4.1); DoRA adds a magnitude per output (DoRA, section 4.1)."""
    return sum(group.numel * group.copies for group in adapter_tensors(model, plan))


def adapter_tensors(model: ModelSpec, plan: Plan) -> Iterator[TensorGroup]:
    for block, layer in adapted(model, plan):
        copies = block.count * layer.copies
        yield TensorGroup(plan.rank * layer.in_features, copies, plan.rank)
        yield TensorGroup(plan.rank * layer.out_features, copies, layer.out_features)
        if plan.method.is_dora:
            yield TensorGroup(layer.out_features, copies, 0)


def model_tensors(model: ModelSpec) -> Iterator[TensorGroup]:
    """Every parameter tensor of the model, tied ones once. Vectors of a block are lumped: they are small."""
    yield TensorGroup(model.embedding_params, 1, model.vocab_size)
    if model.head_params:
        yield TensorGroup(model.head_params, 1, model.vocab_size)
    if model.other_params:
        yield TensorGroup(model.other_params, 1, 0)
    for block in model.blocks:
        for layer in block.linears:
            yield TensorGroup(layer.in_features * layer.out_features, layer.copies * block.count, layer.out_features)
            if layer.bias:
                yield TensorGroup(layer.out_features, layer.copies * block.count, 0)
        if block.other_params:
            yield TensorGroup(block.other_params, block.count, 0)


def trainable_tensors(model: ModelSpec, plan: Plan) -> Iterator[TensorGroup]:
    return model_tensors(model) if plan.method is Method.FULL else adapter_tensors(model, plan)


def trainable_params(model: ModelSpec, plan: Plan) -> int:
    return model.params if plan.method is Method.FULL else adapter_params(model, plan)
