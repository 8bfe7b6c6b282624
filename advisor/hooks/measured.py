"""After a training: what was predicted beside what the card says, and both in the ledger."""

from __future__ import annotations

import sys
from typing import Any

from advisor.units import format_difference, format_size
from advisor.values.check import CheckReport, Comparison


def compare(report: CheckReport) -> Comparison | None:
    """The allocator's highest mark of this process; None where there is no card, or nothing ran on it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    reserved, allocated = int(torch.cuda.max_memory_reserved()), int(torch.cuda.max_memory_allocated())
    return None if reserved == 0 else comparison_of(report, reserved, allocated)


def comparison_of(report: CheckReport, reserved_bytes: int, allocated_bytes: int) -> Comparison:
    """Both sides without the CUDA context, which the allocator does not see."""
    context = report.memory.process_bytes - report.memory.peak_reserved_bytes
    return Comparison(
        predicted_bytes=report.memory.peak_reserved_bytes + report.beside_bytes,
        low_bytes=max(0, report.low_bytes - context),
        high_bytes=report.high_bytes - context,
        measured_bytes=reserved_bytes,
        measured_allocated_bytes=allocated_bytes,
    )


def note_of(report: CheckReport, comparison: Comparison | None) -> str:
    """One line for the ledger, or for a warning."""
    predicted = f"predicted {format_size(report.expected_bytes)} ({report.memory.source}; {report.profile})"
    if comparison is None:
        return predicted
    where = "inside" if comparison.inside else "outside"
    return (
        f"{predicted}; measured {format_size(comparison.measured_bytes)} reserved against {format_size(comparison.predicted_bytes)}, "
        f"{format_difference(comparison.error_share)}, {where} the interval"
    )


def predicted(report: CheckReport) -> dict[str, Any]:
    """Fields of the run's record: the plan, and what was predicted of it."""
    return {
        "model": report.model.id,
        "gpu": None if report.gpu is None else report.gpu.name,
        "plan": report.plan,
        "notes": (note_of(report, None),),
    }
