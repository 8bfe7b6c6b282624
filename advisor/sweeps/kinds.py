"""Price the shapes of one kind of plan: a few compiled curves, and every shape at those of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from advisor.errors import AdvisorError, UnsupportedError
from advisor.ladder import plan_from_request
from advisor.memory.curves import Curves, curves_of
from advisor.stacks.first_plan import batch, first_seq_len
from advisor.sweeps.grid import Kind
from advisor.sweeps.shapes import Priced, Shapes, exact, price
from advisor.values import Phase, Plan

CHUNK = 1 << 20
"""Shapes that are priced at once. Judgement: some hundred megabytes of arrays."""
_DISTINCT_ACCUMULATIONS = 3
"""From the third micro-batch on a step repeats itself (advisor/memory/peak.py `without_batch`)."""


class Rows(NamedTuple):
    """A run of rows of one kind."""

    batch: Any
    seq_len: Any
    accumulation: Any
    priced: Priced | None
    """None where the kind has no price."""
    phases: tuple[Phase, ...]
    reason: str = ""
    plan: Plan | None = None
    """One of its plans."""


def rows_of(kind: Kind, first: int, last: int) -> Rows:
    """The rows first..last-1 of a kind, counted over its shapes with the last axis fastest."""
    shapes, accumulation = _shapes(kind, first, last)
    nothing = Rows(shapes.batch, shapes.seq_len, accumulation, None, ())
    try:
        return _priced(kind, shapes, accumulation)
    except AdvisorError as error:
        return nothing._replace(reason=str(error))


def _shapes(kind: Kind, first: int, last: int) -> tuple[Shapes, Any]:
    """Sizes of micro-batches, lengths and accumulations of those rows; what nobody said is the stack's default."""
    index = np.arange(first, last)
    lengths, accumulations = len(kind.seq_lens), len(kind.grad_accums)
    n_gpus = kind.request.gpus or 1
    filled = [batch(kind.request.model_copy(update={"batch_size": size}), n_gpus) for size in kind.batch_sizes]
    which: Any = index // (lengths * accumulations)
    batches = np.array([size for size, _ in filled], np.int64)[which]
    seq_lens = np.array([length or first_seq_len(kind.model) for length in kind.seq_lens], np.int64)[index // accumulations % lengths]
    given = np.array([count or 0 for count in kind.grad_accums], np.int64)[index % accumulations]
    accumulation = np.where(given > 0, given, np.array([count for _, count in filled], np.int64)[which])
    return Shapes(batches, seq_lens), accumulation


def _priced(kind: Kind, shapes: Shapes, accumulation: Any) -> Rows:
    """Raises an AdvisorError where the kind has no price."""
    if kind.model.tables is None:
        raise UnsupportedError(f"{kind.model.id}: its steps are recorded, not computed: advise estimate prices one plan at a time")
    windows = sorted({1, *(block.attention.window_tokens or 1 for block in kind.model.shape.blocks)})
    reached = np.searchsorted(windows, shapes.seq_len, side="right")
    piece = reached * (_DISTINCT_ACCUMULATIONS + 1) + np.minimum(accumulation, _DISTINCT_ACCUMULATIONS)
    first = _plan_of(kind)
    parts: list[tuple[Any, Priced]] = []
    for number in np.unique(piece):
        where = np.flatnonzero(piece == number)
        plan = first.model_copy(update=_shape(shapes, accumulation, int(where[0])))
        curves = curves_of(kind.model, plan, kind.gpu)
        own = Shapes(shapes.batch[where], shapes.seq_len[where])
        _check_exact(curves, own)
        parts.append((where, price(curves, own, kind.gpu.usable_bytes)))
    phases = tuple(phase for phase, _ in curves.phases)
    return Rows(shapes.batch, shapes.seq_len, accumulation, _together(parts, len(piece)), phases, plan=first)


def _plan_of(kind: Kind) -> Plan:
    """One plan of the kind: all others differ from it by their shape alone."""
    return plan_from_request(kind.model, kind.gpu, kind.request)


def _shape(shapes: Shapes, accumulation: Any, row: int) -> dict[str, int]:
    numbers = (shapes.batch[row], shapes.seq_len[row], accumulation[row])
    return dict(zip(("micro_batch_size", "seq_len_tokens", "grad_accum_steps"), map(int, numbers), strict=True))


def _check_exact(curves: Curves, shapes: Shapes) -> None:
    if not exact(curves, int(shapes.batch.max()), int(shapes.seq_len.max())):
        raise UnsupportedError("its largest batch holds petabytes: leave the largest batch_size or seq_len out")


def _together(parts: list[tuple[Any, Priced]], count: int) -> Priced:
    if len(parts) == 1:
        return parts[0][1]
    columns = []
    for index in range(len(Priced._fields)):
        column = np.empty(count, parts[0][1][index].dtype)
        for where, priced in parts:
            column[where] = priced[index]
        columns.append(column)
    return Priced(*columns)
