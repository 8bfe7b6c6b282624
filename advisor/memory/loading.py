"""The highest moment of loading a model and of wrapping it by an engine that shares it, on one card.

Sources are files of torch 2.13, accelerate 1.15 and transformers 5.23.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from advisor.memory.held import loaded_beside
from advisor.memory.optimizer import trained_bytes_per_param
from advisor.memory.params import block_adapter_params, model_tensors
from advisor.memory.units import CARVES
from advisor.memory.weights import (
    block_scales_bytes,
    block_weights_bytes,
    load_extra_bytes,
    scales_bytes,
    stored_linear_bytes,
    unquantized_bytes_per_param,
    weights_bytes,
)
from advisor.units import MIB
from advisor.values import Method, ModelSpec, Plan, Sharding, Term

BROADCAST_BUCKET_BYTES = 250 * MIB
"""Of which DDP sends the weights to the other cards when it wraps the model (nn/parallel/distributed.py `broadcast_bucket_size`): a flat
copy each. The tensor that fills a bucket up is its last (torch/csrc/distributed/c10d/reducer.cpp `compute_bucket_assignment_by_size`), and
two are under way at once (comm.cpp `broadcast_coalesced`, `max_in_flight`)."""
REDUCED_BUCKET_BYTES = (MIB, 25 * MIB)
"""Of gradients that DDP reduces at once: the first, and each further one (nn/parallel/distributed.py `bucket_cap_mb`,
torch/csrc/distributed/c10d/reducer.hpp `kDefaultFirstBucketBytes`; filled as above)."""

Terms = tuple[tuple[Term, int], ...]


def replica_load(model: ModelSpec, plan: Plan, adapter: int, buckets: int) -> Terms:
    """One card's whole model; under DDP the flat copies in which it is sent, and after them the `buckets` of the gradients."""
    wrapping = max(_sent_at_once(model, plan), buckets) if plan.sharding is Sharding.DDP else 0
    return ((Term.WEIGHTS, weights_bytes(model, plan)), *loaded_beside(load_extra_bytes(model, plan), adapter, wrapping))


def _sent_at_once(model: ModelSpec, plan: Plan) -> int:
    """The most that two neighbouring buckets of weights take."""
    return max(before + after for before, after in pairwise([0, *copies_sent(_tensor_bytes(model, plan))]))


def copies_sent(tensors: Iterable[tuple[str, int]]) -> list[int]:
    """The flat copies of the buckets in which weights are sent, each weight given by its type in words and its bytes. One tensor alone is
    sent as it lies (torch/csrc/utils/tensor_flatten.h `flatten_dense_tensors`)."""
    return [size if count > 1 else 0 for size, count in _buckets(tensors, (BROADCAST_BUCKET_BYTES,))]


def buckets_reduced(tensors: Iterable[tuple[str, int]]) -> list[int]:
    """The buckets from which DDP reduces the gradients of tensors that are given so, a buffer each."""
    return [size for size, _ in _buckets(tensors, REDUCED_BUCKET_BYTES)]


def _buckets(tensors: Iterable[tuple[str, int]], limits: Sequence[int]) -> list[tuple[int, int]]:
    """Bytes, and number of tensors, of buckets of tensors of one type, in the order of their first: the tensor that reaches the limit is a
    bucket's last, and the last of the limits holds for all further ones of its type."""
    full: list[tuple[int, int, int]] = []
    """Number of its first tensor, bytes, and tensors."""
    filling: dict[str, tuple[int, int, int]] = {}
    filled: Counter[str] = Counter()
    for number, (kept_as, size) in enumerate(tensors):
        first, filled_bytes, count = filling.pop(kept_as, (number, 0, 0))
        bucket = first, filled_bytes + size, count + 1
        if bucket[1] < limits[min(filled[kept_as], len(limits) - 1)]:
            filling[kept_as] = bucket
            continue
        filled[kept_as] += 1
        full.append(bucket)
    return [(size, count) for _, size, count in sorted([*full, *filling.values()])]


def _tensor_bytes(model: ModelSpec, plan: Plan) -> Iterator[tuple[str, int]]:
    """Weights in the order of the model's modules, each with its type in words; a layer's adapters, and its vectors, count as one."""
    per_param, shape = unquantized_bytes_per_param(plan), model.shape
    whole, adapted = f"{per_param} bytes", f"{plan.adapter_dtype.size_bytes} bytes"
    yield whole, shape.embedding_params * per_param
    for block, adapter in zip(shape.blocks, block_adapter_params(model, plan), strict=True):
        tensors = []
        for layer in block.linears:
            is_packed = plan.quantization is not None and layer.can_be_quantized
            size = stored_linear_bytes(layer, model, plan) if is_packed else layer.in_features * layer.out_features * per_param
            tensors += [("packed" if is_packed else whole, size)] * layer.copies
        if adapter:
            tensors.insert(1, (adapted, adapter * plan.adapter_dtype.size_bytes))
        for _ in range(block.count):
            yield from (*tensors, (whole, block.other_params * per_param))
    yield whole, shape.other_params * per_param
    if shape.head_params:
        yield whole, shape.head_params * per_param


def fsdp_load(model: ModelSpec, plan: Plan, weights: int, adapter: int) -> Terms:
    """Unquantised weights stay on the host, and come unit by unit; all shards are there when the last unit, around the layers, is whole
    (`_fully_shard/_fsdp_init.py` `_move_states_to_device`). accelerate 1.15 still names the embeddings and the head then, so that both are
    whole (utils/fsdp_utils.py `fsdp2_prepare_model`, `input_weight`, `output_weight`). FSDP1 has the unit twice: its parameters, and the
    flat one that is made of them (`_flat_param.py` `flatten_tensors_into_flat_param`).

    Quantised weights are made on the card, so that it holds the whole model before that (transformers quantizers/quantizer_bnb_4bit.py
    `update_device_map`): to the end, beside all shards, under accelerate's FSDP2 (utils/fsdp_utils.py "VRAM spike", `original_sd`), else
    until its unit is shared, whose flat copy or shard is beside it.
    """
    flat = plan.sharding is Sharding.FSDP1
    wrapped: Terms = (
        (Term.WEIGHTS, weights),
        (Term.ADAPTER, adapter),
        (Term.TEMPORARIES, _around_layers(model, plan) * (2 if flat else 1)),
    )
    if plan.quantization is None:
        return wrapped
    whole = weights_bytes(model, plan)
    largest = max(block_weights_bytes(model, block, plan) - block_scales_bytes(model, block, plan) for block in model.shape.blocks)
    beside = largest + -(-largest // plan.sharing_gpus)
    if not flat and plan.stack in CARVES:
        beside = -(-(whole - scales_bytes(model, plan)) // plan.sharing_gpus)
    quantised: Terms = ((Term.WEIGHTS, whole), *loaded_beside(load_extra_bytes(model, plan), adapter, beside))
    return max(wrapped, quantised, key=lambda terms: sum(size for _, size in terms))


def _around_layers(model: ModelSpec, plan: Plan) -> int:
    """Embeddings, final norm and head as they are wrapped: lifted before by accelerate's FSDP2, after by its FSDP1 (accelerator.py
    `prepare_model`). A layer that is larger is whole before the shards of all are there."""
    shape = model.shape
    lifted = plan.method is Method.FULL and plan.sharding is Sharding.FSDP2
    per_param = trained_bytes_per_param(plan) if lifted else unquantized_bytes_per_param(plan)
    largest = max(group.numel for group in model_tensors(model))
    return max(shape.embedding_params + shape.head_params + shape.other_params, largest) * per_param
