"""Chooses the shapes at which a step is recorded, so that a tape of few recordings speaks for as many shapes as it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.tape.sizes import Shape
from advisor.tape.tape import GRID_TOKENS

SHORTEST_TOKENS = 128
"""No shorter length is sampled unless it is asked for. Judgement: nobody searches below."""
MOST_ROWS = 1024
"""Rows up to which tapes speak; the search for micro-batches ends there, too (advisor/ladder/fit.py)."""
FEWEST_ALONE, FEWEST = 3, 4
"""Recordings of a tape of one row and of more: a formula of two terms, or of three, is checked by one that it was not made from."""


class Bounds(NamedTuple):
    """Between which lengths, and which tokens in all, nothing is known to change."""

    tokens: tuple[int, int]
    total_tokens: tuple[int, int]


def wide(shape: Shape, longest_tokens: int, shortest_tokens: int = SHORTEST_TOKENS) -> Bounds:
    """All that may be asked of a model of `longest_tokens`, whose sequences cannot be shorter than `shortest_tokens`."""
    shortest, longest = min(max(SHORTEST_TOKENS, shortest_tokens), shape.tokens), max(longest_tokens, shape.tokens)
    return Bounds((shortest, longest), (shortest, longest * MOST_ROWS))


def between(shape: Shape, bounds: Bounds, lengths: frozenset[int], totals: frozenset[int]) -> Bounds:
    """The part of `bounds` around a shape that no threshold cuts: of `lengths` for rows, of `totals` for batches. What is as long as a
    threshold lies below it."""
    return Bounds(_around(shape.tokens, bounds.tokens, lengths), _around(shape.total_tokens, bounds.total_tokens, totals))


def _around(value: int, bounds: tuple[int, int], thresholds: frozenset[int]) -> tuple[int, int]:
    low = max((bound + 1 for bound in thresholds if bound < value), default=0)
    high = min((bound for bound in thresholds if bound >= value), default=bounds[1])
    return max(low, bounds[0]), min(high, bounds[1])


def samples(shape: Shape, bounds: Bounds, more: int = 0) -> tuple[Shape, ...]:
    """`shape` first, then others of its kind within bounds, the widest apart that there are: as few as suffice, and `more`. Only `shape`
    where there are not enough."""
    found = dict.fromkeys((shape, *(_alone(shape, bounds) if shape.rows == 1 else _several(shape, bounds))))
    inside = [other for other in found if _fits(other, bounds)]
    wanted = (FEWEST_ALONE if shape.rows == 1 else FEWEST) + more
    return tuple(inside[:wanted]) if len(inside) >= wanted else (shape,)


def _fits(shape: Shape, bounds: Bounds) -> bool:
    (shortest, longest), (least, most) = bounds
    return shortest <= shape.tokens <= longest and least <= shape.total_tokens <= most


def _up(tokens: int, rest: int) -> int:
    """The next length, or the same, that leaves that rest."""
    return tokens + (rest - tokens) % GRID_TOKENS


def _down(tokens: int, rest: int) -> int:
    return tokens - (tokens - rest) % GRID_TOKENS


def _alone(shape: Shape, bounds: Bounds) -> Iterator[Shape]:
    """One row: the ends, and what lies between. The shorter end first, as it tells soonest that a step is another at every length."""
    rest = shape.tokens % GRID_TOKENS
    low, high = max(bounds.tokens[0], bounds.total_tokens[0]), min(bounds.tokens[1], bounds.total_tokens[1])
    yield Shape(1, _up(low, rest))
    yield Shape(1, _down(high, rest))
    yield from (Shape(1, _up(low + (high - low) // part, rest)) for part in (2, 3, 5, 7))


def _several(shape: Shape, bounds: Bounds) -> Iterator[Shape]:
    """Rows of two and more: the ends of lengths, of rows and of batches, with different rows and lengths throughout."""
    rest = shape.tokens % GRID_TOKENS
    (shortest, longest), (least, most) = bounds
    low, high = _up(shortest, rest), _down(longest, rest)
    widest = min(high, _down(most // 2, rest))
    yield Shape(min(MOST_ROWS, max(2, -(-least // low))), low)
    yield Shape(min(MOST_ROWS, max(2, most // widest)), widest)
    rows = most // low
    yield Shape(rows, low) if 2 < rows < MOST_ROWS else Shape(2, max(_up(-(-least // 2), rest), low + 2 * GRID_TOKENS))
    yield Shape(shape.rows + 1, shape.tokens + 3 * GRID_TOKENS)
    for rows in (MOST_ROWS, 64, 8, 3, 5, 2):
        yield Shape(rows, min(high, _down(most // rows, rest)))
        yield Shape(rows, max(low, _up(-(-least // rows), rest)))
