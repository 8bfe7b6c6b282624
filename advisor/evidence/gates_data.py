"""R7: batch and duration, from the curves and from runs of other lengths."""

from __future__ import annotations

from advisor.evidence.alike import differ_only
from advisor.evidence.capacity import is_pretraining
from advisor.evidence.gates_overfit import lengths_of, passes
from advisor.evidence.losses import trend
from advisor.evidence.lr import rate_for, three_points
from advisor.evidence.noise import Difference
from advisor.evidence.published import curve, move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH
from advisor.units import format_share
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door

GOOD_BATCH = 32
"""Sequences per step up to which small data is at its best (facts B1, B2)."""


def too_few_steps(view: View) -> Result | None:
    """R7. So few optimizer steps that nothing can be judged by them (facts B1, LR2, C12)."""
    run = view.run
    large = run.batch is not None and run.batch >= gate("batch_high")
    few = run.steps is not None and run.steps < (gate("steps_few_large_batch") if large else gate("steps_few"))
    if not few or not run.method.has_adapter:
        return None
    told = f"{run.batch} sequences per step and {run.steps} optimizer steps" if large else f"{run.steps} optimizer steps"
    if run.batch is None or run.batch > GOOD_BATCH:
        return _smaller_batch(view, run, told)
    return _longer(view, run, f"run {run.label}: {told} are too few to judge by", MEDIUM, gate("odds_falling"))


def batch_is_large(view: View) -> Result | None:
    """R7. A batch above what adapters stand, which may explain the gap (facts B1, B2)."""
    run = view.run
    above = run.batch is not None and run.batch > gate("batch_high") and run.method.has_adapter
    return _smaller_batch(view, run, f"{run.batch} sequences per step") if above and _batch_explains(view, run) else None


def _smaller_batch(view: View, run: RunFacts, told: str) -> Result:
    batch = FIRST_EFFECTIVE_BATCH
    small = next_run(run, batch=batch)
    rates = () if run.learning_rate is None else three_points(rate_for(run.learning_rate, run, small))
    found = move("batch")
    return Result(
        gate="R7",
        binding=Binding.BATCH if run.batch is not None else Binding.UNDERTRAINED,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"run {run.label}: {told}: adapters fall behind at large batches and in few steps, at any rank",
        experiment=f"Train with {batch} sequences per step, so with more steps, and sweep the learning rate again, which falls with the "
        f"batch{': ' + ', '.join(map(show, rates)) if rates else ''}.",
        run=small.model_copy(update={"learning_rates": rates}),
        keep="Go on from the better of the two; call it a gain",
        gain=found.gain,
        odds=gate("odds_batch"),
        cost=found.price,
        evidence=("B1", "B2", "LR14", "C12"),
        missing=() if run.batch is not None else ("sequences per optimizer step",),
    )


def _batch_explains(view: View, run: RunFacts) -> bool:
    """The published loss at this batch is a considerable part of the gap; without a gap to compare with, it is taken to be."""
    if view.gap is None or view.current_score is None or not view.noise.shares:
        return True
    loss = curve("batch_loss", float(run.batch or 1)) * abs(view.current_score)
    return loss >= gate("batch_gap_share") * view.gap


def still_learning(view: View) -> Result | None:
    """R7. The losses were still falling at the end, or the last doubling of the epochs gained: longer still (facts B4 to B6, B11)."""
    run = view.run
    paid = _longer_paid(view, run)
    if paid is not None:
        return paid
    if trend(run.eval_losses) != "falling" or trend(run.train_losses) not in ("falling", None) or _tried_longer(view, run):
        return None
    return _longer(view, run, f"run {run.label}: the losses were still falling when it ended", MEDIUM, gate("odds_falling"))


def _longer_paid(view: View, run: RunFacts) -> Result | None:
    """The longest of the runs that differ in their epochs is this one, and it gained on the one before by a standard error or more."""
    others = [other for other in lengths_of(view, run) if other.epochs and run.epochs and other.epochs < run.epochs]
    if not others or _tried_longer(view, run):
        return None
    before = others[-1]
    difference = view.compare(before, run)
    if difference is None or difference.delta < difference.error:
        return None
    gained = f"{run.epochs:g} epochs gained {show_gap(view, difference.delta)} over {before.epochs:g}"
    return _longer(
        view,
        run,
        f"run {run.label}: {gained}, and nobody has seen where that ends",
        HIGH if _sure(difference) else MEDIUM,
        gate("odds_falling"),
    )


def _sure(difference: Difference) -> bool:
    return difference.wins and difference.items_known


def few_passes(view: View) -> Result | None:
    """R7. A pass or two over data of ordinary size, and no curve that says it was enough."""
    run = view.run
    few = run.epochs is not None and run.epochs < threshold("epochs_enough")
    if not few or is_pretraining(view) or trend(run.eval_losses) is not None or view.objective != "sft" or _tried_longer(view, run):
        return None
    saw = "its data once" if run.epochs == 1 else f"its data {run.epochs:g} times"
    if run.epochs is not None and run.epochs < 1:
        saw = f"{format_share(run.epochs)} of its data"
    reason = f"run {run.label} saw {saw}; two to three passes are the cheapest gain left"
    return _longer(view, run, reason, LOW, gate("odds_passes"))


def _tried_longer(view: View, run: RunFacts) -> bool:
    """A longer run of the same set-up, at any rate, is among the facts."""
    return any(
        other.epochs and run.epochs and other.epochs > run.epochs and differ_only(run, other, "epochs", "learning_rate")
        for other in view.facts.runs
    )


def _longer(view: View, run: RunFacts, reason: str, sure: Confidence, odds: float) -> Result:
    epochs = 2 * run.epochs if run.epochs is not None else None
    if epochs is not None and not is_pretraining(view):
        epochs = max(1.0, epochs)
    found = move("epochs")
    until = f"for {passes(epochs)}" if epochs is not None else "twice as long"
    rate = f" at {show(run.learning_rate)}" if run.learning_rate is not None else ""
    return Result(
        gate="R7",
        binding=Binding.UNDERTRAINED,
        door=Door.STAY,
        confidence=sure,
        reason=reason,
        experiment=f"Train {until}{rate}, nothing else changed, with the evaluation loss logged at least ten times; stop where it turns.",
        run=next_run(run, epochs=epochs) if epochs is not None else None,
        keep="Go on from the better of the two; call it a gain",
        gain=found.gain,
        odds=odds,
        cost=found.price,
        evidence=("B4", "B5", "B6", "B7", "B11"),
        missing=() if run.eval_losses else ("the evaluation loss along the run",),
    )
