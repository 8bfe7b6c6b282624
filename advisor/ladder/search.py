"""The cheapest changes that make a plan fit, and the longest sequences that they reach.

A change takes no more memory than none, so that the cheapest set of them, counted by its costliest member, then the next, is found step by
step: steps are taken from the mildest on until the plan fits, and taken back from the costliest on where it fits without. One change may
take less and still fit less surely: few runs of the fused loss were measured, and intervals are wide where few were. It is tried both ways.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.ladder.fit import Case, Priced, longest_seq, price, price_or_none
from advisor.ladder.knowledge import say
from advisor.ladder.moves import STEPS, Move, Step
from advisor.values import Change, Fit, Plan

SHORTEST_SEQ_TOKENS = 512
"""Sequences are not cut below this to make a plan fit. Judgement: most instruction data no longer fits in fewer tokens."""
LESS_SURE = "loss"
"""The step whose plans are bounded by fewer runs than those without it."""

_SURENESS = (Fit.FITS, Fit.UNCERTAIN, Fit.DOES_NOT_FIT)

Taken = Mapping[str, Move]
"""The move of each step that was taken, by the step's option, in the steps' order."""


def make_fit(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """`first` as it stands when it fits; else with the cheapest changes that make it fit, of options that are not `fixed`.

    Where nothing does, sequences are cut; where that is fixed or of no use, the most frugal plan at the length asked for, with the
    changes that saved something.
    """
    found = _changed(case, first, fixed)
    if found.fit is Fit.FITS:
        return found
    tried = [found]
    if any(change.what == say("change.loss") for change in found.changes):
        tried.append(_changed(case, first, fixed | {LESS_SURE}))
    best = min(tried, key=lambda priced: (_SURENESS.index(priced.fit), priced.memory.high_bytes))
    if best.fit is Fit.FITS or "seq_len" in fixed:
        return best
    shortened = [_shorten(case, priced) for priced in tried]
    fitting = [priced for priced in shortened if priced.fit is Fit.FITS]
    return max(fitting, key=lambda priced: priced.plan.seq_len_tokens) if fitting else best


def furthest(case: Case, plan: Plan, fixed: frozenset[str]) -> int | None:
    """The longest sequence that surely fits with every change of options that are not `fixed`; None where none does.

    Of a model without tables the longest of the plan itself: each change would be another recording.
    """
    if case.model.tables is None:
        return longest_seq(case, plan)
    longest = longest_seq(case, _with(plan, _all_moves(case, plan, fixed)))
    if LESS_SURE not in fixed:
        longest = longest_seq(case, _with(plan, _all_moves(case, plan, fixed | {LESS_SURE})), longest or 0)
    return longest


def changes_for(case: Case, plan: Plan, tokens: int, fixed: frozenset[str]) -> tuple[Change, ...]:
    """What sequences of `tokens` need to be changed beyond `plan`, of options that are not `fixed`."""
    return _changed(case, plan.model_copy(update={"seq_len_tokens": tokens}), fixed).changes


def _all_moves(case: Case, plan: Plan, fixed: frozenset[str]) -> dict[str, Move]:
    """The move of each step that saves most."""
    taken: dict[str, Move] = {}
    for step in STEPS:
        moves = [] if step.option in fixed else [*step.moves(case, _with(plan, taken))]
        if len(moves) == 1:
            taken[step.option] = moves[0]
        elif moves:
            _taken(case, price(case, _with(plan, taken)), step, taken)
    return taken


def _changed(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """The cheapest changes that make `first` fit, else those that save something."""
    current = price(case, first)
    taken: dict[str, Move] = {}
    for step in STEPS:
        if current.fit is Fit.FITS:
            break
        if step.option not in fixed:
            current = _taken(case, current, step, taken)
    return _without_needless(case, first, current, taken)._replace(untried=current.untried)


def _taken(case: Case, current: Priced, step: Step, taken: dict[str, Move]) -> Priced:
    """With the mildest move of a step that fits, else the one that takes least; as before where all take more. Notes it in `taken`."""
    best, untried, found = current, current.untried, None
    for move in step.moves(case, current.plan):
        moved = price_or_none(case, move.applied(current.plan), (*current.changes, move.change))
        if moved is None:
            untried = (*untried, move.change.what)
            continue
        if moved.memory.expected_bytes <= best.memory.expected_bytes:
            best, found = moved, move
        if best.fit is Fit.FITS:
            break
    if found is not None:
        taken[step.option] = found
    return best._replace(untried=untried)


def _without_needless(case: Case, first: Plan, current: Priced, taken: dict[str, Move]) -> Priced:
    """Takes back, from the costliest on, each move without which the plan fits all the same, or, where it does not fit, takes no more."""
    if current.fit is not Fit.FITS and case.model.tables is None:  # each plan would be another recording, for a rung that is none
        return current
    for step in reversed(STEPS):
        if step.option not in taken:
            continue
        others = {option: move for option, move in taken.items() if option != step.option}
        for milder in (None, *_milder(case, first, step, taken)):
            fewer = others if milder is None else {option: milder if option == step.option else move for option, move in taken.items()}
            lighter = price_or_none(case, _with(first, fewer), _changes(fewer))
            if lighter is not None and _as_good(lighter, current):
                taken, current = fewer, lighter
                break
    return current


def _milder(case: Case, first: Plan, step: Step, taken: Taken) -> list[Move]:
    """The moves of a step that stand before the one that was taken."""
    plan = _with(first, {option: move for option, move in taken.items() if option != step.option})
    moves = list(step.moves(case, plan))
    return moves[: next((at for at, move in enumerate(moves) if move.update == taken[step.option].update), 0)]


def _as_good(lighter: Priced, current: Priced) -> bool:
    if current.fit is Fit.FITS:
        return lighter.fit is Fit.FITS
    return lighter.memory.expected_bytes <= current.memory.expected_bytes


def _with(first: Plan, taken: Taken) -> Plan:
    plan = first
    for move in taken.values():
        plan = move.applied(plan)
    return plan


def _changes(taken: Taken) -> tuple[Change, ...]:
    return tuple(move.change for move in taken.values())


def _shorten(case: Case, current: Priced) -> Priced:
    """Cuts sequences to the longest that surely fits, if that is still of use."""
    longest = longest_seq(case, current.plan)
    if longest is None or longest < SHORTEST_SEQ_TOKENS or longest >= current.plan.seq_len_tokens:
        return current
    what = say("change.seq_len", old=f"{current.plan.seq_len_tokens:,}", new=f"{longest:,}")
    change = Change(what=what, cost=say("cost.seq_len"))
    return price(case, current.plan.model_copy(update={"seq_len_tokens": longest}), (*current.changes, change))
