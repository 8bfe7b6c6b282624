"""Measured ranges that the counts are turned into time with: rows of kind "speed" in profiles/methods/speed.json."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from advisor import profiles


class Bounds(NamedTuple):
    """A published or derived range and where it stands."""

    low: float
    high: float
    source: str
    evidence: tuple[str, ...]
    """Ids of facts in profiles/methods/facts.json."""


@cache
def bounds(name: str) -> Bounds:
    """The row of that id. A name that is missing is a mistake in the package, not of the user."""
    row = next(row for row in profiles.read("methods/speed") if row["id"] == name)
    return Bounds(float(row["low"]), float(row["high"]), row["source"], tuple(row["evidence"]))
