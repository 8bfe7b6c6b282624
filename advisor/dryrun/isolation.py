"""Leaves the libraries as they were: what a dry run caches or replaces in them must not reach real training in the same process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def libraries_untouched(quantized: bool) -> Iterator[None]:
    """bitsandbytes keeps its code tables on the device that asked first, and the attention functions are a global table."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if quantized:
        import bitsandbytes.functional  # noqa: F401 (so that its table exists now)
    functional: Any = sys.modules.get("bitsandbytes.functional")
    tables: dict[str, Any] = getattr(functional, "name2qmap", {})
    kept_tables = dict(tables)
    tables.clear()
    name = "flash_attention_2"
    kept_flash = dict(ALL_ATTENTION_FUNCTIONS.items()).get(name)
    try:
        yield
    finally:
        tables.clear()
        tables.update(kept_tables)
        if kept_flash is not None:
            ALL_ATTENTION_FUNCTIONS[name] = kept_flash
