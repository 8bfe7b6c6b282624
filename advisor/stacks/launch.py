"""An accelerate configuration: how many processes, what they share, which mixed precision. Read in accelerate 1.15."""

from __future__ import annotations

from pathlib import Path

from advisor.bounded import children, is_file
from advisor.errors import InvalidInputError
from advisor.stacks.fields import Fields
from advisor.stacks.files import read_settings
from advisor.stacks.places import is_below, project_of
from advisor.stacks.reading import Launch
from advisor.values.sharing import Offload
from advisor.values.vocabulary import DType

MARKS = ("distributed_type", "compute_environment", "num_processes", "num_machines")
"""Keys of which two say that a file is accelerate's (commands/config/config_args.py)."""
FSDP_VERSION = 1
"""utils/launch.py `prepare_multi_gpu_env`: FSDP_VERSION where the file does not say it."""
BY_BLOCK = "TRANSFORMER_BASED_WRAP"
"""`fsdp_auto_wrap_policy` that gathers a block at a time (utils/constants.py FSDP_AUTO_WRAP_POLICY)."""
WHOLE_STRATEGIES = ("SHARD_GRAD_OP", "2", "_HYBRID_SHARD_ZERO2", "HYBRID_SHARD_ZERO2", "5")
"""Strategies of FSDP1 that keep layers whole from forward to backward, by name and number (utils/constants.py FSDP_SHARDING_STRATEGY)."""
DP_REPLICATE, DP_SHARD = "parallelism_config_dp_replicate_size", "parallelism_config_dp_shard_size"
"""Replicas of FSDP2, and cards that share one of them (commands/launch.py)."""
_SPLITS = ("tp", "cp", "sp")
"""Kinds of `parallelism_config` that split matrices or sequences over cards."""
_PRECISIONS = {"bf16": DType.BF16, "fp16": DType.FP16, "no": DType.FP32, "fp8": DType.BF16}


ALL_OFFLOADED = (Offload.OPTIMIZER, Offload.PARAMS)
"""What FSDP's one setting moves."""


def offloaded(optimizer_device: str | None, params_device: str | None) -> tuple[Offload, ...]:
    """What DeepSpeed keeps elsewhere than on the card, by the devices that it is told."""
    devices = zip(ALL_OFFLOADED, (optimizer_device, params_device), strict=True)
    return tuple(part for part, device in devices if device not in (None, "none"))


def is_accelerate(values: object) -> bool:
    return isinstance(values, dict) and sum(name in values for name in MARKS) >= 2


def read_accelerate(path: Path) -> Launch:
    """What `accelerate launch --config_file` would set."""
    values = read_settings(path).values
    if not is_accelerate(values):
        raise InvalidInputError(f"{path} is no accelerate configuration: it has no distributed_type and num_processes")
    fields = Fields(values, str(path))
    kind = (fields.text("distributed_type") or "NO").upper()
    n_gpus = fields.count("num_processes")
    fsdp, deepspeed = fields.group("fsdp_config"), fields.group("deepspeed_config")
    stage = deepspeed.integer("zero_stage") if kind == "DEEPSPEED" else None
    on_host = offloaded(deepspeed.text("offload_optimizer_device"), deepspeed.text("offload_param_device"))
    strategy = (fsdp.text("fsdp_sharding_strategy") or "").upper()
    stated = fsdp.raw("fsdp_reshard_after_forward")
    reshards = strategy not in WHOLE_STRATEGIES and str(stated).upper() not in ("FALSE", *WHOLE_STRATEGIES)
    hybrid = "HYBRID" in f"{strategy} {stated}".upper() or strategy == "4"
    stated = fields.raw("mixed_precision")
    word = "no" if stated is False else str(stated or "no").lower()
    if word not in _PRECISIONS:
        raise InvalidInputError(f"{path}: mixed_precision is {word!r}; it must be no, bf16, fp16 or fp8")
    return Launch(
        n_gpus=n_gpus,
        fsdp=kind == "FSDP" and strategy not in ("NO_SHARD", "3"),
        fsdp_version=(fsdp.integer("fsdp_version") or FSDP_VERSION) if kind == "FSDP" else None,
        checkpointing=bool(fsdp.flag("fsdp_activation_checkpointing")),
        reshards=reshards,
        hybrid=hybrid,
        shard_group=_shard_group(fields, n_gpus),
        wraps=(fsdp.text("fsdp_auto_wrap_policy") or BY_BLOCK).upper() == BY_BLOCK,
        loads_on_host=kind == "FSDP" and fsdp.flag("fsdp_cpu_ram_efficient_loading") is not False,
        zero_stage=stage,
        offload=ALL_OFFLOADED if fsdp.flag("fsdp_offload_params") else on_host,
        deepspeed_file=deepspeed.text("deepspeed_config_file") or "",
        precision=None if word == "no" else _PRECISIONS[word],
        source=str(path),
    )


def _shard_group(fields: Fields, n_gpus: int | None) -> int | None:
    """Cards that share a model under `parallelism_config`; None where it names no replicas.

    Raises InvalidInputError for parallelism that is not priced, by its key.
    """
    inner = fields.group("parallelism_config")
    for kind in _SPLITS:
        name = f"parallelism_config_{kind}_size"
        if (inner.integer(name) or 1) > 1:
            raise InvalidInputError(f"{fields.where}: {name}: splits matrices or sequences over cards, which is not priced; leave it out")
    replicas, group = inner.count(DP_REPLICATE) or 1, inner.count(DP_SHARD) or 1
    if replicas == 1:
        return None
    if n_gpus is not None and replicas * group != n_gpus:
        raise InvalidInputError(f"{fields.where}: {replicas} replicas over {group} GPUs each are not the {n_gpus} of num_processes")
    return group


def beside(path: Path) -> Path | None:
    """The accelerate configuration that lies in the same folder, if exactly one does."""
    try:
        found = [other for other in children(path.parent) if other != path and _named_so(other)]
    except InvalidInputError:
        return None
    return found[0] if len(found) == 1 else None


def _named_so(path: Path) -> bool:
    return (
        path.suffix in (".yaml", ".yml") and "accelerate" in path.stem.lower() and is_file(path) and is_below(path, project_of(path.parent))
    )
