"""Decide a verdict from the priced interval and from what was set and is not priced: the one rule of files, hooks and scripts.

Something that is not priced moves the memory up, down or either way, by an amount that is bounded where arithmetic bounds it. The true
memory lies between `floor_bytes` and `ceiling_bytes`; a plan fits when the ceiling does, and does not when the floor does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from advisor.ladder.fit import on_host
from advisor.memory.host_memory import said_of_host
from advisor.stacks.reading import Kept, Remark, Way
from advisor.values import Fit, MemoryBreakdown, ModelSpec, Plan, Term
from advisor.values.memory import MOVING_TERMS

WIDEST_ELEMENT_BYTES = 4
"""No tensor of a training's forward is wider than fp32."""
MOST_NAMED = 4
"""Keys that the line names; the rest are counted. Judgement: the findings list them all."""


class Bounds(NamedTuple):
    """Where the memory lies once everything that is not priced is let move. No ceiling: nothing bounds what may come on top."""

    floor_bytes: int
    ceiling_bytes: int | None


class Settled(NamedTuple):
    """The verdict, by the price alone and after everything else, and one line that names what is not priced."""

    fit: Fit | None
    priced_fit: Fit | None
    reason: str = ""


def settle(
    model: ModelSpec, plan: Plan, memory: MemoryBreakdown, remarks: Sequence[Remark], beside_bytes: int = 0, usable_bytes: int | None = None
) -> Settled:
    """The verdict on a priced plan and the remarks of its reader, and why. Without a card the line alone speaks."""
    moving = tuple(remark for remark in remarks if remark.way is not None)
    if usable_bytes is None:
        return Settled(None, None, _line(moving, None, None))
    low_bytes, high_bytes = memory.low_bytes + beside_bytes, memory.high_bytes + beside_bytes
    priced = _fit_of(Bounds(low_bytes, high_bytes), usable_bytes)
    bounds = bounds_of(model, plan, memory, moving, beside_bytes)
    fit = _fit_of(bounds, usable_bytes)
    turned = on_host(fit, memory.host)
    if memory.host is not None and turned is not fit:
        return Settled(turned, priced if turned is Fit.UNCERTAIN else turned, said_of_host(memory.host))
    return Settled(fit, priced, _line(moving, fit, priced))


def bounds_of(model: ModelSpec, plan: Plan, memory: MemoryBreakdown, remarks: Sequence[Remark], beside_bytes: int = 0) -> Bounds:
    """Least and most that the plan may hold, given everything that is not priced."""
    lowering = [remark for remark in remarks if remark.way in (Way.DOWN, Way.EITHER)]
    raising = [remark for remark in remarks if remark.way in (Way.UP, Way.EITHER)]
    hidden = plan.micro_batch_size * plan.seq_len_tokens * model.hidden_size * WIDEST_ELEMENT_BYTES
    unbounded = any(remark.adds_hidden is None for remark in raising)
    added = sum(hidden * (remark.adds_hidden or 0) for remark in raising)
    return Bounds(
        floor_bytes=_floor(memory, lowering, beside_bytes) if lowering else memory.low_bytes + beside_bytes,
        ceiling_bytes=None if unbounded else memory.high_bytes + beside_bytes + added,
    )


def _floor(memory: MemoryBreakdown, lowering: Sequence[Remark], beside_bytes: int) -> int:
    """The interval's low end with every part as small as the remarks let it become."""
    sizes = {term.term: term.bytes for term in memory.terms}
    resting = sum(size for term, size in sizes.items() if term not in MOVING_TERMS)
    context = max(0, memory.context_bytes - memory.interval.context_bytes)
    moving = max(0, memory.low_bytes - context - resting)
    logits = moving * sizes.get(Term.LOGITS, 0) / max(1, memory.moving_bytes)
    weights = sizes.get(Term.WEIGHTS, 0)
    parts = Kept(weights, resting - weights + beside_bytes, moving - logits, logits)
    shares = [prod(share) for share in zip(*(remark.keeps for remark in lowering), strict=True)]
    return context + int(sum(size * share for size, share in zip(parts, shares, strict=True)))


def _fit_of(bounds: Bounds, usable_bytes: int) -> Fit:
    if bounds.floor_bytes > usable_bytes:
        return Fit.DOES_NOT_FIT
    if bounds.ceiling_bytes is not None and bounds.ceiling_bytes <= usable_bytes:
        return Fit.FITS
    return Fit.UNCERTAIN


def _line(remarks: Sequence[Remark], fit: Fit | None, priced: Fit | None) -> str:
    """What is not priced and what that does to the verdict, in one line; empty where everything is priced."""
    if not remarks:
        return ""
    if fit is priced or priced is None:
        return f"not priced: {'; '.join(_moves(remarks))}"
    turning = [remark.key for remark in remarks if remark.way in ((Way.UP, Way.EITHER) if priced is Fit.FITS else (Way.DOWN, Way.EITHER))]
    if priced is Fit.FITS:
        return f"fits by what is priced, and {_named(turning)} may raise it"
    if priced is Fit.DOES_NOT_FIT:
        return f"does not fit by what is priced, and {_named(turning)} may lower it"
    return f"the card lies inside the interval, and not priced: {'; '.join(_moves(remarks))}"


def _moves(remarks: Sequence[Remark]) -> Iterator[str]:
    for way, does in ((Way.UP, "can only raise it"), (Way.EITHER, "may move it"), (Way.DOWN, "can only lower it")):
        keys = [remark.key for remark in remarks if remark.way is way]
        if keys:
            yield f"{_named(keys)} {does}"


def _named(keys: Sequence[str]) -> str:
    distinct = tuple(dict.fromkeys(keys))
    more = len(distinct) - MOST_NAMED
    return ", ".join(distinct[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
