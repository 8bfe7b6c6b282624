"""Which fine-tuning method for this model on this GPU, does it fit, and what to try next.

>>> from advisor import advise, estimate, Plan

Everything is loaded on first use (PEP 562), so that `import advisor` costs nothing and a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from advisor.display import draw_with
from advisor.python_words import speaking_python

if TYPE_CHECKING:
    from advisor.adapters import inspect_adapter, truncate_adapter
    from advisor.api import advise, calibrate, estimate, fit, next_step, sweep, trace
    from advisor.comparing import compare
    from advisor.configs import check
    from advisor.errors import AdvisorError, DoesNotFitError, InvalidInputError, MissingExtraError, UnknownNameError, UnsupportedError
    from advisor.hooks import AdvisorCallback as AdvisorCallback, preflight
    from advisor.ledger import record, record_callback, runs
    from advisor.listings import gpus, models
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
        ModelShape,
        ModelSpec,
        Optimizer,
        Plan,
        Quantization,
        Rung,
        Sharding,
        Stack,
    )
    from advisor.values.adapter import AdapterReport, TruncatedAdapter
    from advisor.values.calibration import Calibration, CalibrationRun
    from advisor.values.check import CheckReport, Comparison
    from advisor.values.evidence import AdapterFacts, EvaluationFacts, Facts, RunFacts
    from advisor.values.next_step import NextStep
    from advisor.values.offer import SideBySide
    from advisor.values.question import FitAnswer
    from advisor.values.request import Precision, Request, Task
    from advisor.values.run import Evaluation, RunRecord
    from advisor.values.sweep import SweepReport

__version__ = "0.1.0"

__all__ = [
    "AdapterFacts",
    "AdapterReport",
    "Advice",
    "AdvisorError",
    "Attention",
    "Calibration",
    "CalibrationRun",
    "CheckReport",
    "Comparison",
    "DType",
    "DoesNotFitError",
    "Evaluation",
    "EvaluationFacts",
    "Facts",
    "Finding",
    "Fit",
    "FitAnswer",
    "GpuSpec",
    "InvalidInputError",
    "Loss",
    "MemoryBreakdown",
    "Method",
    "MissingExtraError",
    "ModelShape",
    "ModelSpec",
    "NextStep",
    "Optimizer",
    "Plan",
    "Precision",
    "Quantization",
    "Request",
    "RunFacts",
    "RunRecord",
    "Rung",
    "Sharding",
    "SideBySide",
    "Stack",
    "SweepReport",
    "Task",
    "TruncatedAdapter",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "advise",
    "calibrate",
    "check",
    "compare",
    "estimate",
    "fit",
    "gpus",
    "inspect_adapter",
    "models",
    "next_step",
    "preflight",
    "record",
    "record_callback",
    "runs",
    "sweep",
    "trace",
    "truncate_adapter",
]

_FUNCTIONS = {
    **dict.fromkeys(("advise", "calibrate", "estimate", "fit", "next_step", "sweep", "trace"), "api"),
    **dict.fromkeys(("gpus", "models"), "listings"),
    **dict.fromkeys(("inspect_adapter", "truncate_adapter"), "adapters"),
    "check": "configs",
    "compare": "comparing",
    "preflight": "hooks",
    **dict.fromkeys(("record", "record_callback", "runs"), "ledger"),
}
_WARNS = {"preflight", "record_callback", "runs"}
"""Their warnings point at the line that calls them, which a wrapper would hide."""
_VALUES = {
    **dict.fromkeys(("Precision", "Request", "Task"), "values.request"),
    **dict.fromkeys(("Evaluation", "RunRecord"), "values.run"),
    **dict.fromkeys(("AdapterFacts", "EvaluationFacts", "Facts", "RunFacts"), "values.evidence"),
    "FitAnswer": "values.question",
    "NextStep": "values.next_step",
    "SideBySide": "values.offer",
    "SweepReport": "values.sweep",
    **dict.fromkeys(("AdapterReport", "TruncatedAdapter"), "values.adapter"),
    **dict.fromkeys(("Calibration", "CalibrationRun"), "values.calibration"),
    **dict.fromkeys(("CheckReport", "Comparison"), "values.check"),
}
_NEEDS_TRANSFORMERS = {"AdvisorCallback": "hooks"}
"""Not among the names that `import *` gives: touching it loads transformers."""


def __getattr__(name: str) -> object:
    if name in _NEEDS_TRANSFORMERS:
        return getattr(import_module(f"advisor.{_NEEDS_TRANSFORMERS[name]}"), name)
    if name not in __all__:
        raise AttributeError(f"module 'advisor' has no attribute {name!r}")
    if name in _FUNCTIONS:
        found = getattr(import_module(f"advisor.{_FUNCTIONS[name]}"), name)
        return found if name in _WARNS else speaking_python(found)
    home = _VALUES.get(name) or ("errors" if name.endswith("Error") else "values")
    return getattr(import_module(f"advisor.{home}"), name)


def __dir__() -> list[str]:
    return __all__


draw_with(lambda: import_module("advisor.render.results"))
