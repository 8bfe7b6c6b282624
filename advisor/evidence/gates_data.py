"""R7: batch and duration, from the curves and from runs of other lengths."""

from __future__ import annotations

from advisor.evidence.alike import differ_only
from advisor.evidence.capacity import is_pretraining
from advisor.evidence.losses import Overfit, overfit_by_loss, overfit_by_score, trend
from advisor.evidence.lr import around, offset, prior, rate_for, rounded, three_points
from advisor.evidence.noise import Difference
from advisor.evidence.published import curve, move
from advisor.evidence.rates import is_certified
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH
from advisor.units import format_share
from advisor.values import Range
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain

GOOD_BATCH = 32
"""Sequences per step up to which small data is at its best (facts B1, B2)."""


def data_overfitted(view: View) -> Result | None:
    """R7. The best came before the end: more of anything that fits the training set makes it worse."""
    run = view.run
    found = _overfit(view, run)
    if found is None:
        return None
    what, share, sure, lost = found
    epochs = _epochs_at(run, share)
    shorter = epochs is None or epochs != run.epochs
    instead = f" instead of {run.epochs:g}" if run.epochs else ""
    stop = f"Train for {passes(epochs)}{instead}" if epochs else f"Stop at {format_share(share)} of the training"
    rates, lower = _lower_too(view, run)
    if not shorter and run.learning_rate is not None:
        rates = (rounded(run.learning_rate / threshold("lr_sweep_factor")),)
        stop = f"Stay at {passes(run.epochs or 1)} and lower the learning rate to {show(rates[0])}"
    gain = None
    if lost is not None and view.noise.shares:
        gain = Gain(points=Range(low=0.0, high=100 * lost, source="measured here"), conditions="what was lost since the best, at most")
    return Result(
        gate="R7",
        binding=Binding.DATA_OVERFIT,
        door=Door.STAY,
        confidence=sure,
        reason=f"run {run.label}: {what}",
        experiment=f"{stop}, with the evaluation logged ten times on the way and the best checkpoint kept{lower}. The saved time goes into "
        "more or cleaner data; more rank or full fine-tuning would overfit faster.",
        run=None if epochs is None and not rates else next_run(run, epochs=epochs, learning_rates=rates or _own(run)),
        keep="Keep the shorter run" if shorter else "Keep the lower rate",
        no_worse=True,
        gain=gain,
        cost="less than the present run",
        evidence=("B4", "B5", "B7", "B10"),
    )


def passes(epochs: float) -> str:
    """Return "1 epoch", "3 epochs"."""
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


def _own(run: RunFacts) -> tuple[float, ...]:
    return () if run.learning_rate is None else (run.learning_rate,)


def _epochs_at(run: RunFacts, share: float) -> float | None:
    """Passes at which the best came; where the first evaluation was the best, as few as were measured to be enough."""
    length = run.epochs or max((point.epoch for point in run.scores_by_epoch), default=None)
    if length is None:
        return None
    first = share * length < 1 / 4 and length > threshold("epochs_enough")
    return threshold("epochs_enough") if first else max(0.1, round(length * share, 2))


def _lower_too(view: View, run: RunFacts) -> tuple[tuple[float, ...], str]:
    """Rates beside the shorter training, where the present one is far too high as well."""
    known, rate = prior(view, run), run.learning_rate
    if known is None or rate is None or is_certified(view, run):
        return (), ""
    off = offset(rate, known)
    if off.side == "low" or off.factor < gate("lr_doubt"):
        return (), ""
    rates = tuple(each for each in around(known.rate, rate) if each < rate)
    return rates, f"; at the same time lower the learning rate, {off.words} the prior, to {', '.join(map(show, rates))}"


Found = tuple[str, float, Confidence, float | None]
"""What was seen, the share of the training at which the best came, how sure that is, and the score that was lost since."""


def _overfit(view: View, run: RunFacts) -> Found | None:
    epochs = [(point.epoch, level) for point in run.scores_by_epoch if (level := view.level(point.score)) is not None]
    by_loss, by_score = overfit_by_loss(run), overfit_by_score(epochs, _error_of_two(view, run))
    found: Overfit | None = by_loss or by_score
    if found is None:
        return _longer_is_worse(view, run)
    lost = f"has fallen by {show_gap(view, found.lost)}" if found.by_score else f"has risen by {format_share(found.lost)}"
    thing = "score" if found.by_score else "evaluation loss"
    sure = found.lost > gate("overfit_sure") if not found.by_score else view.items_known
    return (
        f"the {thing} was best at {format_share(found.at_share)} of the training and {lost} since",
        found.at_share,
        HIGH if sure else MEDIUM,
        found.lost if found.by_score else None,
    )


def _error_of_two(view: View, run: RunFacts) -> float:
    """Standard error of the difference of two scores of one run: its items twice, and no spread of re-runs."""
    score = view.score(run)
    return 2**0.5 * (view.noise.of_items(run, 0.5 if score is None else score) or view.noise.floor)


def lengths_of(view: View, run: RunFacts) -> list[RunFacts]:
    """The runs that differ from this one in their epochs at most, shortest first, with a score."""
    alike = [other for other in view.facts.runs if other.epochs and differ_only(run, other, "epochs") and view.score(other) is not None]
    return sorted(alike, key=lambda other: other.epochs or 0.0)


def _longer_is_worse(view: View, run: RunFacts) -> Found | None:
    """A run that differs in nothing but more epochs scored less, by more than a standard error of the difference (fact B7)."""
    for other in lengths_of(view, run):
        if not run.epochs or not other.epochs or other.epochs == run.epochs:
            continue
        short, long = (run, other) if run.epochs < other.epochs else (other, run)
        difference = view.compare(short, long)
        if difference is None or -difference.delta <= difference.error or (short is run and is_certified(view, run)):
            continue
        what = f"{passes(long.epochs or 0)} scored {show_gap(view, -difference.delta)} less than {short.epochs:g}"
        sure = HIGH if difference.loses and difference.items_known else MEDIUM
        return what, min(1.0, (short.epochs or 1) / run.epochs), sure, None
    return None


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
    times = "once" if run.epochs == 1 else f"{run.epochs:g} times"
    reason = f"run {run.label} saw its data {times}; two to three passes are the cheapest gain left"
    return _longer(view, run, reason, LOW, gate("odds_passes"))


def many_passes(view: View) -> Result | None:
    """R7. More passes than ever were best, and neither a curve nor a shorter run that says they helped (facts B4, B5)."""
    run, most = view.run, gate("epochs_most")
    shorter = any(other.epochs and run.epochs and other.epochs < run.epochs for other in lengths_of(view, run))
    if run.epochs is None or run.epochs <= most or run.eval_losses or run.scores_by_epoch or shorter or view.objective != "sft":
        return None
    epochs = most / 2
    found = move("fewer_epochs")
    return Result(
        gate="R7",
        binding=Binding.DATA_OVERFIT,
        door=Door.STAY,
        confidence=LOW,
        reason=f"run {run.label} passed over its data {run.epochs:g} times, and 4 to {most:g} passes were best where it was measured",
        experiment=f"Train for {epochs:g} epochs, nothing else changed, with the evaluation logged ten times on the way and the best "
        "checkpoint kept.",
        run=next_run(run, epochs=epochs),
        keep="Keep the shorter run",
        no_worse=True,
        gain=found.gain,
        odds=gate("odds_many_passes"),
        cost=found.price,
        evidence=("B4", "B5", "B7"),
        missing=("the evaluation loss along the run",),
    )


def _tried_longer(view: View, run: RunFacts) -> bool:
    """A longer run of the same set-up, at any rate, is among the facts."""
    return any(
        other.epochs and run.epochs and other.epochs > run.epochs and differ_only(run, other, "epochs", "learning_rate")
        for other in view.facts.runs
    )


def _longer(view: View, run: RunFacts, reason: str, sure: Confidence, odds: float) -> Result:
    epochs = 2 * run.epochs if run.epochs is not None else None
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
