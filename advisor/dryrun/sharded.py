"""Share a model out over several cards as its launcher does, by the engines themselves, on meta tensors.

Sources are files of torch 2.13, accelerate 1.15 and transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from advisor.dryrun import fake_cards
from advisor.dryrun.load import DTYPES
from advisor.dryrun.meta_model import MetaModel
from advisor.dryrun.of_several import leaves_towers, name_layers
from advisor.dryrun.places import unwrapped
from advisor.dryrun.recorder import Recorder, local
from advisor.errors import UnsupportedError
from advisor.memory.recorded import looks_for_unused
from advisor.memory.units import CARVES, DEFERS
from advisor.values import Masters, Plan, Sharding

ADAPTER, WEIGHTS = "adapter", "weights"
SHARDED, REPLICATED = ("fsdp",), "replicas"
"""Dimensions of the mesh of cards."""


@contextmanager
def cards_of(plan: Plan, recorder: Recorder) -> Iterator[None]:
    """Play one card of the plan's several, or be one of several real processes, whose group is there; nothing where there is one card."""
    if plan.sharding is Sharding.NONE:
        yield
        return
    with ExitStack() as stack:
        if recorder.device_type == fake_cards.DEVICE:
            stack.enter_context(fake_cards.one_of(plan.n_gpus, recorder.resized))
        else:
            stack.enter_context(fake_cards.resizes_told(recorder.device_type, recorder.resized))
        for replacement in _ENGINES[plan.sharding](recorder):
            stack.enter_context(fake_cards.replaced(*replacement))
        yield


def arrives_unit_by_unit(plan: Plan) -> bool:
    """Whether the model is loaded on the host, and comes onto the card as the engine wraps it (transformers trainer.py
    `place_model_on_device`); bitsandbytes makes its weights on the card (quantizers/quantizer_bnb_4bit.py `update_device_map`)."""
    return plan.sharding.is_fsdp and plan.quantization is None


def spans_layers(plan: Plan) -> bool:
    """Whether the engine keeps buffers that belong to no layer, so that a few layers do not show what many do: DDP's buckets
    (torch/csrc/distributed/c10d/reducer.cpp, `compute_bucket_assignment_by_size`)."""
    return plan.sharding is Sharding.DDP


def computed(plan: Plan) -> Plan:
    """The plan whose loop runs: under FSDP2 no autocast stands around the model, because units compute in 16 bit of themselves
    (accelerate accelerator.py `_prepare_fsdp2`, which prepares no autocast)."""
    return plan.model_copy(update={"autocast": False}) if plan.sharding is Sharding.FSDP2 else plan


def wrap(built: MetaModel, plan: Plan, recorder: Recorder) -> None:
    """Share `built` out over the plan's cards, and say what then rests on this one."""
    if plan.sharding is Sharding.NONE:
        return
    if arrives_unit_by_unit(plan) and recorder.device_type == fake_cards.DEVICE:
        for name, tensor in _tensors(built.model):
            recorder.on_host(tensor, name)
    name_layers(built.base)
    with recorder:
        _WRAPS[plan.sharding](built, plan, recorder.device_type)
    for name, tensor in _tensors(built.model):
        recorder.label(local(tensor), ADAPTER if tensor.requires_grad and plan.method.has_adapter else WEIGHTS, unwrapped(name))


def _trains_in_16_bit(model: Any) -> bool:
    return any(each.requires_grad and each.dtype != torch.float32 for each in model.parameters())


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


# ---------------------------------------------------------------------------------------------------------- loops


@contextmanager
def micro_step(built: MetaModel, plan: Plan, last: bool) -> Iterator[None]:
    """Around one micro-batch: the Trainer's loop reduces gradients at the last of a step alone (accelerate accelerator.py `no_sync`)."""
    if plan.sharding is Sharding.NONE or last or plan.sync_each_batch or plan.stack not in DEFERS:
        yield
    elif plan.sharding is Sharding.FSDP2:
        built.model.set_requires_gradient_sync(False)
        yield
        built.model.set_requires_gradient_sync(True)
    else:
        with built.model.no_sync() if hasattr(built.model, "no_sync") else nullcontext():
            yield


class LocalParameters:
    """The trained parameters as the optimizer steps on them: each card's own part, which is all that its states are made of."""

    def __init__(self, model: Any, recorder: Recorder) -> None:
        trained = [(unwrapped(name), each) for name, each in model.named_parameters() if each.requires_grad]
        self._names, self._shared = [name for name, _ in trained], [each for _, each in trained]
        self.parameters = [self._own(each) for each in self._shared]
        self._recorder = recorder

    @staticmethod
    def _own(parameter: Any) -> Any:
        part = local(parameter)
        return parameter if part is parameter else torch.nn.Parameter(part, requires_grad=True)

    def take_gradients(self) -> None:
        """Each part gets its part of the gradient."""
        for name, shared, own in zip(self._names, self._shared, self.parameters, strict=True):
            if own is not shared and shared.grad is not None:
                own.grad, shared.grad = local(shared.grad), None
            if own.grad is not None:
                self._recorder.label(own.grad, "gradients", name)


# ---------------------------------------------------------------------------------------------------------- FSDP2


def _fsdp2(recorder: Recorder) -> Iterator[tuple[Any, str, Any]]:
    """What torch does with the device of tensors, said for meta (distributed/fsdp/_fully_shard)."""
    from torch.distributed.fsdp._fully_shard import _fsdp_init, _fsdp_param_group
    from torch.distributed.tensor._sharding_prop import ShardingPropagator

    meta_of = ShardingPropagator._propagate_tensor_meta_non_cached

    def moved(params: list[Any], buffers: list[Any], device: Any) -> None:
        for tensor in (*params, *buffers):
            recorder.arrive(tensor)

    def unseen(*args: Any) -> Any:
        """torch works out the whole tensor's shape on a fake one, which takes nothing."""
        with _disable_current_modes():
            return meta_of(*args)

    yield _fsdp_init, "_move_states_to_device", moved
    yield _fsdp_param_group.FSDPParamGroup, "_validate_no_meta_params", lambda group: None
    yield ShardingPropagator, "_propagate_tensor_meta_non_cached", unseen


def _wrap_by_fsdp2(built: MetaModel, plan: Plan, device_type: str) -> None:
    """Raises UnsupportedError where the installed accelerate does otherwise with what is trained than the plan says."""
    if plan.stack in CARVES:
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        in_16_bit = _trains_in_16_bit(built.model)
        built.model = fsdp2_prepare_model(_accelerator(plan, device_type), built.model)
        lifted = in_16_bit and not _trains_in_16_bit(built.model)
        if in_16_bit and lifted != (plan.masters is Masters.LIFTED):
            does = "lifts what is trained to fp32" if lifted else "trains it in 16 bit"
            raise UnsupportedError(f"masters {plan.masters.value}: the installed accelerate {does}; advise estimate prices the other")
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if plan.masters is Masters.LIFTED:
        for parameter in built.model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    dtype = _mixed(plan)
    options = {
        "mesh": _mesh(plan, device_type),
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype),
        "reshard_after_forward": plan.reshard_after_forward,
    }
    for layer in built.model.get_submodule(built.layer_path):
        fully_shard(layer, **options)
    fully_shard(built.model, **options)


def _mesh(plan: Plan, device_type: str) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    if plan.shard_group is None:
        return init_device_mesh(device_type, (plan.n_gpus,), mesh_dim_names=SHARDED)
    return init_device_mesh(device_type, (plan.n_gpus // plan.shard_group, plan.shard_group), mesh_dim_names=(REPLICATED, *SHARDED))


def _mixed(plan: Plan) -> torch.dtype | None:
    return DTYPES[plan.autocast_dtype] if plan.autocast else None


def _accelerator(plan: Plan, device_type: str) -> Any:
    """What accelerate's own function asks of an `Accelerator`, which cannot be made without the cards."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=plan.reshard_after_forward,
        auto_wrap_policy="transformer_based_wrap",
        cpu_offload=False,
        cpu_ram_efficient_loading=False,
        activation_checkpointing=False,
        mixed_precision_policy=plan.autocast_dtype.value if plan.autocast else None,
    )
    names = SHARDED if plan.shard_group is None else (REPLICATED, *SHARDED)
    return SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device(device_type),
        mixed_precision=plan.autocast_dtype.value if plan.autocast else "no",
        is_main_process=False,
        torch_device_mesh={names: _mesh(plan, device_type)},
        parallelism_config=SimpleNamespace(fsdp_dim_names=names),
    )


# ---------------------------------------------------------------------------------------------------------- FSDP1


def _fsdp1(recorder: Recorder) -> Iterator[tuple[Any, str, Any]]:
    """What torch does with the device of tensors, said for meta (distributed/fsdp/_init_utils.py)."""
    from torch.distributed.fsdp import FullyShardedDataParallel, _flat_param, _init_utils, _runtime_utils

    def moved(module: Any, ignored_params: Any, ignored_buffers: Any, device: Any) -> None:
        queue = [module]
        while queue:
            current = queue.pop(0)
            for tensor in (*current.parameters(recurse=False), *current.buffers(recurse=False)):
                recorder.arrive(tensor)
            queue += [child for child in current.children() if not isinstance(child, FullyShardedDataParallel)]

    yield _init_utils, "_move_module_to_device", moved
    yield _init_utils, "_need_to_materialize_module", lambda *_: (False, False)
    yield _init_utils, "_get_compute_device", lambda *_: torch.device(fake_cards.DEVICE)
    for module in (_flat_param, _runtime_utils):
        yield module, "_no_dispatch_record_stream", lambda *_: None


def _wrap_by_fsdp1(built: MetaModel, plan: Plan, device_type: str) -> None:
    """accelerate accelerator.py `prepare_model`, with the settings that `accelerate config` writes."""
    from torch.distributed.fsdp import BackwardPrefetch, FullyShardedDataParallel, MixedPrecision, ShardingStrategy

    dtype = _mixed(plan)
    if plan.quantization is not None:
        dtype = DTYPES[plan.base_dtype]  # transformers distributed/fsdp.py `update_fsdp_plugin_peft`: the type of the storage
    policy = None if dtype is None else MixedPrecision(param_dtype=dtype, reduce_dtype=dtype, buffer_dtype=dtype)
    built.model = FullyShardedDataParallel(
        built.model,
        sharding_strategy=ShardingStrategy.FULL_SHARD if plan.reshard_after_forward else ShardingStrategy.SHARD_GRAD_OP,
        auto_wrap_policy=_wrap_policy(built, plan),
        mixed_precision=policy,
        use_orig_params=not plan.method.has_adapter,
        backward_prefetch=BackwardPrefetch.BACKWARD_PRE,
        device_id=torch.device(device_type, 0),
    )
    if plan.masters is Masters.LIFTED:
        for module in FullyShardedDataParallel.fsdp_modules(built.model):
            flat = module._flat_param if module._has_params else None
            if flat is not None and flat.requires_grad and flat.dtype != torch.float32:
                flat.data = flat.data.float()
                module._handle._orig_param_dtype = torch.float32


def _wrap_policy(built: MetaModel, plan: Plan) -> Any:
    """The layers; under an adapter peft's policy makes a unit of each trained matrix (transformers distributed/fsdp.py)."""
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    if plan.method.has_adapter:
        from peft.utils.other import fsdp_auto_wrap_policy

        return fsdp_auto_wrap_policy(built.model)
    layers = {type(layer) for layer in built.model.get_submodule(built.layer_path)}
    return partial(transformer_auto_wrap_policy, transformer_layer_cls=layers)


# ------------------------------------------------------------------------------------------------------------ DDP


def _ddp(recorder: Recorder) -> Iterator[tuple[Any, str, Any]]:
    """There is no other process whose parameters could differ, and nothing takes time (nn/parallel/distributed.py `__init__`)."""
    from torch.nn.parallel import distributed

    yield distributed, "_verify_param_shape_across_processes", lambda *_: None
    yield distributed.dist, "Logger", type("Logger", (distributed.dist.Logger,), {"set_runtime_stats_and_log": lambda self: None})


def _wrap_by_ddp(built: MetaModel, plan: Plan, device_type: str) -> None:
    """Where parameters get no gradient and nobody looks for them the second step stops: what is run is that with the setting."""
    looks = looks_for_unused(plan) or leaves_towers(built.base, plan)
    built.model = torch.nn.parallel.DistributedDataParallel(built.model, find_unused_parameters=looks)


_ENGINES: dict[Sharding, Any] = {Sharding.FSDP2: _fsdp2, Sharding.FSDP1: _fsdp1, Sharding.DDP: _ddp}
"""Engine → what of it is replaced while it is played: an object, the name of its attribute, and what stands there."""
_WRAPS: dict[Sharding, Any] = {Sharding.FSDP2: _wrap_by_fsdp2, Sharding.FSDP1: _wrap_by_fsdp1, Sharding.DDP: _wrap_by_ddp}
