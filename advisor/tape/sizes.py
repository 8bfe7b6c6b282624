"""A storage's size as an exact formula in micro-batch and length, found from its sizes at a few shapes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import lcm
from typing import NamedTuple

LARGEST_DENOMINATOR = 4096
"""Judgement: sizes are bytes, bits or shares of a block (64 weights to a scale); a rarer fraction is a coincidence."""


class Shape(NamedTuple):
    """A batch: how many sequences of how many tokens."""

    rows: int
    tokens: int
    """Of each row."""

    @property
    def total_tokens(self) -> int:
        return self.rows * self.tokens

    @property
    def monomials(self) -> tuple[int, ...]:
        """What a size is a sum of: 1, s, s², b, bs and bs²."""
        rows, tokens = self
        return (1, tokens, tokens * tokens, rows, rows * tokens, rows * tokens * tokens)


class Size(NamedTuple):
    """Bytes as a polynomial: whole factors of 1, s, s², b, bs and bs², over one whole divisor."""

    factors: tuple[int, ...]
    divisor: int = 1

    def at(self, monomials: tuple[int, ...]) -> int:
        """Bytes at a shape. Raises ValueError where they are no whole number, which no storage's are."""
        total = sum(factor * monomial for factor, monomial in zip(self.factors, monomials, strict=True) if factor)
        if self.divisor == 1:
            return total
        bytes_, rest = divmod(total, self.divisor)
        if rest:
            raise ValueError(f"{total}/{self.divisor} bytes are no whole number")
        return bytes_


_ALONE = (0, 1, 2)
"""Monomials of a single row: 1, s and s² (times b, which is 1)."""
_ALL = (4, 0, 1, 3, 5, 2)
"""In the order in which they are tried."""
MOST_TERMS = 3


def fitted(shapes: Sequence[Shape], sizes: Sequence[int]) -> Size | None:
    """The formula with the fewest terms that gives every size exactly; None where none does.

    At least one shape more than the terms must agree, so that a formula is checked by what it was not made from.
    """
    if not any(sizes):
        return Size((0,) * 6)
    usable = _ALONE if all(shape.rows == 1 for shape in shapes) else _ALL
    rows = [shape.monomials for shape in shapes]
    for terms in range(1, min(MOST_TERMS, len(shapes) - 1) + 1):
        for chosen in combinations(usable, terms):
            factors = _solved([[row[index] for index in chosen] for row in rows], sizes)
            if factors is not None:
                return _size(dict(zip(chosen, factors, strict=True)))
    return None


def _size(factors: dict[int, Fraction]) -> Size:
    divisor = lcm(*(factor.denominator for factor in factors.values()))
    return Size(tuple(int(factors.get(index, Fraction(0)) * divisor) for index in range(6)), divisor)


def _solved(matrix: list[list[int]], sizes: Sequence[int]) -> list[Fraction] | None:
    """Factors of the columns that give every size; None where no small fractions do, or where the shapes do not tell them apart."""
    rows = [[Fraction(value) for value in (*row, size)] for row, size in zip(matrix, sizes, strict=True)]
    columns = len(matrix[0])
    for column in range(columns):
        pivot = next((index for index in range(column, len(rows)) if rows[index][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        top = [value / rows[column][column] for value in rows[column]]
        rows = [_without(row, top, column) if index != column else top for index, row in enumerate(rows)]
    factors = [rows[index][-1] for index in range(columns)]
    exact = not any(row[-1] for row in rows[columns:])
    return factors if exact and all(factors) and all(factor.denominator <= LARGEST_DENOMINATOR for factor in factors) else None


def _without(row: list[Fraction], top: list[Fraction], column: int) -> list[Fraction]:
    factor = row[column]
    return [value - factor * other for value, other in zip(row, top, strict=True)] if factor else row
