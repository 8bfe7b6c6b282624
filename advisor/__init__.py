"""Which fine-tuning method for this model on this GPU, does it fit, and what to try next.

>>> from advisor import advise, estimate, Plan

Everything is loaded on first use (PEP 562), so that `import advisor` costs nothing and a command pays only for what it needs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.api import advise, estimate, trace
    from advisor.errors import AdvisorError, InvalidInputError, MissingExtraError, UnknownNameError, UnsupportedError
    from advisor.values import (
        Advice,
        Attention,
        DType,
        Finding,
        Fit,
        GpuSpec,
        Loss,
        MemoryBreakdown,
        Method,
        ModelSpec,
        Optimizer,
        Plan,
        Quantization,
        Rung,
        Sharding,
        Stack,
    )
    from advisor.values.request import Precision, Request, Task

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "AdvisorError",
    "Attention",
    "DType",
    "Finding",
    "Fit",
    "GpuSpec",
    "InvalidInputError",
    "Loss",
    "MemoryBreakdown",
    "Method",
    "MissingExtraError",
    "ModelSpec",
    "Optimizer",
    "Plan",
    "Precision",
    "Quantization",
    "Request",
    "Rung",
    "Sharding",
    "Stack",
    "Task",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "advise",
    "estimate",
    "trace",
]

_FUNCTIONS = frozenset({"advise", "estimate", "trace"})
_REQUEST = frozenset({"Precision", "Request", "Task"})


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'advisor' has no attribute {name!r}")
    home = "api" if name in _FUNCTIONS else "values.request" if name in _REQUEST else "errors" if name.endswith("Error") else "values"
    return getattr(import_module(f"advisor.{home}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """The room `advisor/trace/` and the function `trace` share a name: importing the room must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _FUNCTIONS or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
