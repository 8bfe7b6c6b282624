"""The cheapest changes that make a plan fit, and the longest sequences that they reach.

A change takes no more memory than none, so that the cheapest set of them, counted by its costliest member, then the next, is found step by
step: steps are taken from the mildest on until the plan fits, and taken back from the costliest on where it fits without. Two changes may
take less and still fit less surely: few runs of the fused loss and of sharded weights were measured, and intervals are wide where few were.
A third takes buffers of its own. They are tried both ways. Several cards hold what they exchange beside the plan, so that some of them may
do where all do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from advisor.ladder.fit import Case, Priced, longest_seq, looks_too_large, price, price_or_none
from advisor.ladder.knowledge import say
from advisor.ladder.moves import STEPS, Move, Step, fewer_cards
from advisor.values import Change, Fit, Plan, Rung

SHORTEST_SEQ_TOKENS = 512
"""Sequences are not cut below this to make a plan fit. Judgement: most instruction data no longer fits in fewer tokens."""
NOT_ALWAYS = {"loss": "loss", "shard": "sharding", "sync_each_batch": "sync_each_batch"}
"""Steps that may cost more than they save, and the field of a plan that each sets: of the first two fewer runs were measured, so that
intervals are wider; reducing gradients in each pass takes buffers in each."""

_SURENESS = (Fit.DOES_NOT_FIT, Fit.UNCERTAIN, Fit.FITS)

Taken = Mapping[str, Move]
"""The move of each step that was taken, by the step's option, in the order of taking."""


def make_fit(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """`first` as it stands when it fits; else with the cheapest changes that make it fit, of options that are not `fixed`.

    Where nothing does, on fewer of several cards; then with sequences cut, on as many cards as leave them longest; where that is fixed
    or of no use, the most frugal plan at the length asked for, with the changes that saved something.
    """
    best = _make_fit(case, first, fixed)
    for move in fewer_cards(first, fixed):
        if standing(best) == (len(_SURENESS) - 1, first.seq_len_tokens):
            break
        fewer = _make_fit(case, move.applied(first), fixed)
        if standing(fewer) > standing(best):
            best = fewer._replace(changes=(move.change, *fewer.changes))
    return best


def standing(priced: Priced | Rung) -> tuple[int, int]:
    """How good an answer is: how surely it fits, then the length of its sequences. More is better."""
    return _SURENESS.index(priced.fit), priced.plan.seq_len_tokens


def _make_fit(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """The same on all cards of `first`."""
    tried = _tried(case, first, fixed)
    best = _surest(tried)
    if best.fit is Fit.FITS or "seq_len" in fixed:
        return best
    shortened = [_shorten(case, priced) for priced in tried]
    fitting = [priced for priced in shortened if priced.fit is Fit.FITS]
    return max(fitting, key=lambda priced: priced.plan.seq_len_tokens) if fitting else best


def _tried(case: Case, first: Plan, fixed: frozenset[str]) -> list[Priced]:
    """`first` with the changes that make it fit; where they do not, also without those of NOT_ALWAYS, one by one and together.

    Then with all at once: some save only beside another, once the peak has moved (sharding, say, where every pass is reduced).
    """
    found = _changed(case, first, fixed)
    if found.fit is Fit.FITS or case.model.tables is None:  # without tables each other would be several recordings
        return [found]
    taken = {option for option, field in NOT_ALWAYS.items() if getattr(found.plan, field) != getattr(first, field)}
    tried = [found, *(_changed(case, first, fixed | without) for without in _parts(taken))]
    if any(priced.fit is Fit.FITS for priced in tried):
        return tried
    return [*tried, *(_less_needless(case, first, taken) for taken in _all_at_once(case, first, fixed))]


def _all_at_once(case: Case, plan: Plan, fixed: frozenset[str]) -> Iterator[dict[str, Move]]:
    """Every change together, also without those of NOT_ALWAYS, and with passes of one larger micro-batch where that is a change."""
    options = (option for option in NOT_ALWAYS if option not in fixed and (option == "loss" or plan.n_gpus > 1))
    for without in (frozenset[str](), *_parts(options)):
        smaller, larger = (_all_moves(case, plan, fixed | without, grows=grows) for grows in (False, True))
        yield smaller
        if larger != smaller:
            yield larger


def _less_needless(case: Case, first: Plan, taken: dict[str, Move]) -> Priced:
    """`first` with the changes, less those without which it fits all the same."""
    found = price_or_none(case, _with(first, taken), _changes(taken))
    return price(case, first) if found is None else _without_needless(case, first, found, taken)


def _parts(options: Iterable[str]) -> list[frozenset[str]]:
    """Every set of the options but the empty one, the smallest first."""
    ordered = sorted(options)
    return [frozenset(part) for size in range(1, len(ordered) + 1) for part in combinations(ordered, size)]


def _surest(tried: list[Priced]) -> Priced:
    return min(tried, key=lambda priced: (-_SURENESS.index(priced.fit), priced.totals.high_bytes))


def furthest(case: Case, plan: Plan, fixed: frozenset[str]) -> int | None:
    """The longest sequence that surely fits with every change of options that are not `fixed`; None where none does.

    Of a model without tables the longest of the plan itself: each change would be another recording.
    """
    if case.model.tables is None:
        return longest_seq(case, plan)
    longest = _furthest(case, plan, fixed, 0)
    for move in fewer_cards(plan, fixed):
        longest = _furthest(case, move.applied(plan), fixed, longest or 0)
    return longest


def _furthest(case: Case, plan: Plan, fixed: frozenset[str], known_tokens: int) -> int | None:
    """The same on all cards of `plan`, where sequences of `known_tokens` are known to fit."""
    longest = known_tokens or None
    for taken in _all_at_once(case, plan, fixed):
        longest = longest_seq(case, _with(plan, taken), longest or 0)
    return longest


def changes_for(case: Case, plan: Plan, tokens: int, fixed: frozenset[str]) -> tuple[Change, ...]:
    """What sequences of `tokens` need to be changed beyond `plan`, of options that are not `fixed`."""
    return make_fit(case, plan.model_copy(update={"seq_len_tokens": tokens}), fixed | {"seq_len"}).changes


def _all_moves(case: Case, plan: Plan, fixed: frozenset[str], *, grows: bool) -> dict[str, Move]:
    """The move of each step that saves most.

    `grows`: also a larger micro-batch, which saves what waits between passes, and takes more of what sequences take.
    """
    taken: dict[str, Move] = {}
    for step in STEPS:
        moves = [] if step.option in fixed else [*step.moves(case, _with(plan, taken))]
        moves = [move for move in moves if grows or move.applied(plan).micro_batch_size <= plan.micro_batch_size]
        if len(moves) == 1:
            taken[step.option] = moves[0]
        elif moves:
            _taken(case, price(case, _with(plan, taken)), step, taken)
    return taken


def _changed(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """The cheapest changes that make `first` fit, else those that save something."""
    frugal = _most_frugal(case, first, fixed)
    if frugal is not None and frugal.fit is Fit.DOES_NOT_FIT:
        return frugal
    current = price(case, first)
    taken: dict[str, Move] = {}
    for step in STEPS:
        if current.fit is Fit.FITS:
            break
        if step.option not in fixed:
            current = _taken(case, current, step, taken)
    return _without_needless(case, first, current, taken)._replace(untried=current.untried)


def _most_frugal(case: Case, first: Plan, fixed: frozenset[str]) -> Priced | None:
    """`first` with every change at once, where each price on the way would be another recording and none is likely to fit; else None.

    Where all of its interval is too much, nothing on the way fits: none of its changes takes more than it saves. Smaller micro-batches may,
    as they hold gradients between them.
    """
    in_smaller_batches = first.micro_batch_size > 1 and "batch_size" not in fixed
    if case.model.tables is not None or first.n_gpus > 1 or in_smaller_batches:
        return None
    taken: dict[str, Move] = {}
    for step in STEPS:
        moves = [] if step.option in fixed else [*step.moves(case, _with(first, taken))]
        if moves:
            taken[step.option] = moves[0]
    plan = _with(first, taken)
    return price_or_none(case, plan, _changes(taken)) if looks_too_large(case, plan) else None


def _taken(case: Case, current: Priced, step: Step, taken: dict[str, Move]) -> Priced:
    """With the mildest move of a step that fits, else the one that takes least; as before where all take more. Notes it in `taken`."""
    best, untried, found = current, current.untried, None
    for move in step.moves(case, current.plan):
        moved = price_or_none(case, move.applied(current.plan), (*current.changes, move.change))
        if moved is None:
            untried = (*untried, move.change.what)
            continue
        if moved.totals.expected_bytes <= best.totals.expected_bytes:
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
    return lighter.totals.expected_bytes <= current.totals.expected_bytes


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
