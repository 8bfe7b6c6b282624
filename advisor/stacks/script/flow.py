"""How a block of statements ends: at its end, by `return`, `break` or `continue`, by an exception, or in one of several ways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from advisor.stacks.script.machine import Machine
from advisor.stacks.script.values import Unknown, Value


class Return(NamedTuple):
    """A block that ended with `return`."""

    value: Value


class Stop(NamedTuple):
    """A block that ended with `break`, `continue` or an exception (`raise`)."""

    kind: str


class Mixed(NamedTuple):
    """A block that ended in one of these ways."""

    parts: tuple[Return | Stop | None, ...]


Flow = Return | Stop | Mixed | None
"""How a block ended; None where it ran to its end."""
BREAK, CONTINUE, RAISE = Stop("break"), Stop("continue"), Stop("raise")


def alive(flow: Flow) -> bool:
    """The block did not certainly end by an exception."""
    return flow != RAISE


def parts_of(flow: Flow) -> tuple[Return | Stop | None, ...]:
    """The ways in which a block may have ended."""
    return flow.parts if isinstance(flow, Mixed) else (flow,)


def combine(machine: Machine, flows: Iterable[Flow], why: Unknown) -> Flow:
    """How a block ended that took one of several paths. Paths that end by an exception count only where all do."""
    parts = [part for flow in flows for part in parts_of(flow)]
    living = [part for part in parts if part != RAISE]
    if not living:
        return RAISE
    returned = [part.value for part in living if isinstance(part, Return)]
    others: tuple[Return | Stop | None, ...] = tuple(dict.fromkeys(part for part in living if not isinstance(part, Return)))
    if returned:
        result = returned[0]
        for value in returned[1:]:
            result = machine.join(result, value, why)
        others = (*others, Return(result))
    return others[0] if len(others) == 1 else Mixed(others)


def value_of(machine: Machine, flow: Flow, why: Unknown) -> Value:
    """What a function hands back whose body ended so."""
    ends = combine(machine, [part if isinstance(part, Return) else Return(None) for part in parts_of(flow)], why)
    return ends.value if isinstance(ends, Return) else None
