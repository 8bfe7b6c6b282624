"""The values that flow through the tool, in one direction and frozen:

    ModelSpec, GpuSpec  →  Plan  →  MemoryBreakdown (+ StepTime)  →  Finding*  →  Advice

Units are in the names (`_bytes`, `_tokens`, `_per_s`); bytes are `int`. Totals and peaks are computed from their parts, so that
they cannot disagree with them. Unknown keys are errors.

The modules that the main command loads do without `from __future__ import annotations`: pydantic would compile every annotation
once more from its text, 3 ms of the command.
"""

from advisor.values.advice import (
    Advice,
    Change,
    Finding,
    Fit,
    Level,
    ModelSummary,
    Range,
    Rung,
    StepTime,
    Verdict,
)
from advisor.values.card import GpuSpec, Price
from advisor.values.checkpoint import CheckpointFormat
from advisor.values.memory import Interval, MemoryBreakdown, PhaseBytes, TermBytes
from advisor.values.model import AttentionShape, Block, HeadShape, Linear, MlpShape, ModelShape, ModelSpec
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.request import Precision, Request, Task
from advisor.values.sharing import DeepSpeedSettings, Offload
from advisor.values.vocabulary import (
    SCHEMA_VERSION,
    Attention,
    DType,
    Head,
    Loss,
    Masters,
    Method,
    Mixers,
    ModelKind,
    Optimizer,
    Phase,
    Quantization,
    Sharding,
    Shift,
    Stack,
    Term,
    Value,
)

__all__ = [
    "ALL_LINEAR",
    "SCHEMA_VERSION",
    "Advice",
    "Attention",
    "AttentionShape",
    "Block",
    "Change",
    "CheckpointFormat",
    "DType",
    "DeepSpeedSettings",
    "Finding",
    "Fit",
    "GpuSpec",
    "Head",
    "HeadShape",
    "Interval",
    "Level",
    "Linear",
    "Loss",
    "Masters",
    "MemoryBreakdown",
    "Method",
    "Mixers",
    "MlpShape",
    "ModelKind",
    "ModelShape",
    "ModelSpec",
    "ModelSummary",
    "Offload",
    "Optimizer",
    "Phase",
    "PhaseBytes",
    "Plan",
    "Precision",
    "Price",
    "Quantization",
    "Range",
    "Request",
    "Rung",
    "Sharding",
    "Shift",
    "Stack",
    "StepTime",
    "Task",
    "Term",
    "TermBytes",
    "Value",
    "Verdict",
]
