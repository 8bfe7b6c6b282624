"""Pre-flight checks inside other trainers: they look, warn or stop, and change nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from advisor.errors import MissingExtraError
from advisor.hooks.flight import preflight

if TYPE_CHECKING:
    from advisor.hooks.callback import AdvisorCallback

__all__ = ["AdvisorCallback", "preflight"]


def __getattr__(name: str) -> object:
    """The callback is a class of transformers', which is loaded when somebody asks for it."""
    if name == "AdvisorCallback":
        try:
            return import_module("advisor.hooks.callback").AdvisorCallback
        except ModuleNotFoundError as error:
            raise MissingExtraError("a callback needs transformers: pip install 'finetune-advisor[torch]'") from error
    raise AttributeError(f"module 'advisor.hooks' has no attribute {name!r}")
