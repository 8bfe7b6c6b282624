"""DeepSpeed's settings: in place, in a file of its own, in one that a framework brings, or the launcher's few.

Keys and defaults of DeepSpeed 0.19.8 runtime/zero/config.py and offload_config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advisor.errors import AdvisorError, InvalidInputError
from advisor.json_files import read_object
from advisor.stacks.engines import deepspeed_file
from advisor.stacks.fields import Fields
from advisor.stacks.launch import offloaded
from advisor.stacks.places import find_file
from advisor.stacks.reading import Around, Launch, Way
from advisor.stacks.trainer_arguments import Notes
from advisor.stacks.write_sharing import BUFFERS, SIZES
from advisor.values.sharing import DeepSpeedSettings, Offload

DEFAULTS = DeepSpeedSettings(reduce_bucket_params=500_000_000, prefetch_params=50_000_000, persistence_params=100_000)
"""What DeepSpeed takes where its file does not say it (`pp_int`)."""


class DeepSpeed(NamedTuple):
    """What DeepSpeed's settings say."""

    stage: int | None = None
    offload: tuple[Offload, ...] = ()
    bf16_masters: bool = False
    settings: DeepSpeedSettings = DeepSpeedSettings()


NO_DEEPSPEED = DeepSpeed()


def of_launcher(launch: Launch) -> DeepSpeed:
    """accelerate's own settings hold no sizes, so that DeepSpeed's defaults stand (accelerate 1.15 utils/dataclasses.py
    `DeepSpeedPlugin`)."""
    if launch.zero_stage is None:
        return NO_DEEPSPEED
    stage, offload = launch.zero_stage, launch.offload if launch.zero_stage else ()
    settings = DEFAULTS if stage == 3 else DeepSpeedSettings()
    if offload:
        settings = settings.model_copy(update={"pin_memory": True})
    return DeepSpeed(stage, _of_stage(stage, offload), settings=settings)


def _of_stage(stage: int, offload: tuple[Offload, ...]) -> tuple[Offload, ...]:
    """Stages below 3 keep parameters on the card whatever is said (runtime/engine.py `_configure_zero_optimizer`)."""
    return offload if stage == 3 else tuple(part for part in offload if part is Offload.OPTIMIZER)


def deepspeed(stated: Any, around: Around, notes: Notes) -> DeepSpeed:
    """ZeRO's stage, offload and sizes. Raises InvalidInputError for a file that cannot be read, and is none that a framework brings."""
    if isinstance(stated, str):
        stated = _named(stated, around)
    if not isinstance(stated, dict):
        raise InvalidInputError("deepspeed: it must be a file or a group of settings")
    whole = Fields(stated, "deepspeed")
    zero, stage = whole.group("zero_optimization"), whole.group("zero_optimization").integer("stage") or 0
    _refuse_unread(whole, zero, notes)
    masters = bool(whole.group("bf16").flag("bf16_master_weights_and_grads"))
    devices = [zero.group(name).text("device") for name in ("offload_optimizer", "offload_param")]
    return DeepSpeed(stage, _of_stage(stage, offloaded(*devices)), masters, _settings(whole, zero, around, stage))


def _named(stated: str, around: Around) -> Mapping[str, Any]:
    """The settings of a file by its name: that which lies there, or that which the framework brings with it."""
    found = find_file(stated, around.folder)
    if found is None:
        row = deepspeed_file(stated, around.defaults.stack)
        if row is None:
            raise InvalidInputError(f"deepspeed: {stated}: there is no such file beside it, above it or here; put it there")
        return {"zero_optimization": row["zero_optimization"]}
    try:
        return read_object(found)
    except AdvisorError as error:
        raise InvalidInputError(f"deepspeed: {error}") from None


_OF_STAGE_3 = ("prefetch_params", "persistence_params", "max_live_params", "max_reuse_params", "sub_group_params")


def _size(zero: Fields, key: str, name: str, around: Around, stage: int) -> int | None:
    """The value; None for what a plan without one means, which in stages 1 and 2 is DeepSpeed's own and in stage 3 `auto`."""
    first, own = getattr(DeepSpeedSettings(), name), getattr(DEFAULTS, name)
    keys = (key, key.removeprefix("stage3_"))  # both are taken (runtime/config_utils.py `populate_by_name`)
    if zero.raw(*keys) == "auto":
        return int(around.model.hidden_size**2) if stage < 3 else first
    found = zero.integer(*keys)
    stated = own if found is None else found
    return first if stage < 3 and stated == own else stated


def _settings(whole: Fields, zero: Fields, around: Around, stage: int) -> DeepSpeedSettings:
    sizes = {name: _size(zero, key, name, around, stage) for name, key in SIZES.items() if stage == 3 or name not in _OF_STAGE_3}
    groups = [zero.group(name) for name in ("offload_optimizer", "offload_param")]
    away = [group for group in groups if group.text("device") not in (None, "none")]
    nvme = stage == 3 and any(group.text("device") == "nvme" for group in away)
    overlap = None if zero.raw("overlap_comm") == "auto" else zero.flag("overlap_comm")
    return DeepSpeedSettings(
        **{name: value for name, value in sizes.items() if value is not None},
        overlap_comm=overlap,
        pin_memory=any(group.flag("pin_memory") is not False for group in away),  # True by default (offload_config.py)
        nvme=nvme,
        **(_buffers(zero) if nvme else {}),
        fp32_gradients=whole.group("data_types").text("grad_accum_dtype") in ("fp32", "float32"),
    )


def _buffers(zero: Fields) -> dict[str, int]:
    """What stays on the host beside a disk, as far as it is stated."""
    stated = {
        field: zero.group(group).integer(key)
        for group, keys in BUFFERS.items()
        if zero.group(group).text("device") == "nvme"
        for field, key in keys.items()
    }
    return {field: value for field, value in stated.items() if value is not None}


_UNPRICED = {
    "zero_hpz_partition_size": (Way.UP, "keeps a second copy of the weights in each node"),
    "mics_shard_size": (Way.UP, "shards over fewer cards than there are"),
    "zero_quantized_weights": (Way.EITHER, "gathers weights in 8 bit"),
    "zero_quantized_gradients": (Way.EITHER, "reduces gradients in 4 bit"),
    "zenflow": (Way.EITHER, "steps on a part of the gradients on the card"),
}
"""Settings of ZeRO that move the memory and have no price."""


def _refuse_unread(whole: Fields, zero: Fields, notes: Notes) -> None:
    """Raises InvalidInputError for parallelism that splits the model otherwise; remarks on what moves the memory and is not priced."""
    for group, name in (("tensor_parallel", "autotp_size"), ("pipeline", "stages")):
        if (whole.group(group).integer(name) or 1) > 1:
            raise InvalidInputError(f"deepspeed: {group}.{name}: splits matrices or layers over cards, which is not priced; leave it out")
    if (whole.integer("sequence_parallel_size") or 1) > 1:
        raise InvalidInputError("deepspeed: sequence_parallel_size: splits sequences over cards, which is not priced; leave it out")
    for name, (way, why) in _UNPRICED.items():
        if zero.raw(name) not in (None, False, 0, 1, -1):
            notes.unpriced(name, why, way)
