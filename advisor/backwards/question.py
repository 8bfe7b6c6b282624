"""What is asked, and what every answer is made from."""

from __future__ import annotations

from typing import Any, NamedTuple

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.ladder import plan_from_request
from advisor.ladder.fit import Case, Priced, price
from advisor.speed import step_time
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, Phase, Plan, Request, StepTime, Term
from advisor.values.question import Need, Unknown

WORDS = {
    Unknown.SEQ_LEN: "max",
    Unknown.BATCH_SIZE: "max",
    Unknown.GPU: "cheapest",
    Unknown.GPUS: "min",
    Unknown.MODEL: "largest",
}
"""What stands in the place of a value that is asked for."""

COST_TOKENS = 1_000_000
"""Tokens that costs are of where nobody says how many there are: rents and speeds are usually compared by the million."""


class Question(NamedTuple):
    """A plan with one unknown."""

    unknown: Unknown
    request: Request
    """Everything else, as it was given."""
    fewest: bool = False
    """The number of cards is asked for as well."""

    @property
    def cost_tokens(self) -> int:
        return self.request.dataset_tokens or COST_TOKENS


def asked(given: dict[str, Any]) -> tuple[Unknown, bool]:
    """What is unknown among the options, and whether the fewest cards are asked for beside the cheapest.

    Raises InvalidInputError, one line, where nothing is asked, or two things that have no one answer.
    """
    found = [unknown for unknown, word in WORDS.items() if str(given.get(unknown.value, "")).strip().lower() == word]
    if found == [Unknown.GPU, Unknown.GPUS]:
        return Unknown.GPU, True
    if len(found) == 1:
        return found[0], found[0] is Unknown.GPUS
    flags = [f"--{unknown.value.replace('_', '-')} {WORDS[unknown]}" for unknown in found or WORDS]
    if found:
        raise InvalidInputError(f"{' and '.join(flags)}: ask for one of them, and give a value for the other")
    raise InvalidInputError(f"nothing is asked for: give one of {', '.join(flags)}")


def priced(model: ModelSpec, gpu: GpuSpec, request: Request) -> Priced:
    """The plan of a request and its memory on the card, as `advise estimate` prices it."""
    return price(Case(model, gpu), plan_from_request(model, gpu, request))


def timed(model: ModelSpec, plan: Plan, gpu: GpuSpec, tokens: int) -> StepTime | None:
    """Time and cost of one pass over `tokens`; None where they are not known."""
    try:
        return step_time(model, plan, gpu, tokens)
    except UnsupportedError:
        return None


def need(value: str, found: Priced, usable_bytes: int, below: MemoryBreakdown | None = None) -> Need:
    """What a value needs; `below` is the memory of the value before it, by which the growing terms are known."""
    memory = found.memory
    before = {} if below is None else _terms(below, memory.peak_phase)
    now = _terms(memory, memory.peak_phase)
    growing = {term: size for term, size in now.items() if before and size > before.get(term, 0)}
    term = max(growing or now, key=lambda each: now[each])
    return Need(
        value=value,
        high_bytes=memory.high_bytes,
        usable_bytes=usable_bytes,
        fit=found.fit,
        phase=memory.peak_phase,
        term=term,
        term_bytes=now[term],
    )


def _terms(memory: MemoryBreakdown, phase: Phase) -> dict[Term, int]:
    return {term.term: term.bytes for entry in memory.phases if entry.phase is phase for term in entry.terms}
