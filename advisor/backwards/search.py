"""The largest number for which a plan fits: exact, by bisection where memory only grows.

Every phase's peak is a maximum of polynomials in tokens and pairs whose coefficients are sizes, so memory and both ends of its interval
grow with the batch and with the length, as long as the plan stays of one kind. It changes where sequences reach a layer's window, and
where fewer micro-batches are accumulated: these numbers are known, and what lies between two of them is searched by itself. Calibrations
of a card bound each phase by its own errors; between their phases the search assumes what `advisor.ladder.fit` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from advisor.values import Fit

Verdict = Callable[[int], Fit]


class Found(NamedTuple):
    """Both ends of an answer; 0 where there is none."""

    fits: int
    """The largest number that surely fits."""
    may_fit: int
    """The largest number of which it cannot be said that it does not fit."""


def largest_fit(verdict: Verdict, limit: int, kinks: Iterable[int]) -> Found:
    """The largest numbers in 1..limit that fit, and that may; `kinks` are where the plan may become one of another kind."""
    starts = sorted({1, *(kink for kink in kinks if 1 < kink <= limit)})
    pieces = [*zip(starts, [*(start - 1 for start in starts[1:]), limit], strict=True)]
    return Found(
        _last(lambda number: verdict(number) is Fit.FITS, pieces),
        _last(lambda number: verdict(number) is not Fit.DOES_NOT_FIT, pieces),
    )


def _last(holds: Callable[[int], bool], pieces: list[tuple[int, int]]) -> int:
    """The largest number of any piece for which `holds`, given that inside a piece it holds up to some point."""
    for first, last in reversed(pieces):
        if holds(first):
            return _bisected(holds, first, last)
    return 0


def _bisected(holds: Callable[[int], bool], low: int, last: int) -> int:
    """The largest number in low..last for which `holds`; it does for `low`."""
    high = last + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
