"""What is worth saying beside the answer: traps that the facts show. Ids are stable; scripts may match on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from advisor.evidence.capacity import RankStep, ample, rank_steps
from advisor.evidence.gates_doors import compared_at_one_rate, reference
from advisor.evidence.gates_overfit import score_gained
from advisor.evidence.gates_rank import cut_cost, rank_is_unused
from advisor.evidence.losses import falls_in_stairs
from advisor.evidence.rates import is_certified
from advisor.evidence.result import show_change, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
from advisor.units import format_share
from advisor.values import Finding, Level, Task

Trap = Callable[[View], Iterator[Finding]]


def rank_trap(view: View) -> Iterator[Finding]:
    """A higher rank that did not pay, or one beyond all that was ever measured: rank is no dial for quality."""
    if view.focus is None or view.run.rank is None:
        return
    numbers = {"rank": float(view.run.rank)}
    lost = [step for step in rank_steps(view) if not step.difference.wins]
    beyond = view.run.rank > gate("rank_largest")
    rho = view.rho(view.run.rank, view.run)
    if lost:
        message = f"{_lost(view, lost[-1])}: a higher rank is no dial for quality"
        numbers |= {"low_rank": float(lost[-1].low.rank or 0), "high_rank": float(lost[-1].high.rank or 0)}
        hint = (
            f"go back to rank {lost[-1].low.rank}; the limit is elsewhere"
            if lost[-1].retuned
            else "it shows nothing about rank before the learning rate is tuned at both"
        )
    elif beyond:
        message = f"rank {view.run.rank} is beyond all that was measured to help; 512 and more were worse"
        hint = "go back to 256 or less, and look for the limit elsewhere"
    elif rho is not None and ample(rho):
        message = f"rank {view.run.rank} has {rho:.2g} LoRA parameters per training token, and from 4 on more rank would be the trap"
        hint = "look at learning rate, data and duration first"
        numbers["rho"] = rho
    else:
        return
    yield Finding(
        id="rank-trap",
        level=Level.WARNING if lost or beyond else Level.INFO,
        message=message,
        hint=hint,
        numbers=numbers,
        evidence=("C8", "C10", "C11", "C12", "C19"),
    )


def _lost(view: View, step: RankStep) -> str:
    how = step.how
    if step.difference.loses:
        return f"{step.ranks} {how} lost {show_gap(view, -step.difference.delta)}"
    verb = "brought" if step.difference.delta >= 0 else "cost"
    return f"{step.ranks} {how} {verb} {show_gap(view, abs(step.difference.delta))}, within the noise"


def rank_no_cure(view: View) -> Iterator[Finding]:
    """A lower rank is the usual and useless answer to a full card."""
    if view.focus is None or not view.run.oom or not view.run.method.has_adapter:
        return
    large = view.run.rank is not None and view.run.rank >= gate("rank_memory_matters")
    yield Finding(
        id="rank-no-cure",
        level=Level.INFO if large else Level.WARNING,
        message="a lower rank does not make room: rank 8 against 16 on all layers of a 7B model is 0.05 GiB"
        if not large
        else f"a lower rank than {view.run.rank} makes some room, but far less than checkpointing or a 4-bit base",
        hint="checkpointing, micro-batch 1, then a 4-bit base",
        numbers={"rank": float(view.run.rank or 0)},
        evidence=("Q2", "Q9"),
    )


def rank_cut(view: View) -> Iterator[Finding]:
    """What a scored cut to half the rank says; a spectrum alone says nothing of the score."""
    adapter, cut = view.facts.adapter, None if view.focus is None else cut_cost(view)
    if cut is not None:
        cost, error = cut
        z = abs(cost) / (error or 1)
        at_half = f"cut to half its rank, the adapter of {view.run.label} scores {show_change(view, -cost)}, {z:.1f} standard errors"
        if rank_is_unused(view):
            message, hint = f"{at_half}: rank {view.run.rank} is not in use", "the limit is not the rank"
        elif cost <= 2 * error:
            message, hint = f"{at_half}: inconclusive", "score it on more items, item by item"
        else:
            message, hint = f"{at_half}: its rank is in full use", "which alone does not prove that more rank would help"
        yield Finding(id="rank-cut", level=Level.INFO, message=message, hint=hint, evidence=("P1",))
    elif view.focus is not None and adapter is not None and adapter.energy_at_half is not None and adapter.rank == view.run.rank:
        held = format_share(adapter.energy_at_half)
        yield Finding(
            id="rank-cut",
            level=Level.INFO,
            message=f"half of the rank holds {held} of the update's energy, which says nothing of the score",
            hint="score the adapter cut to half its rank: advise inspect --truncate writes it",
            evidence=("P1", "P2"),
        )


def few_items(view: View) -> Iterator[Finding]:
    """Decisions on a handful of items."""
    n = view.noise.items(view.run) if view.focus is not None else view.facts.evaluation.n
    if n is None or not view.noise.shares or n >= gate("few_items"):
        return
    yield Finding(
        id="few-items",
        level=Level.WARNING,
        message=f"{n} held-out items: chance alone moves a score by {100 * 1.96 * (0.25 / n) ** 0.5:.0f} points either way (95 %)",
        hint="no climb is decided on fewer than 200",
        numbers={"items": float(n)},
        evidence=("N1", "N3", "N4"),
    )


def shared_rate(view: View) -> Iterator[Finding]:
    """Several methods at one learning rate: the comparison speaks of the rate."""
    if not compared_at_one_rate(view):
        return
    yield Finding(
        id="shared-learning-rate",
        level=Level.WARNING,
        message="the methods were compared at one learning rate: their best rates differ by up to ten times, so this compares rates",
        hint="give every method a sweep of its own before ranking them",
        evidence=("LR1", "LR8", "LR9", "LR10"),
    )


def full_untuned(view: View) -> Iterator[Finding]:
    """A full fine-tuning reference without its own sweep."""
    full = reference(view)
    if full is None or is_certified(view, full):
        return
    yield Finding(
        id="full-untuned",
        level=Level.INFO,
        message=f"the full fine-tuning run {full.label} had no learning-rate sweep: such references are often short of what they could do",
        hint="sweep it around a tenth of the adapter's best rate",
        evidence=("F9", "LR1"),
    )


def batch_high(view: View) -> Iterator[Finding]:
    """Above what adapters were measured to stand, whether or not it binds."""
    if view.focus is None or view.run.batch is None or view.run.batch <= gate("batch_high") or not view.run.method.has_adapter:
        return
    yield Finding(
        id="batch-high",
        level=Level.WARNING,
        message=f"{view.run.batch} sequences per step: adapters were at their best up to 128 and fell behind above, at any rank",
        hint="16 to 32, with the learning rate swept again",
        numbers={"sequences_per_step": float(view.run.batch)},
        evidence=("B1", "B2"),
    )


def four_bit_merge(view: View) -> Iterator[Finding]:
    """LoftQ changes the base; it must be kept."""
    if view.focus is None or view.run.init.lower() != "loftq":
        return
    yield Finding(
        id="loftq-base",
        level=Level.WARNING,
        message="LoftQ changed the base weights: loaded on the published ones, the adapter is wrong",
        hint="keep the initialised base beside the adapter",
        evidence=("Q5",),
    )


def rl_rank(view: View) -> Iterator[Finding]:
    """Reinforcement learning needs no rank."""
    if view.objective != "rl" or view.focus is None or (view.run.rank or 0) <= 16:
        return
    yield Finding(
        id="rl-rank",
        level=Level.INFO,
        message="reinforcement learning absorbs about a bit per episode: rank 1 matched full fine-tuning, 8 to 16 is ample",
        hint="no climb in rank, no full fine-tuning",
        numbers={"rank": float(view.run.rank or 0)},
        evidence=("C15",),
    )


def narrow_task(view: View) -> Iterator[Finding]:
    """Extraction and classification are done by small adapters."""
    if view.facts.task is not Task.EXTRACTION:
        return
    yield Finding(
        id="narrow-task",
        level=Level.INFO,
        message="narrow extraction and classification were done by rank-8 adapters on 4-bit bases: 34 points over the base on average",
        evidence=("Q11",),
    )


def stairs(view: View) -> Iterator[Finding]:
    """Every pass begins with a lower training loss (tloen/alpaca-lora issue 502), which then tells no more of how good the model is."""
    if view.focus is None or view.objective != "sft" or not falls_in_stairs(view.run):
        return
    yield Finding(
        id="loss-stairs",
        level=Level.WARNING,
        message="the training loss falls only where a pass over the data begins: it recognises examples of the pass before, and says "
        "little of new ones",
        hint="log the evaluation loss ten times on the way, and keep the checkpoint where it, or the score, is best",
        evidence=("B4", "B7"),
    )


def loss_against_score(view: View) -> Iterator[Finding]:
    """The evaluation loss rises and the score does, too: the score decides (microsoft/LMOps issue 48)."""
    if view.focus is None or not score_gained(view, view.run):
        return
    yield Finding(
        id="loss-against-score",
        level=Level.INFO,
        message="the evaluation loss has risen since its lowest while the score gained: answers in other words cost loss and no points",
        hint="choose the checkpoint by the score",
        evidence=("E7",),
    )


TRAPS: tuple[Trap, ...] = (
    rank_trap,
    rank_no_cure,
    rank_cut,
    few_items,
    shared_rate,
    full_untuned,
    batch_high,
    four_bit_merge,
    rl_rank,
    narrow_task,
    stairs,
    loss_against_score,
)


def findings(view: View) -> tuple[Finding, ...]:
    """Every trap that the facts show, in order."""
    return tuple(finding for trap in TRAPS for finding in trap(view))
