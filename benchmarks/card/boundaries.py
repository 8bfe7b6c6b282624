"""Plans at the edge of the card found: some that the product just calls a fit, and some that it just refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advisor.ladder import classify
from advisor.memory import estimate_memory
from advisor.values import Fit, GpuSpec, MemoryBreakdown
from benchmarks.card.grid import LARGE, LLAMA_8B, LLAMA_70B, MIDDLE, QUANTISED, SMALL, Row, Run, run_of

NEAR = 0.03
"""Largest share of the card between its memory and the end of the interval that decides."""
STEP_TOKENS = 64
"""Lengths are multiples of it: kernels and padding collators like them."""
MOST_TOKENS = 1 << 17
EACH = 3
"""So many fits and so many refusals."""
_CANDIDATES: tuple[tuple[str, str, int | None, dict[str, Any]], ...] = (
    (LLAMA_8B, "qlora", None, {"checkpointing": True}),
    (LARGE, "lora", None, {"checkpointing": True}),
    (MIDDLE, "full", None, {"checkpointing": True}),
    (MIDDLE, "lora", None, {"checkpointing": False}),
    (SMALL, "full", None, {"checkpointing": False}),
    (LLAMA_70B, "qlora", 40, {"checkpointing": True}),
)
"""Model, method, layers and options; the length is what is searched. The first that have a length near the edge are taken."""


def runs(gpu: GpuSpec) -> list[Run]:
    """Up to `EACH` of either kind, of different models and methods, fits first."""
    found: dict[Fit, list[Run]] = {Fit.FITS: [], Fit.DOES_NOT_FIT: []}
    for row in (Row(model, method, options, layers) for model, method, layers, options in _CANDIDATES):
        for fit, run in _at_the_edge(row, gpu):
            if len(found[fit]) < EACH:
                found[fit].append(run)
    return [*found[Fit.FITS], *found[Fit.DOES_NOT_FIT]]


def _at_the_edge(row: Row, gpu: GpuSpec) -> Iterator[tuple[Fit, Run]]:
    """The longest length that is called a fit, and the shortest that is refused, where they are near enough."""
    for fit in (Fit.FITS, Fit.DOES_NOT_FIT):
        tokens = _tokens_at_the_edge(row, gpu, stays=fit is Fit.FITS)
        if tokens is not None and _is_near(fit, _memory(row, tokens, gpu), gpu):
            named = row._replace(group="just fits" if fit is Fit.FITS else "just too large")
            yield fit, _run(named, tokens, gpu)


def _tokens_at_the_edge(row: Row, gpu: GpuSpec, *, stays: bool) -> int | None:
    """By halving: the most tokens at which the plan is a fit; else the fewest at which it is refused. None where there are none."""
    low, high = 1, MOST_TOKENS // STEP_TOKENS

    def wanted(steps: int) -> bool:
        fit = classify(_memory(row, steps * STEP_TOKENS, gpu), gpu.usable_bytes)
        return fit is Fit.FITS if stays else fit is not Fit.DOES_NOT_FIT

    if not wanted(low) or wanted(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wanted(middle) else (low, middle)
    return STEP_TOKENS * (low if stays else high)


def _is_near(fit: Fit, memory: MemoryBreakdown, gpu: GpuSpec) -> bool:
    spare = gpu.usable_bytes - memory.high_bytes if fit is Fit.FITS else memory.low_bytes - gpu.usable_bytes
    return 0 <= spare <= NEAR * gpu.usable_bytes


def _run(row: Row, tokens: int, gpu: GpuSpec) -> Run:
    options = {"batch_size": 1, "seq_len": tokens, "grad_accum": 1, **row.options}
    needs = QUANTISED if row.method.startswith("q") else ()
    return run_of(row._replace(options=options, needs=needs), gpu)


def _memory(row: Row, tokens: int, gpu: GpuSpec) -> MemoryBreakdown:
    run = _run(row, tokens, gpu)
    return estimate_memory(run.ran, run.plan, gpu)
