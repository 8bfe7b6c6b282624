"""What has a profile: models and cards by name, for the Python API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.values import GpuSpec

if TYPE_CHECKING:
    from advisor.hub.rows import ModelRow


def models(words: str = "") -> tuple[ModelRow, ...]:
    """Return the models that have a profile, those whose name holds every one of `words`."""
    from advisor.hub import search_models

    return search_models(words)


def gpus(words: str = "") -> tuple[GpuSpec, ...]:
    """Return the cards that have a profile, those whose name holds every one of `words`."""
    from advisor.devices import search_gpus

    return search_gpus(words)
