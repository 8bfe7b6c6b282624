"""The card of this machine, with the memory that is free on it now."""

from __future__ import annotations

import os
from typing import Any

from advisor.devices.cards import cards_by_key, key_of, spec_of
from advisor.errors import InvalidInputError
from advisor.units import format_size
from advisor.values import GpuSpec


def local_card() -> GpuSpec:
    """The first visible NVIDIA card. Raises InvalidInputError where there is none, or none of its memory is free."""
    try:
        import pynvml
    except ImportError as error:
        raise InvalidInputError(
            "the local GPU cannot be read without nvidia-ml-py; pass --gpu, like --gpu 'rtx 4090' or --gpu 24GB"
        ) from error
    try:
        pynvml.nvmlInit()
        handle, which = _first_visible(pynvml)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise InvalidInputError(f"no local NVIDIA GPU ({error}); pass --gpu, like --gpu 'rtx 4090', 24GB or 79.2GiB") from error
    free_bytes, total_bytes = int(memory.free), int(memory.total)
    if free_bytes <= 0:
        raise InvalidInputError(f"the local GPU ({name}) has no free memory; stop what runs on it, or pass --gpu")
    echo = f"the local {name} ({which}), {format_size(free_bytes)} free of {format_size(total_bytes)}"
    update = {"usable_bytes": free_bytes, "usable_source": "free memory now, as the driver reports it", "resolved_from": echo}
    card = cards_by_key().get(key_of(str(name)))
    if card is not None:
        return spec_of(card, echo).model_copy(update=update)
    known = {"name": str(name), "vendor": "NVIDIA", "compute_capability": f"{major}.{minor}", "bf16_supported": major >= 8}
    return GpuSpec.model_validate({**known, **update})


def _first_visible(pynvml: Any) -> tuple[Any, str]:
    """The first entry of CUDA_VISIBLE_DEVICES (an index, a UUID or a MIG id), or card 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible in ("", "0") or visible.lstrip("-").isdigit():
        index = int(visible or 0)
        if index < 0:
            raise InvalidInputError("CUDA_VISIBLE_DEVICES hides every GPU; pass --gpu")
        return pynvml.nvmlDeviceGetHandleByIndex(index), f"GPU {index}"
    return pynvml.nvmlDeviceGetHandleByUUID(visible), visible
