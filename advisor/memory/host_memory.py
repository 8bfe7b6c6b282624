"""What the processes of one node hold of its host's memory: the model as it is loaded, and what is offloaded.

Sources are files of transformers 5.23, accelerate 1.15, torch 2.13 and DeepSpeed 0.19.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from advisor.memory.dtypes import computing
from advisor.memory.optimizer import MOMENTS, trained_bytes_per_param
from advisor.memory.params import TensorGroup, adapter_tensors, model_tensors, trainable_tensors
from advisor.memory.units import shared_adapter_bytes, shared_weights_bytes, trained_share
from advisor.memory.weights import adapter_bytes, scales_bytes, unquantized_bytes_per_param, weights_bytes
from advisor.memory.zero import reduced_part_bytes, stepped_share, trained_part
from advisor.units import format_size
from advisor.values import GpuSpec, Method, ModelSpec, Optimizer, Plan, Sharding, Term, TermBytes
from advisor.values.card import CARDS_OF_MACHINE
from advisor.values.memory import HostMemory

RANK_0_LOADS = "fsdp_config: cpu_ram_efficient_loading: true"
"""Under which transformers builds the model of every process but the node's first on meta (modeling_utils.py `is_local_dist_rank_0`)."""


class Part(NamedTuple):
    """Bytes of one process on the host."""

    term: Term
    size_bytes: int
    pinned_bytes: int = 0
    """The same as page-locked buffers hold it; 0 where they are ordinary memory."""


def host_memory(model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> HostMemory | None:
    """Memory of the host of a full node; None on one card whose host holds no more than the model."""
    if plan.n_gpus == 1 and not plan.offload:
        return None
    return host_beside(weights_bytes(model, plan), plan, gpu, tuple(_offloaded(model, plan)))


def host_beside(whole_bytes: int, plan: Plan, gpu: GpuSpec | None, parts: tuple[Part, ...] = ()) -> HostMemory:
    """The same for a model whose weights take `whole_bytes` as they rest, with what each process offloads."""
    processes = min(plan.n_gpus, gpu.most_of_machine if gpu is not None else CARDS_OF_MACHINE)
    loaded, mends = _loaded(whole_bytes, plan, processes)
    return HostMemory(
        processes=processes,
        load=_terms([Part(Term.WEIGHTS, loaded)]),
        training=_terms(part._replace(size_bytes=part.size_bytes * processes) for part in parts),
        rounding_bytes=sum(max(0, part.pinned_bytes - part.size_bytes) for part in parts) * processes,
        available_bytes=None if gpu is None else gpu.host_bytes,
        mends=mends,
        passing_bytes=0 if plan.offloads_optimizer or plan.offloads_params else max(loaded, whole_bytes),
    )


def said_of_host(host: HostMemory) -> str:
    """What the processes of a node hold, in a line, and what makes it less; with what the machine has, where that was said."""
    loading = host.load_bytes >= host.training_bytes
    what = "loading takes" if loading else "what is offloaded takes"
    has = "" if host.available_bytes is None else f", of {format_size(host.available_bytes)}"
    mend = f"; {host.mends} loads one model" if loading and host.mends else ""
    processes = f"its {host.processes} processes" if host.processes > 1 else "its process"
    asks = "; whether the machine has it is open (--host-memory)" if host.is_open else ""
    return f"host memory of a machine: {what} {format_size(host.peak_bytes)} in {processes}{has}{mend}{asks}"


def _terms(parts: Iterable[Part]) -> tuple[TermBytes, ...]:
    held: dict[Term, int] = {}
    for part in parts:
        held[part.term] = held.get(part.term, 0) + part.size_bytes
    return tuple(TermBytes(term=term, bytes=size) for term, size in held.items() if size)


def _loaded(whole: int, plan: Plan, processes: int) -> tuple[int, str]:
    """Bytes of the models that are loaded at once, and the setting that makes them one.

    Each process loads a whole model in the type that it rests in. Under ZeRO-3 the first one alone reads the weights, which it shares
    out tensor by tensor (modeling_utils.py `_load_state_dict_into_zero3_model`, `map_location`); quantised ones go to the card tensor by
    tensor (quantizers/quantizer_bnb_4bit.py `update_device_map`).
    """
    if plan.quantization is not None:
        return 0, ""
    if plan.loads_on_rank_0 or plan.sharding is Sharding.ZERO3:
        return whole, ""
    return whole * processes, RANK_0_LOADS if plan.sharding.is_fsdp else ""


def _offloaded(model: ModelSpec, plan: Plan) -> Iterator[Part]:
    if plan.offloads_params and plan.sharding.is_fsdp:
        yield from _of_fsdp(model, plan)
    elif plan.offloads_optimizer or plan.offloads_params:
        yield from _of_zero(model, plan)
    if plan.offloads_activations:
        yield _checkpoints(model, plan)


def _checkpoints(model: ModelSpec, plan: Plan) -> Part:
    """Each layer's input in a page-locked buffer of its own (trl 1.16 models/activation_offloading.py `use_pin_memory`)."""
    tokens, layers = plan.micro_batch_size * plan.seq_len_tokens, sum(block.count for block in model.shape.blocks)
    size = tokens * model.hidden_size * unquantized_bytes_per_param(computing(plan))
    return Part(Term.ACTIVATIONS, layers * size, layers * _power_of_two(size))


def _of_fsdp(model: ModelSpec, plan: Plan) -> Iterator[Part]:
    """Shards, their gradients and the states of the optimizer (torch distributed/fsdp/_fully_shard/_fsdp_param.py, `offload_to_cpu`);
    shards and gradients are page-locked (`CPUOffloadPolicy.pin_memory`). Foreach AdamW makes its temporaries there too."""
    groups = model_tensors(model) if plan.quantization is None else ()
    trained = model_tensors(model) if plan.method is Method.FULL else adapter_tensors(model, plan)
    per_param = trained_bytes_per_param(plan)
    resting = per_param if plan.method is Method.FULL else plan.base_dtype.size_bytes
    weights = shared_weights_bytes(model, plan) - scales_bytes(model, plan)
    yield Part(Term.WEIGHTS, weights, _pinned(groups, plan, resting))
    adapter = shared_adapter_bytes(model, plan)
    yield Part(Term.ADAPTER, adapter, _pinned(trained, plan, per_param) if plan.method.has_adapter else 0)
    params = trained_share(model, plan, sum(group.numel * group.copies for group in trained))
    yield Part(Term.GRADIENTS, params * per_param, _pinned(trained, plan, per_param))
    yield Part(Term.OPTIMIZER, MOMENTS[plan.optimizer] * params * per_param)
    if plan.optimizer is Optimizer.ADAMW:
        yield Part(Term.TEMPORARIES, params * per_param)


def _pinned(groups: Iterable[TensorGroup], plan: Plan, element_bytes: int) -> int:
    """Each tensor's shard in a buffer of its own."""
    return sum(_power_of_two(-(-group.numel // plan.sharing_gpus) * element_bytes) * group.copies for group in groups)


def _power_of_two(size_bytes: int) -> int:
    """A page-locked buffer's size (torch aten/src/ATen/core/CachingHostAllocator.h, `PowerOf2Ceil`)."""
    return 1 << (size_bytes - 1).bit_length() if size_bytes > 0 else 0


def _of_zero(model: ModelSpec, plan: Plan) -> Iterator[Part]:
    """One's own part of masters, fp32 gradients and moments (runtime/zero/stage_1_and_2.py `single_partition_of_fp32_groups`, stage3.py
    `fp32_partitioned_groups_flat`), with 16-bit copies in between. DeepSpeed's own AdamW makes no temporaries (ops/adam/cpu_adam.py)."""
    part = trained_part(model, plan)
    pinned = plan.deepspeed.pin_memory
    if plan.deepspeed.nvme and plan.sharding is Sharding.ZERO3:
        yield from _beside_nvme(model, plan)
        return
    yield from (_flat(Term.OPTIMIZER, size, pinned) for size in (part.masters_bytes, part.masters_bytes))
    yield Part(Term.OPTIMIZER, part.states_bytes)
    if plan.sharding is Sharding.ZERO3:
        yield _flat(Term.GRADIENTS, part.gradient_bytes, pinned)
        if plan.offloads_params:
            whole = weights_bytes(model, plan) - scales_bytes(model, plan) + adapter_bytes(model, plan)
            weights = _flat(Term.WEIGHTS, -(-whole // plan.n_gpus), pinned)
            if plan.method in (Method.LORA, Method.DORA) and pinned:  # frozen: in no group, each in a buffer of its own
                weights = weights._replace(pinned_bytes=_pinned(model_tensors(model), plan, plan.base_dtype.size_bytes))
            yield weights
        return
    yield _flat(Term.WEIGHTS, part.flat_bytes, pinned)
    yield _flat(Term.GRADIENTS, part.largest_bytes, pinned)
    if plan.grad_accum_steps > 1:  # a buffer for each tensor (`accumulated_grads_in_cpu`)
        held = reduced_part_bytes(model, plan)
        tensors = trainable_tensors(model, plan)
        whole = sum(group.numel * group.copies for group in tensors)
        rounded = sum(_power_of_two(group.numel * part.element_bytes) * group.copies for group in tensors)
        share = held / max(1, whole * part.element_bytes)
        yield Part(Term.GRADIENTS, held, int(rounded * share) if pinned else 0)


def _beside_nvme(model: ModelSpec, plan: Plan) -> Iterator[Part]:
    """What of ZeRO-3's offload does not go on to the disk: page-locked buffers, the 16-bit gradients of one's own part, and parameters
    up to a number. Only what is said to go to a host at all is there (runtime/swap_tensor/optimizer_utils.py,
    partitioned_param_swapper.py)."""
    part, element, stated = trained_part(model, plan), plan.base_dtype.size_bytes, plan.deepspeed
    if plan.offloads_optimizer:
        group = int(part.masters_bytes * stepped_share(model, plan))
        yield Part(Term.OPTIMIZER, stated.nvme_group_buffers * group, stated.nvme_group_buffers * _power_of_two(group))
        yield _flat(Term.GRADIENTS, part.gradient_bytes, stated.pin_memory)
    if plan.offloads_params:
        whole = weights_bytes(model, plan) - scales_bytes(model, plan) + adapter_bytes(model, plan)
        shard = -(-whole // plan.n_gpus)
        yield _flat(Term.WEIGHTS, min(shard, stated.nvme_resident_params * element), stated.pin_memory)
        yield _flat(Term.WEIGHTS, stated.nvme_param_buffers * stated.nvme_buffer_params * element, pinned=True)


def _flat(term: Term, size_bytes: int, pinned: bool) -> Part:
    return Part(term, size_bytes, _power_of_two(size_bytes) if pinned else 0)
