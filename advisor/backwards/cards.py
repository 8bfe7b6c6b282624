"""Which card costs least, and how many cards are enough."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, sqrt
from typing import NamedTuple

from advisor.backwards.question import Question, priced, timed
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.ladder.fit import Priced
from advisor.memory.replayed import NotRecorded
from advisor.values import Fit, GpuSpec, ModelSpec, Request, Sharding
from advisor.values.question import Candidate

MOST_CARDS = 64
"""How far to search for a number of cards. Judgement: eight machines of eight; past them the wires decide, not the memory."""


class Tried(NamedTuple):
    """A number of cards of one kind, with the plan on it; nothing is priced where it cannot be."""

    gpu: GpuSpec
    request: Request
    candidate: Candidate
    priced: Priced | None


def tried(model: ModelSpec, gpu: GpuSpec, request: Request, tokens: int) -> Tried:
    """The plan of `request` on its number of cards. Raises NotRecorded where a recording is needed first."""
    n_gpus = request.gpus or 1
    rent = min((price.usd_per_gpu_hour for price in gpu.prices), default=None)
    candidate = Candidate(
        name=gpu.name,
        n_gpus=n_gpus,
        fit=None,
        usable_bytes=gpu.usable_bytes,
        usd_per_hour=None if rent is None else rent * n_gpus,
    )
    try:
        found = priced(model, gpu, request)
    except NotRecorded:
        raise
    except (UnsupportedError, InvalidInputError) as error:
        return Tried(gpu, request, candidate.model_copy(update={"reason": str(error)}), None)
    time = None if found.fit is Fit.DOES_NOT_FIT else timed(model, found.plan, gpu, tokens)
    known = {"fit": found.fit, "high_bytes": found.totals.high_bytes, "step_time": time}
    return Tried(gpu, request, candidate.model_copy(update=known), found)


def on(request: Request, n_gpus: int) -> Request:
    """The request on so many cards: shared by FSDP where nobody says by which engine, since replicas need as much each; one card shares
    nothing."""
    shard = (request.shard or Sharding.FSDP2) if n_gpus > 1 else None
    return request.model_copy(update={"gpus": n_gpus, "shard": shard})


def by_number(model: ModelSpec, gpu: GpuSpec, question: Question) -> tuple[Tried, ...]:
    """One card, two, and so on, up to the first number that surely fits; every one is priced, because padding and accumulation make
    memory go up and down. Ends where there is no price for more."""
    found: list[Tried] = []
    for n_gpus in range(1, MOST_CARDS + 1):
        found.append(tried(model, gpu, on(question.request, n_gpus), question.cost_tokens))
        last = found[-1]
        if last.candidate.fit is Fit.FITS or (last.priced is None and n_gpus > 1):
            break
    return tuple(found)


def by_cost(model: ModelSpec, cards: Iterable[GpuSpec], question: Question) -> tuple[Tried, ...]:
    """Every card that has a recorded rent, cheapest first: those that surely fit by what the tokens cost, then the others."""
    found = []
    for gpu in cards:
        if not gpu.prices:
            continue
        if question.fewest:
            found.append(by_number(model, gpu, question)[-1])
        else:
            found.append(tried(model, gpu, question.request, question.cost_tokens))
    return tuple(sorted(found, key=_order))


def _order(each: Tried) -> tuple[bool, bool, float, float, str]:
    """By the middle of the cost, as a ratio: the same shares of a card's speed bound all of them. Without speeds, by rent and last."""
    candidate = each.candidate
    usd = None if candidate.step_time is None else candidate.step_time.usd
    cost = inf if usd is None else sqrt(usd.low * usd.high)
    return candidate.fit is not Fit.FITS, candidate.fit is not Fit.UNCERTAIN, cost, candidate.usd_per_hour or inf, candidate.name
