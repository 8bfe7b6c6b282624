"""What profiles/methods/ holds: facts with their source, thresholds of the rules, sentences of the ladder."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from advisor import profiles


class Fact(NamedTuple):
    """A published result and where it stands."""

    id: str
    statement: str
    source: str
    url: str
    confidence: str
    conditions: str
    caveat: str


@cache
def _rows(file: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in profiles.read(f"methods/{file}")}


def threshold(name: str) -> float:
    """The value alone, for a comparison."""
    return float(_rows("thresholds")[name]["value"])


def gate(name: str) -> float:
    """Return the threshold of a gate of `advise next`."""
    return float(_rows("gates")[name]["value"])


def fact(name: str) -> Fact:
    row = _rows("facts")[name]
    return Fact(row["id"], row["statement"], row["source"], row["url"], row["confidence"], row["conditions"], row["caveat"])


def sources() -> dict[str, str]:
    """Return the address of each fact's source, by the fact's id; empty where it has none."""
    return {name: str(row["url"]) for name, row in _rows("facts").items()}


def say(name: str, **values: object) -> str:
    """A sentence with its placeholders filled in."""
    return str(_rows("texts")[name]["text"]).format(**values)


def evidence(name: str) -> tuple[str, ...]:
    """Ids of the facts that a sentence stands on."""
    return tuple(_rows("texts")[name]["evidence"])
