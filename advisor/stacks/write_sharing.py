"""How cards share a model, as the settings of a Trainer: DeepSpeed's in place, or FSDP's. `stacks.sharing` reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advisor.stacks.engines import fsdp_of
from advisor.stacks.facts import StackDefaults
from advisor.values.plan import Plan
from advisor.values.sharing import DeepSpeedSettings, Offload
from advisor.values.vocabulary import Masters, Sharding

SIZES = {
    "reduce_bucket_params": "reduce_bucket_size",
    "prefetch_params": "stage3_prefetch_bucket_size",
    "persistence_params": "stage3_param_persistence_threshold",
    "max_live_params": "stage3_max_live_parameters",
    "max_reuse_params": "stage3_max_reuse_distance",
    "sub_group_params": "sub_group_size",
}
"""Field of `DeepSpeedSettings` → DeepSpeed's key under `zero_optimization`."""
AUTO = "auto"
"""What the Trainer fills in by its own arguments (transformers 5.23 integrations/deepspeed.py `HfTrainerDeepSpeedConfig`)."""


def sharing_settings(plan: Plan, defaults: StackDefaults) -> dict[str, Any]:
    """Settings by name; none on one card, nor where each card holds a replica that is reduced once a step."""
    settings: dict[str, Any] = {}
    if plan.sharding.is_zero:
        settings["deepspeed"] = deepspeed_settings(plan)
    elif plan.sharding.is_fsdp:
        settings |= _fsdp(plan, defaults)
    if plan.sync_each_batch:
        settings["accelerator_config"] = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return settings


def _fsdp(plan: Plan, defaults: StackDefaults) -> dict[str, Any]:
    strategy = "full_shard" if plan.reshard_after_forward else "shard_grad_op"
    inner: dict[str, Any] = {}
    if plan.sharding is not fsdp_of(defaults):
        inner["version"] = 1 if plan.sharding is Sharding.FSDP1 else 2
    if not plan.reshard_after_forward and plan.sharding is Sharding.FSDP2:
        inner["reshard_after_forward"] = False
    if plan.loads_on_rank_0:
        inner["cpu_ram_efficient_loading"] = True
    offload = " offload" if plan.offloads_params else ""
    return {"fsdp": f"{strategy} auto_wrap{offload}", **({"fsdp_config": inner} if inner else {})}


BUFFERS = {
    "offload_optimizer": {"nvme_group_buffers": "buffer_count"},
    "offload_param": {
        "nvme_param_buffers": "buffer_count",
        "nvme_buffer_params": "buffer_size",
        "nvme_resident_params": "max_in_cpu",
    },
}
"""Group of DeepSpeed's settings → field of `DeepSpeedSettings` → its key there (0.19.8 runtime/zero/offload_config.py)."""
_FIRST = DeepSpeedSettings()


def deepspeed_settings(plan: Plan) -> dict[str, Any]:
    """DeepSpeed's own configuration, complete: sizes that the plan leaves open are `auto` in stage 3, and DeepSpeed's below."""
    stage, stated = int(plan.sharding.value[-1]), plan.deepspeed
    zero: dict[str, Any] = {"stage": stage}
    for name, key in SIZES.items():
        value = getattr(stated, name)
        if value is not None and value != getattr(DeepSpeedSettings(), name):
            zero[key] = value
        elif value is None and stage == 3:
            zero[key] = AUTO
    if stated.overlap_comm is not None:
        zero["overlap_comm"] = stated.overlap_comm
    for key, moved in (("offload_optimizer", plan.offloads_optimizer), ("offload_param", plan.offloads_params)):
        if moved:
            where = {"device": "nvme", "nvme_path": "/local_nvme"} if stated.nvme else {"device": "cpu"}
            buffers = {name: value for field, name in BUFFERS[key].items() if (value := getattr(stated, field)) != getattr(_FIRST, field)}
            zero[key] = {**where, "pin_memory": stated.pin_memory, **buffers}
    more = {"data_types": {"grad_accum_dtype": "fp32"}} if stated.fp32_gradients else {}
    return {
        "train_micro_batch_size_per_gpu": AUTO,
        "gradient_accumulation_steps": AUTO,
        "gradient_clipping": AUTO,
        "bf16": {"enabled": AUTO},
        "zero_optimization": zero,
        **more,
    }


def without_sharing(plan: Plan) -> Plan:
    """The plan as the trainer's own file says it where the launcher's says what cards share."""
    if plan.sharding is Sharding.NONE:
        return plan
    shared = {"sharding": Sharding.DDP, "masters": Masters.NONE, "shard_group": None, "reshard_after_forward": True}
    kept = (Offload.ACTIVATIONS,) if plan.offloads_activations else ()
    return plan.model_copy(update={**shared, "offload": kept, "deepspeed": DeepSpeedSettings(), "loads_on_rank_0": False})


def sharing_lines(plan: Plan, defaults: StackDefaults) -> Iterator[str]:
    """The settings as YAML."""
    yield from nested_lines(sharing_settings(plan, defaults))


def axolotl_lines(plan: Plan, defaults: StackDefaults) -> Iterator[str]:
    """The same in axolotl's words, whose FSDP settings are its own (axolotl 0.19 utils/schemas/fsdp.py)."""
    if not plan.sharding.is_fsdp:
        yield from sharing_lines(plan, defaults)
        return
    yield from ("fsdp_version: 2", "fsdp_config:", f"  reshard_after_forward: {str(plan.reshard_after_forward).lower()}")
    if plan.offloads_params:
        yield "  offload_params: true"
    if plan.loads_on_rank_0:
        yield "  cpu_ram_efficient_loading: true"
    yield "  auto_wrap_policy: TRANSFORMER_BASED_WRAP"


def nested_lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Groups of settings as YAML, whose words need no quotes."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from nested_lines(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {str(value).lower() if isinstance(value, bool) else value}"
