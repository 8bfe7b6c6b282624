"""The most that can be alive at once in a recorded step, as a maximum of polynomials: what a search asks instead of a replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lcm
from operator import mul
from typing import Any, NamedTuple

from advisor.tape.sizes import Shape, Size

NONE = Size((0,) * 6)


class Growing(NamedTuple):
    """Bytes of a storage: what no rank changes, and what each unit of rank adds."""

    alone: Size
    per_rank: Size = NONE


class Peaks(NamedTuple):
    """Polynomials of what is alive, one of which is the largest at every shape of a regime, for every rank and every card."""

    least: Shape
    """The regime's least rows and tokens: the polynomials are in what a shape has beyond them, so that none of it is negative."""
    divisor: int
    rows: tuple[tuple[int, ...], ...]
    """Whole factors, over `divisor`: six of the shape's monomials, six of the same times the rank, and one of the workspace."""

    def bytes_at(self, shape: Shape, workspace_bytes: int, rank: int = 0) -> int:
        """Most bytes that are alive at once, as they were asked for: what a card allocates is never less."""
        monomials = Shape(shape.rows - self.least.rows, shape.tokens - self.least.tokens).monomials
        values = (*monomials, *(rank * monomial for monomial in monomials), workspace_bytes)
        highest: int = max(sum(map(mul, factors, values)) for factors in self.rows)
        return highest // self.divisor


def peaks_of(events: Sequence[int], formula_of: Sequence[int], sizes: Sequence[Growing], least: Shape) -> Peaks:
    """The polynomials of a stream. `formula_of` names the size of each storage in order of birth; one past the last is the workspace."""
    divisor = lcm(*(half.divisor for size in sizes for half in size))
    factors = [(*shifted(size.alone, least, divisor), *shifted(size.per_rank, least, divisor), 0) for size in sizes]
    factors.append((0,) * 12 + (divisor,))
    sparse = [[(place, factor) for place, factor in enumerate(row) if factor] for row in factors]
    return Peaks(least, divisor, highest(_turns(events, [sparse[number] for number in formula_of])))


def shifted(size: Size, least: Shape, divisor: int) -> tuple[int, ...]:
    """Factors, times `divisor`, of the same polynomial in the rows and tokens that a shape has beyond `least`."""
    scale, (rows, tokens) = divisor // size.divisor, least
    by_rows = [
        (constant + linear * tokens + square * tokens * tokens, linear + 2 * square * tokens, square)
        for constant, linear, square in (size.factors[:3], size.factors[3:])
    ]
    alone, each = by_rows
    return tuple(scale * factor for factor in (*(one + rows * more for one, more in zip(alone, each, strict=True)), *each))


def _turns(events: Sequence[int], factors: Sequence[list[tuple[int, int]]]) -> Iterator[tuple[int, ...]]:
    """What is alive whenever a death follows a birth: no other moment can be a peak."""
    live = [0] * 13
    born = False
    for signed in events:
        if signed > 0:
            for place, factor in factors[signed - 1]:
                live[place] += factor
            born = True
            continue
        if born:
            yield tuple(live)
            born = False
        for place, factor in factors[-signed - 1]:
            live[place] -= factor
    if born:
        yield tuple(live)


def highest(sizes: Iterator[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Factors that no others exceed in every place: those that can be the largest where no monomial is negative."""
    found: list[tuple[int, ...]] = []
    for factors in sorted(set(sizes), key=sum, reverse=True):
        if not any(all(more >= less for more, less in zip(other, factors, strict=True)) for other in found):
            found.append(factors)
    return tuple(found)


def as_list(peaks: Peaks) -> list[Any]:
    """The polynomials as JSON can hold them."""
    return [peaks.least, peaks.divisor, peaks.rows]


def from_list(written: Any) -> Peaks:
    """What `as_list` wrote. Raises ValueError or TypeError for anything else."""
    (rows, tokens), divisor, polynomials = written
    found = tuple(tuple(row) for row in polynomials)
    numbers = [rows, tokens, divisor, *(factor for row in found for factor in row)]
    if not found or any(len(row) != 13 for row in found) or any(type(number) is not int for number in numbers) or divisor < 1:
        raise ValueError("polynomials that are none")
    return Peaks(Shape(rows, tokens), divisor, found)
