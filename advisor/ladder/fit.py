"""Does a plan fit a card, what is the cheapest change that makes it fit, and how far can it be stretched.

The changes are tried in the order of `_STEPS`, each with its cost said; what the user fixed is never changed, and the rank is
never lowered: an adapter is too small a part of the memory for that to cure anything (facts Q2 and Q9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from advisor.checkpoints import unshardable
from advisor.errors import UnsupportedError
from advisor.ladder.knowledge import say
from advisor.memory import estimate_memory
from advisor.memory.replayed import NotRecorded, least_bytes
from advisor.stacks.engines import shared
from advisor.values import Change, Fit, GpuSpec, MemoryBreakdown, Method, ModelSpec, Optimizer, Plan, Sharding

SEQ_GRID_TOKENS = 128
"""Sequence lengths are searched in these steps. Judgement: kernels like multiples of it, and no reader wants a finer answer."""
SHORTEST_SEQ_TOKENS = 512
"""Sequences are not cut below this to make a plan fit. Judgement: most instruction data no longer fits in fewer tokens."""
FAR_TOKENS = 1 << 20
"""How far to search for models that state no length limit."""
LARGEST_MICRO_BATCH = 1024
"""How far to search. Judgement: past what B1 and B2 call useful by a factor of eight."""


class Case(NamedTuple):
    """The model and the card that plans are tried on."""

    model: ModelSpec
    gpu: GpuSpec


class Priced(NamedTuple):
    """A plan with its memory and whether that fits."""

    plan: Plan
    memory: MemoryBreakdown
    fit: Fit
    changes: tuple[Change, ...] = ()
    untried: tuple[str, ...] = ()
    """Changes that might have helped and have no price here."""


class _Step(NamedTuple):
    """One kind of change: the option that would fix it, and the moves it offers from a plan, mildest first."""

    option: str
    moves: Callable[[Plan], Iterator[tuple[Plan, Change]]]


def classify(memory: MemoryBreakdown, usable_bytes: int) -> Fit:
    """Fits when the whole interval does; does not when none of it does."""
    if memory.high_bytes <= usable_bytes:
        return Fit.FITS
    return Fit.DOES_NOT_FIT if memory.low_bytes > usable_bytes else Fit.UNCERTAIN


def price(case: Case, plan: Plan, changes: tuple[Change, ...] = ()) -> Priced:
    memory = estimate_memory(case.model, plan, case.gpu)
    return Priced(plan, memory, classify(memory, case.gpu.usable_bytes), changes)


def price_or_none(case: Case, plan: Plan, changes: tuple[Change, ...] = ()) -> Priced | None:
    """As `price`; None for what has no price here, because the libraries cannot run it or no recording of it is at hand."""
    try:
        return price(case, plan, changes)
    except NotRecorded:
        raise
    except UnsupportedError:
        return None


def fits(case: Case, plan: Plan) -> bool:
    return may_fit(case, plan) and price(case, plan).fit is Fit.FITS


def may_fit(case: Case, plan: Plan) -> bool:
    """False where a glance at its tape shows that the plan does not fit: a replay is then not needed. So where the libraries cannot run it
    (more tokens, say, than the model has positions). Models with tables have no need."""
    if case.model.tables is not None:
        return True
    try:
        return least_bytes(case.model, plan, case.gpu) <= case.gpu.usable_bytes
    except NotRecorded:
        raise
    except UnsupportedError:
        return False


def make_fit(case: Case, first: Plan, fixed: frozenset[str]) -> Priced:
    """`first` as it stands when it fits; else with the fewest of the cheapest changes that make it fit.

    Where nothing does, the most frugal plan at the sequence length asked for, with the changes that were tried.
    """
    current = price(case, first)
    for step in _STEPS:
        if current.fit is Fit.FITS:
            break
        if step.option not in fixed:
            current = _best_move(case, current, step)
    untried = current.untried
    if current.fit is Fit.FITS:
        current = _without_needless(case, first, current)
    elif "seq_len" not in fixed:
        current = _shorten(case, current)
    return current._replace(untried=untried)


def longest_seq(case: Case, plan: Plan) -> int | None:
    """Longest sequence, on the grid, that surely fits at this micro-batch; None when the shortest does not."""
    limit = max(case.model.max_position_tokens or FAR_TOKENS, plan.seq_len_tokens)
    if fits(case, plan.model_copy(update={"seq_len_tokens": limit})):
        return limit

    def plan_of(steps: int) -> Plan:
        return plan.model_copy(update={"seq_len_tokens": steps * SEQ_GRID_TOKENS})

    return _largest_that_fits(case, plan, limit // SEQ_GRID_TOKENS, plan_of) * SEQ_GRID_TOKENS or None


def largest_micro_batch(case: Case, plan: Plan) -> int | None:
    """Largest micro-batch that surely fits at this sequence length; None when 1 does not."""
    return _largest_that_fits(case, plan, LARGEST_MICRO_BATCH, lambda size: plan.model_copy(update={"micro_batch_size": size})) or None


def _largest_that_fits(case: Case, plan: Plan, limit: int, plan_of: Callable[[int], Plan]) -> int:
    """Largest number in 1..limit whose plan surely fits, given that all below it do; 0 when none does.

    Where a price is a replay, a glance says where to look: what a plan takes beyond what is alive at once is about the same share of it
    as in `plan`, whose price is known.
    """
    if case.model.tables is not None:
        return largest(limit, lambda number: fits(case, plan_of(number)))

    def least(of: Plan) -> int:
        return least_bytes(case.model, of, case.gpu)

    taken_bytes, usable_bytes = price(case, plan).memory.high_bytes, case.gpu.usable_bytes
    most = largest(limit, lambda number: may_fit(case, plan_of(number)))
    first = largest(most, lambda number: least(plan_of(number)) * taken_bytes <= usable_bytes * least(plan))
    return largest_near(first, most, lambda number: fits(case, plan_of(number))) if most else 0


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


def largest_near(first: int, limit: int, holds: Callable[[int], bool]) -> int:
    """As `largest`, looking from `first` on: for where it is known about where it ends."""
    low, high, step = 0, limit + 1, 1
    number = min(max(first, 1), limit)
    if holds(number):
        low = number
        while low + step < high:
            if not holds(low + step):
                high = low + step
                break
            low, step = low + step, step * 2
    else:
        high = number
        while high - step > low:
            if holds(high - step):
                low = high - step
                break
            high, step = high - step, step * 2
    return low + largest(high - low - 1, lambda more: holds(low + more)) if high - low > 1 else low


def moves(plan: Plan, fixed: frozenset[str]) -> Iterator[tuple[Plan, Change]]:
    """Every change that `make_fit` may take from `plan` as its first."""
    for step in _STEPS:
        if step.option not in fixed:
            yield from step.moves(plan)


def _best_move(case: Case, current: Priced, step: _Step) -> Priced:
    """The mildest move that fits, else the one that saves most, else no move."""
    best, untried = current, current.untried
    for plan, change in step.moves(current.plan):
        if plan.sharding.shards_weights and unshardable(case.model, plan.quantization):
            continue
        moved = price_or_none(case, plan, (*current.changes, change))
        if moved is None:
            untried = (*untried, change.what)
            continue
        if moved.memory.expected_bytes < best.memory.expected_bytes:
            best = moved
        if best.fit is Fit.FITS:
            break
    return best._replace(untried=untried)


def _without_needless(case: Case, first: Plan, fitted: Priced) -> Priced:
    """Takes back earlier changes that a later one made unnecessary, in the order they were made."""
    if len(fitted.changes) < 2:
        return fitted
    changed = {name for name in Plan.model_fields if getattr(first, name) != getattr(fitted.plan, name)}
    for step, change in zip(_taken(first, fitted.plan), fitted.changes, strict=True):
        undo = {name: getattr(first, name) for name in _FIELDS[step] if name in changed}
        slimmer = price_or_none(case, fitted.plan.model_copy(update=undo), tuple(other for other in fitted.changes if other is not change))
        if slimmer is not None and slimmer.fit is Fit.FITS:
            fitted = slimmer
    return fitted


def _taken(first: Plan, last: Plan) -> tuple[str, ...]:
    """Options of the steps that were taken between two plans, in order."""
    return tuple(step.option for step in _STEPS if any(getattr(first, name) != getattr(last, name) for name in _FIELDS[step.option]))


def _shorten(case: Case, current: Priced) -> Priced:
    """Cuts sequences to the longest that surely fits, if that is still of use."""
    longest = longest_seq(case, current.plan)
    if longest is None or longest < SHORTEST_SEQ_TOKENS or longest >= current.plan.seq_len_tokens:
        return current
    what = say("change.seq_len", old=f"{current.plan.seq_len_tokens:,}", new=f"{longest:,}")
    change = Change(what=what, cost=say("cost.seq_len"))
    return price(case, current.plan.model_copy(update={"seq_len_tokens": longest}), (*current.changes, change))


def _drop_kbit(plan: Plan) -> Iterator[tuple[Plan, Change]]:
    if plan.kbit_prepare:
        change = Change(what=say("change.kbit_prepare"), cost=say("cost.kbit_prepare"))
        yield plan.model_copy(update={"kbit_prepare": False}), change


def _checkpoint(plan: Plan) -> Iterator[tuple[Plan, Change]]:
    if not plan.gradient_checkpointing:
        kind = "full" if plan.method is Method.FULL else "adapter"
        yield (
            plan.model_copy(update={"gradient_checkpointing": True}),
            Change(what=say("change.checkpointing"), cost=say(f"cost.checkpointing.{kind}")),
        )


def _shard(plan: Plan) -> Iterator[tuple[Plan, Change]]:
    if plan.n_gpus > 1 and not plan.sharding.shards_weights:
        change = Change(what=say("change.sharding", n=plan.n_gpus), cost=say("cost.sharding"))
        yield shared(plan, Sharding.FSDP2), change


def without_accumulation(plan: Plan) -> Plan:
    """The same effective batch in one pass, so that no gradient waits whole for the next one."""
    whole = plan.micro_batch_size * plan.grad_accum_steps
    return plan.model_copy(update={"micro_batch_size": whole, "grad_accum_steps": 1})


def _rebatch(plan: Plan) -> Iterator[tuple[Plan, Change]]:
    """The same effective batch otherwise: at once where engines hold whole gradients between passes, else in smaller micro-batches with as
    much more accumulation, by divisors of the old one."""
    old, accumulation = plan.micro_batch_size, plan.grad_accum_steps
    if plan.sharding.shards_weights and accumulation > 1:
        what = say("change.micro_batch", old=old, new=old * accumulation, old_accum=accumulation, new_accum=1)
        yield without_accumulation(plan), Change(what=what, cost=say("cost.whole_batch"))
    for new in (size for size in range(old // 2, 0, -1) if old % size == 0):
        more = accumulation * (old // new)
        what = say("change.micro_batch", old=old, new=new, old_accum=accumulation, new_accum=more)
        yield plan.model_copy(update={"micro_batch_size": new, "grad_accum_steps": more}), Change(what=what, cost=say("cost.micro_batch"))


def _eight_bit_optimizer(plan: Plan) -> Iterator[tuple[Plan, Change]]:
    """AdamW alone has an 8-bit twin that leaves the recipe as it is."""
    if plan.optimizer in (Optimizer.ADAMW, Optimizer.ADAMW_FUSED):
        what = say("change.optimizer", old=plan.optimizer.value, new=Optimizer.ADAMW_8BIT.value)
        yield plan.model_copy(update={"optimizer": Optimizer.ADAMW_8BIT}), Change(what=what, cost=say("cost.optimizer"))


_STEPS = (
    _Step("kbit_prepare", _drop_kbit),
    _Step("checkpointing", _checkpoint),
    _Step("shard", _shard),
    _Step("batch_size", _rebatch),
    _Step("optimizer", _eight_bit_optimizer),
)
_FIELDS = {
    "kbit_prepare": ("kbit_prepare",),
    "checkpointing": ("gradient_checkpointing",),
    "shard": ("sharding", "masters"),
    "batch_size": ("micro_batch_size", "grad_accum_steps"),
    "optimizer": ("optimizer",),
}
