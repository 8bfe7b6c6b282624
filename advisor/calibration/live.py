"""Peaks of live storages by phase, from a recorded stream: in bytes as they were asked for, so that a CPU compares with a dry run."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from advisor.tape.breakdown import live_at, term_of
from advisor.tape.stream import Birth, Stream
from advisor.values import Phase, Term, TermBytes

INSIDE_MARK = "(inside)"
"""How the recorder names buffers that it infers inside kernels (advisor/dryrun/kernels.py)."""


class Emulated(NamedTuple):
    """Which of the recorder's entries stand for what a CUDA card would take, rather than for storages that were seen."""

    workspaces: bool
    insides: bool


SEEN_ONLY = Emulated(workspaces=False, insides=False)
"""Next to a backend that counts for itself."""
AS_RECORDED = Emulated(workspaces=False, insides=True)
"""Where live storages stand for the backend's count: kernel buffers as in the dry run, but no cuBLAS, which is not there."""


def peaks(stream: Stream, layer_path: str, emulated: Emulated) -> dict[Phase, tuple[TermBytes, ...]]:
    """What was alive at the highest moment of each phase, by term."""
    counted = [_counts(born, emulated) for born in stream.births]
    live, best = 0, dict.fromkeys(Phase, (-1, 0))
    for index, signed in enumerate(stream.events):
        number = abs(signed) - 1
        if counted[number]:
            live += stream.births[number].size_bytes if signed > 0 else -stream.births[number].size_bytes
        if live > best[stream.phases[index]][0]:
            best[stream.phases[index]] = (live, index)
    return {phase: _terms(stream, index, layer_path, counted) for phase, (size, index) in best.items() if size >= 0}


def resting_bytes(stream: Stream, emulated: Emulated) -> int:
    """Alive at the end of the stream, between two steps."""
    alive = live_at(stream, len(stream.events) - 1)
    return sum(stream.births[number - 1].size_bytes for number in alive if _counts(stream.births[number - 1], emulated))


def _counts(born: Birth, emulated: Emulated) -> bool:
    if born.kind == "workspace":
        return emulated.workspaces
    return emulated.insides or not born.op.endswith(INSIDE_MARK)


def _terms(stream: Stream, index: int, layer_path: str, counted: list[bool]) -> tuple[TermBytes, ...]:
    totals: dict[Term, int] = defaultdict(int)
    for number in live_at(stream, index):
        if counted[number - 1]:
            born = stream.births[number - 1]
            totals[term_of(born, layer_path)] += born.size_bytes
    return tuple(TermBytes(term=term, bytes=totals[term]) for term in Term if totals[term])
