"""What has a profile: models and cards by name, for the Python API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.frames import Listing
from advisor.values import GpuSpec

if TYPE_CHECKING:
    from advisor.hub.rows import ModelRow


def models(words: str = "") -> Listing[ModelRow]:
    """Return the models that have a profile, those whose name holds every one of `words`."""
    from advisor.hub import search_models

    return Listing(search_models(words))


def gpus(words: str = "") -> Listing[GpuSpec]:
    """Return the cards that have a profile, those whose name holds every one of `words`."""
    from advisor.devices import search_gpus

    return Listing(search_gpus(words))
