"""Rates from the times of the shapes that were run: least squares over the relative errors, with no rate below zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from advisor.architectures.cut import first_layers
from advisor.speed.measured import MicroWork, micro_work
from advisor.values import ModelSpec
from advisor.values.calibration import Point
from advisor.values.card import StepRates

SINGULAR = 1e-9
"""A pivot below this share of the largest says that the shapes do not tell two parts apart."""


def rates_of(model: ModelSpec, points: Sequence[Point]) -> StepRates | None:
    """What the timed points say together; None where none was timed."""
    timed = [(micro_work(first_layers(model, point.layers), point.plan), point.timing) for point in points if point.timing is not None]
    timed = [(work, timing) for work, timing in timed if timing.micro_s > 0]
    if not timed:
        return None
    seconds = [timing.micro_s for _, timing in timed]
    parts = [[work.block_flops, work.head_flops, work.passes] for work, _ in timed]
    costs = non_negative(parts, seconds)
    error = max(abs(_dot(costs, row) / second - 1) for row, second in zip(parts, seconds, strict=True))
    optimizer = [timing.optimizer_s / work.optimizer_bytes for work, timing in timed if work.optimizer_bytes > 0]
    largest, slowest = max(timed, key=lambda pair: pair[0].flops)
    return StepRates(
        s_per_block_flop=costs[0],
        s_per_head_flop=costs[1],
        s_per_pass=costs[2],
        s_per_optimizer_byte=sum(optimizer) / len(optimizer) if optimizer else 0.0,
        error_share=error,
        achieved_flop_per_s=_flop_per_s(largest, slowest.micro_s),
    )


def _flop_per_s(work: MicroWork, seconds: float) -> float:
    return work.flops / seconds


def non_negative(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Costs c ≥ 0 that make Σ c·row come nearest to `seconds`, each time counted by its relative error.

    Of few parts every subset can be solved; the best whose costs are all positive is the answer.
    """
    relative = [[value / second for value in row] for row, second in zip(rows, seconds, strict=True)]
    best, least = [0.0] * len(rows[0]), float("inf")
    for size in range(1, min(len(rows[0]), len(rows)) + 1):
        for chosen in combinations(range(len(rows[0])), size):
            found = _solve([[row[index] for index in chosen] for row in relative])
            if found is None or min(found) < 0:
                continue
            costs = [0.0] * len(rows[0])
            for index, cost in zip(chosen, found, strict=True):
                costs[index] = cost
            error = sum((_dot(costs, row) - 1) ** 2 for row in relative)
            if error < least:
                best, least = costs, error
    return best


def _solve(rows: list[list[float]]) -> list[float] | None:
    """Least squares of rows · x = 1 by its normal equations, scaled so that all columns are of one size."""
    scales = [max(abs(row[index]) for row in rows) for index in range(len(rows[0]))]
    if min(scales) == 0:
        return None
    scaled = [[value / scale for value, scale in zip(row, scales, strict=True)] for row in rows]
    size = len(scales)
    table = [[_dot([row[i] for row in scaled], [row[j] for row in scaled]) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in scaled) for i in range(size)]
    solved = _eliminate(table, right)
    return None if solved is None else [value / scale for value, scale in zip(solved, scales, strict=True)]


def _eliminate(table: list[list[float]], right: list[float]) -> list[float] | None:
    """Gauss, with the largest pivot first; None for a singular table."""
    size, largest = len(right), max(abs(value) for row in table for value in row)
    for column in range(size):
        pivot = max(range(column, size), key=lambda index: abs(table[index][column]))
        if abs(table[pivot][column]) < SINGULAR * largest:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        right[column], right[pivot] = right[pivot], right[column]
        for row in range(column + 1, size):
            factor = table[row][column] / table[column][column]
            table[row] = [value - factor * above for value, above in zip(table[row], table[column], strict=True)]
            right[row] -= factor * right[column]
    solved = [0.0] * size
    for row in reversed(range(size)):
        solved[row] = (right[row] - _dot(table[row][row + 1 :], solved[row + 1 :])) / table[row][row]
    return solved


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
