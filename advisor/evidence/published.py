"""What profiles/methods/ holds for the gates: the gains of moves as they were measured, and two response curves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import log
from typing import Any

from advisor import profiles
from advisor.ladder.knowledge import fact
from advisor.values import Range
from advisor.values.next_step import CitedFact, Gain


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the set-up as it was measured: what it brought and what it cost."""

    gain: Gain
    price: str


@cache
def _rows(kind: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in profiles.read("methods") if row.get("kind") == kind}


def move(name: str) -> Move:
    row = _rows("move")[name]
    source = ", ".join(row["evidence"])
    points = Range(low=row["low_points"], high=row["high_points"], source=source)
    return Move(Gain(points=points, conditions=row["conditions"], evidence=tuple(row["evidence"])), row["price"])


def curve(name: str, x: float) -> float:
    """A published response at `x`, linear in log x between its points, constant beyond them."""
    points = _rows("curve")[name]["points"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x < x1:
            share = max(0.0, log(x / x0) / log(x1 / x0))
            return float(y0 + share * (y1 - y0))
    return float(points[-1][1])


def cite(names: tuple[str, ...]) -> tuple[CitedFact, ...]:
    """The facts behind ids, each once, in the order given."""
    rows = [fact(name) for name in dict.fromkeys(names)]
    return tuple(CitedFact(id=row.id, statement=row.statement, source=row.source, url=row.url, confidence=row.confidence) for row in rows)
