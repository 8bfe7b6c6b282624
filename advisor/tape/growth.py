"""A storage's size as an exact formula in micro-batch, length and a model's dimensions, found from its sizes in a few recordings.

Most sizes are one product (over 99 % of all storages of Llama, Qwen and Mistral), some the sum of two; second-level scales of 4-bit weights
are counted in blocks, of which the last is not full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import ceil, lcm, prod
from typing import NamedTuple

from advisor.tape.sizes import LARGEST_DENOMINATOR, Shape, Size

ONE_SHAPE: tuple[int, ...] = (0,)
ONE_ROW: tuple[int, ...] = (1, 0, 2)
ROWS: tuple[int, ...] = (4, 0, 3, 1, 5, 2)
"""Places of the monomials of `Shape` in the order in which they are tried: for one shape, for single rows and for more."""
MOST_FACTORS = 3
"""Dimensions in one product. Judgement: three are met in stacked experts (experts are no dimension) and state-space layers."""
BLOCKS = ((4, 32768), (4, 65536))
"""Bytes of a scale of scales, and bytes of 16- and 32-bit weights that share it: 256 blocks of 64 weights (bitsandbytes 0.50
functional.py `quantize_4bit`, `compress_statistics`)."""

NEARLY = 1e-7
"""Of a size: what a sum in floating point may be off to be worth the exact one."""


class Point(NamedTuple):
    """Where a recording was made."""

    shape: Shape
    scales: tuple[Fraction, ...]
    """By which each group of dimensions is larger than the first model's."""


class Product(NamedTuple):
    """One product: a factor, a monomial of the shape, and the power of each group's scale."""

    factor: Fraction
    monomial: int
    powers: tuple[int, ...]

    def at(self, point: Point) -> Fraction:
        return self.factor * point.shape.monomials[self.monomial] * self.scale(point.scales)

    def scale(self, scales: tuple[Fraction, ...]) -> Fraction:
        return prod((scale**power for scale, power in zip(scales, self.powers, strict=True) if power), start=Fraction(1))


class Growth(NamedTuple):
    """A sum of products; where `per` is given, so many bytes for every `per` begun of it."""

    parts: tuple[Product, ...]
    unit_bytes: int = 1
    per: int = 1

    def of(self, scales: tuple[Fraction, ...]) -> Size:
        """The formula in micro-batch and length for one model of the family. Raises ValueError where blocks depend on the batch."""
        factors = [Fraction(0)] * 6
        for part in self.parts:
            factors[part.monomial] += part.factor * part.scale(scales)
        if self.per > 1:
            if any(factors[1:]):
                raise ValueError("blocks of what grows with the batch")
            return Size((self.unit_bytes * ceil(factors[0] / self.per), 0, 0, 0, 0, 0))
        divisor = lcm(*(factor.denominator for factor in factors))
        return Size(tuple(int(factor * divisor) for factor in factors), divisor)

    def by_rank(self, scales: tuple[Fraction, ...], rank: int) -> tuple[Size, Size]:
        """The formula's part that no rank changes, and what each unit of rank adds. `scales` are without the rank's, which is the last and
        was `rank` in the first model. Raises ValueError where that is no multiple of the rank."""
        steady = tuple(product for product in self.parts if not product.powers[-1])
        ranked = tuple(product for product in self.parts if product.powers[-1])
        if ranked and (self.per > 1 or any(product.powers[-1] > 1 for product in ranked)):
            raise ValueError("no multiple of the rank")
        ones = (*scales, Fraction(1))
        alone, at_first = self._replace(parts=steady).of(ones), Growth(ranked).of(ones)
        return alone, Size(at_first.factors, at_first.divisor * rank)


class Fitting:
    """Looks for the formulas of sizes at given points."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        usable = ROWS
        if all(point.shape.rows == 1 for point in points):
            usable = ONE_ROW
        if len({point.shape for point in points}) == 1:
            usable = ONE_SHAPE
        self._products = [Product(Fraction(1), monomial, powers) for powers in _powers(len(points[0].scales)) for monomial in usable]
        self._by_growth: dict[tuple[Fraction, ...], Product | None] = {}
        """The product that grows so; None where the points do not tell two apart."""
        for part in self._products:
            growth = _growth([part.at(point) for point in points])
            self._by_growth[growth] = None if growth in self._by_growth else part

    def fitted(self, sizes: Sequence[int]) -> Growth | None:
        """The formula of the fewest products that gives every size exactly; None where none of two does.

        One point more than the products must agree, so that a formula is checked by what it was not made from.
        """
        if not any(sizes):
            return Growth(())
        if not all(sizes):
            return None
        growth = _growth([Fraction(size) for size in sizes])
        alone = self._by_growth.get(growth)
        if growth in self._by_growth and alone is None:
            return None
        if alone is not None:
            return self._small((alone._replace(factor=sizes[0] / alone.at(self._points[0])),))
        return next(self._sums(sizes), None) if len(self._points) > 2 else None

    def _sums(self, sizes: Sequence[int]) -> Iterator[Growth]:
        """Sums of two products that give every size."""
        values = [[part.at(point) for point in self._points] for part in self._few]
        floats = [[float(value) for value in row] for row in values]
        wanted = [float(size) for size in sizes]
        for first, one in enumerate(floats):
            for second in range(first):
                other = floats[second]
                divisor = one[0] * other[1] - one[1] * other[0]
                if not divisor:
                    continue
                left = (wanted[0] * other[1] - wanted[1] * other[0]) / divisor
                right = (one[0] * wanted[1] - one[1] * wanted[0]) / divisor
                if all(abs(left * a + right * b - size) < NEARLY * size for a, b, size in zip(one[2:], other[2:], wanted[2:], strict=True)):
                    found = self._exact((first, second), values, sizes)
                    if found is not None:
                        yield found

    @property
    def _few(self) -> list[Product]:
        """Products of at most two dimensions."""
        return [part for part in self._products if sum(part.powers) <= 2]

    def _exact(self, places: tuple[int, int], values: list[list[Fraction]], sizes: Sequence[int]) -> Growth | None:
        one, other = values[places[0]], values[places[1]]
        divisor = one[0] * other[1] - one[1] * other[0]
        left = (sizes[0] * other[1] - sizes[1] * other[0]) / divisor
        right = (one[0] * sizes[1] - one[1] * sizes[0]) / divisor
        if any(left * a + right * b != size for a, b, size in zip(one, other, sizes, strict=True)):
            return None
        few = self._few
        return self._small((few[places[0]]._replace(factor=left), few[places[1]]._replace(factor=right)))

    def _small(self, parts: tuple[Product, ...]) -> Growth | None:
        small = all(part.factor and part.factor.denominator <= LARGEST_DENOMINATOR for part in parts)
        return Growth(parts) if small else None


def in_blocks(sizes: Sequence[int], others: Sequence[tuple[Growth, Sequence[int]]]) -> Growth | None:
    """The formula of sizes that are so many bytes for every block begun of other sizes."""
    for growth, of_others in others:
        for unit_bytes, per in BLOCKS:
            counted = [unit_bytes * -(-size // per) for size in of_others]
            if counted == list(sizes) and all(part.monomial == 0 for part in growth.parts) and growth.per == 1:
                return Growth(growth.parts, unit_bytes, per)
    return None


def _growth(values: Sequence[Fraction]) -> tuple[Fraction, ...]:
    return tuple(value / values[0] for value in values[1:])


@cache
def _powers(groups: int) -> tuple[tuple[int, ...], ...]:
    """Powers of each group, the fewest factors first."""
    return tuple(
        tuple(chosen.count(group) for group in range(groups))
        for factors in range(MOST_FACTORS + 1)
        for chosen in combinations_with_replacement(range(groups), factors)
    )
