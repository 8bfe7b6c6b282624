"""Which fine-tuning method for this model on this GPU, does it fit, and what to try next.

>>> from advisor import advise, estimate, Plan

Everything is loaded on first use (PEP 562), so that `import advisor` costs nothing and a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_VALUES = (
    "Advice",
    "Attention",
    "DType",
    "Finding",
    "Fit",
    "GpuSpec",
    "Loss",
    "MemoryBreakdown",
    "Method",
    "ModelSpec",
    "Optimizer",
    "Plan",
    "Quantization",
    "Rung",
    "Sharding",
    "Stack",
)
_ERRORS = ("AdvisorError", "InvalidInputError", "MissingExtraError", "UnknownNameError", "UnsupportedError")
_HOMES = {name: "advisor.values" for name in _VALUES} | {name: "advisor.errors" for name in _ERRORS}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
