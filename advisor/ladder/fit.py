"""Does a plan fit a card, and how far can it be stretched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.memory.curves import Totals, totals_in, totals_of
from advisor.memory.peak import resting_bytes
from advisor.memory.replayed import RECORDED_TOKENS, NotRecorded, least_bytes
from advisor.memory.weights import likely_resting_bytes
from advisor.values import Change, Fit, GpuSpec, MemoryBreakdown, ModelSpec, Plan
from advisor.values.memory import HostMemory

SEQ_GRID_TOKENS = 128
"""Sequence lengths are searched in these steps. Judgement: kernels like multiples of it, and no reader wants a finer answer."""
FAR_TOKENS = 1 << 20
"""How far to search for models that state no length limit."""
LARGEST_MICRO_BATCH = 1024
"""How far to search. Judgement: past what B1 and B2 call useful by a factor of eight."""


class Case(NamedTuple):
    """The model and the card that plans are tried on."""

    model: ModelSpec
    gpu: GpuSpec


class Priced(NamedTuple):
    """A plan with what it takes and whether that fits."""

    case: Case
    plan: Plan
    totals: Totals
    fit: Fit
    changes: tuple[Change, ...] = ()
    untried: tuple[str, ...] = ()
    """Changes that might have helped and have no price here."""

    @property
    def memory(self) -> MemoryBreakdown:
        """The same term by term."""
        return _whole(self.case, self.plan)


def classify(memory: MemoryBreakdown | Totals, usable_bytes: int) -> Fit:
    """Fits when the whole interval does, and the machine holds its part; does not when none of it does."""
    if memory.high_bytes <= usable_bytes:
        return on_host(Fit.FITS, memory.host)
    return on_host(Fit.DOES_NOT_FIT if memory.low_bytes > usable_bytes else Fit.UNCERTAIN, memory.host)


def on_host(fit: Fit, host: HostMemory | None) -> Fit:
    """The verdict of the card, after the machine's: one that has too little turns it, one whose memory nobody told of leaves it open."""
    if host is None:
        return fit
    if host.lacks:
        return Fit.DOES_NOT_FIT
    return Fit.UNCERTAIN if fit is Fit.FITS and host.is_open else fit


def price(case: Case, plan: Plan, changes: tuple[Change, ...] = ()) -> Priced:
    totals = totals_of(case.model, plan, case.gpu) if has_totals(case, plan) else totals_in(_whole(case, plan))
    return Priced(case, plan, totals, classify(totals, case.gpu.usable_bytes), changes)


def has_totals(case: Case, plan: Plan) -> bool:
    """Whether what a plan takes is known without its terms: not of a recording, of an evaluation beside, or by a calibration."""
    return case.model.tables is not None and plan.eval_micro_batch_size is None and not case.gpu.calibrations


def _whole(case: Case, plan: Plan) -> MemoryBreakdown:
    asked = estimate_memory if case.gpu.calibrations else memory_of  # a calibration holds what cannot be a key
    return asked(case.model, plan, case.gpu)


@lru_cache(maxsize=2048)
def memory_of(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> MemoryBreakdown:
    """Return what a plan takes, as `advise estimate` says it.

    It is kept (some ten megabytes): of the prices that a reader of the page asks for, changing one option after another, more than half
    were asked for before.
    """
    return estimate_memory(model, plan, gpu)


def price_or_none(case: Case, plan: Plan, changes: tuple[Change, ...] = ()) -> Priced | None:
    """As `price`; None for what has no price here, because the libraries cannot run it or no recording of it is at hand."""
    try:
        return price(case, plan, changes)
    except NotRecorded:
        raise
    except UnsupportedError:
        return None


def fits(case: Case, plan: Plan) -> bool:
    return (case.model.tables is not None or may_fit(case, plan)) and price(case, plan).fit is Fit.FITS


def may_fit(case: Case, plan: Plan) -> bool:
    """False where a glance shows that the plan does not fit: what rests is too much for the card, or what its tape says is alive at once; a
    program, or a replay, is then not needed. So where the libraries cannot run it (more tokens, say, than the model has positions)."""
    if case.model.tables is not None:
        return not has_totals(case, plan) or resting_bytes(case.model, plan) <= case.gpu.usable_bytes
    try:
        return least_bytes(case.model, plan, case.gpu) <= case.gpu.usable_bytes
    except NotRecorded:
        raise
    except UnsupportedError:
        return False


def looks_too_large(case: Case, plan: Plan) -> bool:
    """Whether a card is likely too small for what rests in a step of `plan`: a guess of what to look at first, never an answer.

    It takes every matrix as quantised that a method quantises most of, and every parameter of a full fine-tuning as trained.
    """
    return likely_resting_bytes(case.model.params, plan) > case.gpu.usable_bytes


def needs_recordings(model: ModelSpec) -> bool:
    """Whether each kind of plan of a model is recorded when it is asked for: what is only said beside an answer is then left out."""
    if model.tables is not None:
        return False
    from advisor.tape.shipped import has_tapes

    return not has_tapes(model)


def longest_seq(case: Case, plan: Plan, known_tokens: int = 0) -> int | None:
    """Longest sequence, on the grid, that surely fits at this micro-batch; None when the shortest does not. Sequences of `known_tokens`
    are known to fit.

    Of a model without tables no shorter ones are looked at than the plan's where those fit, and no longer ones where they do not: they may
    be another recording.
    """
    known = known_tokens
    for limit in _lengths_to_ask(case, plan, known_tokens):
        if not fits(case, plan.model_copy(update={"seq_len_tokens": limit})):
            break
        known = limit
    else:
        return known

    def plan_of(steps: int) -> Plan:
        return plan.model_copy(update={"seq_len_tokens": steps * SEQ_GRID_TOKENS})

    steps = known // SEQ_GRID_TOKENS
    more = _largest_that_fits(case, plan, limit // SEQ_GRID_TOKENS - steps, lambda further: plan_of(steps + further))
    return (steps + more) * SEQ_GRID_TOKENS or None


def _lengths_to_ask(case: Case, plan: Plan, known_tokens: int) -> Iterator[int]:
    """Lengths of which the first that does not fit bounds the search: the last is as far as it goes. A model without tables is first asked
    of lengths that one recording speaks for."""
    positions = case.model.max_position_tokens
    if case.model.tables is None:
        if plan.seq_len_tokens > known_tokens:
            yield plan.seq_len_tokens
        if positions is None:
            yield max(RECORDED_TOKENS, plan.seq_len_tokens)
    yield max(positions or FAR_TOKENS, plan.seq_len_tokens)


def largest_micro_batch(case: Case, plan: Plan) -> int | None:
    """Largest micro-batch that surely fits at this sequence length; None when 1 does not."""
    return _largest_that_fits(case, plan, LARGEST_MICRO_BATCH, lambda size: plan.model_copy(update={"micro_batch_size": size})) or None


def _largest_that_fits(case: Case, plan: Plan, limit: int, plan_of: Callable[[int], Plan]) -> int:
    """Largest number in 1..limit whose plan surely fits, given that all below it do; 0 when none does.

    Where a price is a replay, a glance says where to look: what a plan takes beyond what is alive at once is about the same share of it
    as in the plan that was priced last.
    """
    if case.model.tables is not None:
        return largest(limit, lambda number: fits(case, plan_of(number)))

    def least(of: Plan) -> int:
        return least_bytes(case.model, of, case.gpu)

    most = largest(limit, lambda number: may_fit(case, plan_of(number)))
    last = price(case, plan)

    def guess() -> int:
        taken_bytes, alive_bytes = last.totals.high_bytes, least(last.plan)
        return largest(most, lambda number: least(plan_of(number)) * taken_bytes <= case.gpu.usable_bytes * alive_bytes)

    def holds(number: int) -> bool:
        nonlocal last
        last = price(case, plan_of(number))
        return last.fit is Fit.FITS

    return largest_guessed(most, guess, holds)


def largest(limit: int, holds: Callable[[int], bool]) -> int:
    """Largest number in 1..limit for which `holds`, given that it holds up to some point; 0 when it never does."""
    low, high = 0, limit + 1
    step = 1
    while low + step < high:  # gallop first: small answers are common, and a step costs an estimate
        if not holds(low + step):
            high = low + step
            break
        low, step = low + step, step * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


GUESSES = 4
"""Of one search, before it halves what is left. Judgement: what the allocator holds beyond what is alive moves in steps: guesses are
soon right or never."""


def largest_guessed(limit: int, guess: Callable[[], int], holds: Callable[[int], bool]) -> int:
    """As `largest`, asking first where `guess` says that it ends; each time that something was asked it may say better."""
    low, high, asked = 0, limit + 1, 0
    while high - low > 1:
        number = min(max(guess(), low + 1), high - 1) if asked < GUESSES else (low + high) // 2
        low, high = (number, high) if holds(number) else (low, number)
        asked += 1
    return low
