"""What FSDP gathers and frees as one: a layer, or what stands around the layers.

Sources are files of torch 2.13 (`_fully_shard` is short for torch/distributed/fsdp/_fully_shard) and accelerate 1.15.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from advisor.memory.dtypes import computing
from advisor.memory.optimizer import trained_bytes_per_param
from advisor.memory.params import TensorGroup, adapter_tensors, block_adapter_params, model_tensors
from advisor.memory.weights import block_scales_bytes, block_weights_bytes, scales_bytes, unquantized_bytes_per_param, weights_bytes
from advisor.values import Method, ModelSpec, Plan, Sharding, Stack

CARVES = (Stack.HF, Stack.TRL, Stack.LLAMAFACTORY, Stack.MS_SWIFT)
"""Stacks whose FSDP2 is accelerate's, which since 1.15 makes units of their own of the embeddings and of final norm and head
(utils/fsdp_utils.py `fsdp2_prepare_model`, "Carve embed + tail"); axolotl replaces that function by its own (axolotl 0.19
monkeypatch/accelerate/fsdp2.py), the others call `fully_shard` on layers and model."""
DEFERS = (Stack.HF, Stack.TRL, Stack.AXOLOTL, Stack.LLAMAFACTORY, Stack.MS_SWIFT)
"""Stacks with the Trainer's loop, which reduces gradients at the last micro-batch of a step only (transformers 5.23 trainer.py,
`accelerator.no_sync`; accelerate 1.15 accelerator.py `no_sync`, `set_requires_gradient_sync(False)` for FSDP2)."""


class Unit(NamedTuple):
    """Bytes of one unit, whole; each card's part of them is its share of the cards."""

    gathered_bytes: int = 0
    """Parameters in the type that the card computes in."""
    gradient_bytes: int = 0
    """Gradients of what is trained, as autograd makes them."""
    trained_bytes: int = 0
    """The same in the type that the optimizer steps in."""

    def plus(self, other: Unit) -> Unit:
        return Unit(*(mine + others for mine, others in zip(self, other, strict=True)))


class Units(NamedTuple):
    """The units of a model, and how its engine moves them."""

    layers: tuple[Unit, ...]
    """One layer of each kind, in the order of the model's blocks."""
    embedding: Unit
    """Resharded after its forward; empty where the embeddings belong to `tail`."""
    tail: Unit
    """Final norm and head."""
    root: bool
    """The tail is what no other unit holds, embeddings included: whole from the start of forward to the end of backward."""
    tied: bool
    """Embeddings and head are one matrix: its gradient is added to an earlier one when both of its parts are there."""
    prefetches_at_loss: bool
    """The loss is inside the tail's unit, whose backward then begins there, and gathers the last layer."""
    cards: int
    copies: bool
    """The all-gather's output is a buffer of its own, copied into the parameters (`_fully_shard/_fsdp_collectives.py`
    `foreach_all_gather`); FSDP1 gathers into the flat parameter itself (`_flat_param.py` `_all_gather_flat_param`)."""
    defers: bool
    """Gradients stay whole until the last micro-batch of a step."""
    middles: bool
    """There are micro-batches before which gradients are whole, and which reduce none."""
    carries: bool
    """Of the micro-batch at hand: whole gradients of earlier ones are there."""
    reduces: bool
    """Of the micro-batch at hand: its gradients are reduced."""
    accumulates_shards: bool
    """Each micro-batch is reduced into the shards of those before it."""
    offloads: bool
    """Shards lie on the host: a unit's is copied to the card to be gathered, and its gradient leaves when it is reduced."""
    replicates: bool
    """Shards of gradients are reduced over groups of cards, from buffers that stay to the end of backward
    (`_fully_shard/_fsdp_param_group.py` `AllReduceState`)."""
    reshards: bool
    """A unit is freed after its forward; else it is whole until its backward has ended."""
    keeps_inputs: bool
    """Checkpoints and their gradients stay to the end of backward (`keeps_inputs_of`)."""
    wraps_adapters: bool
    """Each matrix of an adapter is a unit of its own (peft 0.21 utils/other.py `fsdp_auto_wrap_policy`). Backward prefetches the unit that
    forward left before, which is then one of the same layer, so that the layer before is gathered when this one is nearly done."""

    def share(self, size_bytes: int) -> int:
        return -(-size_bytes // self.cards)

    @property
    def prefetched_copies(self) -> int:
        """Copies of a unit's parameters while it computes in forward: itself, and the buffer that it was copied from."""
        return 2 if self.copies else 1


def units_of(model: ModelSpec, plan: Plan) -> Units:
    """The units of `plan`, which shards by FSDP."""
    computed = computing(plan)
    element, trained = _gradient_bytes_per_param(plan), trained_bytes_per_param(plan)
    full = plan.method is Method.FULL
    layers = []
    for block, adapter in zip(model.shape.blocks, block_adapter_params(model, plan), strict=True):
        params = block.params if full else adapter
        whole = (
            block_weights_bytes(model, block, computed)
            - block_scales_bytes(model, block, plan)
            + adapter * computed.adapter_dtype.size_bytes
        )
        layers.append(Unit(whole, params * element, params * trained))
    per_param = unquantized_bytes_per_param(computed)
    embedding, tail = (
        Unit(params * per_param, *((params * element, params * trained) if full else (0, 0)))
        for params in (model.shape.embedding_params, model.shape.head_params + model.shape.other_params)
    )
    root = plan.sharding is Sharding.FSDP1 or plan.stack not in CARVES or model.shape.tied_embeddings
    defers = plan.stack in DEFERS and not plan.sync_each_batch
    return Units(
        layers=tuple(layers),
        embedding=Unit() if root else embedding,
        tail=tail.plus(embedding) if root else tail,
        root=root,
        tied=model.shape.tied_embeddings,
        prefetches_at_loss=plan.sharding is Sharding.FSDP1 or plan.stack not in CARVES,
        cards=plan.sharing_gpus,
        copies=plan.sharding is Sharding.FSDP2,
        defers=plan.grad_accum_steps > 1 and defers,
        middles=plan.grad_accum_steps > 2 and defers,
        carries=plan.grad_accum_steps > 1 and defers,
        reduces=True,
        accumulates_shards=plan.grad_accum_steps > 1 and not defers,
        offloads=plan.offloads_params,
        replicates=plan.sharding is Sharding.FSDP2 and plan.shard_group is not None,
        reshards=plan.reshard_after_forward,
        keeps_inputs=keeps_inputs_of(plan),
        wraps_adapters=plan.sharding is Sharding.FSDP1 and not full,
    )


def keeps_inputs_of(plan: Plan) -> bool:
    """Whether each layer's checkpoint and its gradient stay to the end of backward.

    They do where the checkpoint stands around the unit, as in transformers before 4.52; since then it stands inside
    (`GradientCheckpointingLayer`), and this is counted all the same, because a plan names no release.
    FSDP1 reshards a frozen unit by a hook on the gradients of its inputs (torch `_runtime_utils.py`
    `_register_post_backward_reshard_only_hook`); in a reentrant checkpoint these are the recomputation's own leaves, which keep their
    gradients, and the hook's graph keeps them until backward has ended.
    """
    return plan.sharding is Sharding.FSDP1 and plan.reentrant and plan.method.has_adapter


def _gradient_bytes_per_param(plan: Plan) -> int:
    """A gradient has the type of the parameter that was gathered, and is reduced in it: accelerate gives FSDP one type for both
    (utils/dataclasses.py `set_mixed_precision`)."""
    computed = computing(plan)
    return computed.base_dtype.size_bytes if plan.method is Method.FULL else computed.adapter_dtype.size_bytes


def shared_weights_bytes(model: ModelSpec, plan: Plan) -> int:
    """One card's part of the base weights as they rest, with what is never sharded."""
    scales = scales_bytes(model, plan)
    if plan.quantization is not None:
        return -(-(weights_bytes(model, plan) - scales) // plan.sharing_gpus) + scales
    per_param = trained_bytes_per_param(plan) if plan.method is Method.FULL else plan.base_dtype.size_bytes
    return _padded(model_tensors(model), plan) * per_param


def shared_adapter_bytes(model: ModelSpec, plan: Plan) -> int:
    return _padded(adapter_tensors(model, plan), plan) * trained_bytes_per_param(plan)


def trained_share(model: ModelSpec, plan: Plan, size_bytes: int) -> int:
    """One card's part of what goes with the trained parameters: gradients, states, temporaries of the optimizer."""
    groups = model_tensors(model) if plan.method is Method.FULL else adapter_tensors(model, plan)
    params = sum(group.numel * group.copies for group in groups)
    return -(-size_bytes * _padded(groups, plan) // params) if params else 0


def _padded(groups: Iterable[TensorGroup], plan: Plan) -> int:
    """Elements on one card. FSDP2 shards every parameter along its first dimension, and pads it to a multiple of the cards
    (`_fully_shard/_fsdp_param.py` `_init_sharded_param`); FSDP1 shards a flat one."""
    if plan.sharding is Sharding.FSDP1:
        return -(-sum(group.numel * group.copies for group in groups) // plan.sharing_gpus)
    return sum(
        -(-rows // plan.sharing_gpus) * (group.numel // rows) * group.copies for group in groups if (rows := group.rows or group.numel)
    )
