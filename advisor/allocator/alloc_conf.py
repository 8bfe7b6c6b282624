"""Reads `PYTORCH_ALLOC_CONF` as torch does: `expandable_segments:True,max_split_size_mb:512`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.allocator.caching import AllocatorConfig
from advisor.errors import InvalidInputError
from advisor.units import MIB


def read_alloc_conf(text: str) -> AllocatorConfig:
    """The settings of torch 2.13 c10/core/AllocatorConfig.h that change what is reserved; those that do not are let pass.

    `garbage_collection_threshold` changes nothing by itself: it needs the limit of a process that set a memory fraction.
    Raises InvalidInputError that names the setting.
    """
    fields: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, colon, value = (part.strip() for part in entry.partition(":"))
        if name in _IGNORED:
            continue
        if not colon or name not in _SETTINGS:
            known = ", ".join([*_SETTINGS, *_IGNORED])
            raise InvalidInputError(f"--alloc-conf {entry}: write name:value, the names being {known}")
        field, read = _SETTINGS[name]
        try:
            fields[field] = read(value)
        except (ValueError, KeyError):
            raise InvalidInputError(f"--alloc-conf {entry}: {value!r} is no value for {name}") from None
    return AllocatorConfig(**fields)


def _mebibytes(text: str) -> int:
    return int(text) * MIB


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "expandable_segments": ("expandable_segments", {"True": True, "False": False}.__getitem__),
    "max_split_size_mb": ("max_split_size_bytes", _mebibytes),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _mebibytes),
    "roundup_power2_divisions": ("roundup_power2_divisions", int),
    "garbage_collection_threshold": ("garbage_collection_threshold", float),
}
_IGNORED = ("backend", "pinned_use_cuda_host_register", "pinned_num_register_threads", "pinned_use_background_threads")
