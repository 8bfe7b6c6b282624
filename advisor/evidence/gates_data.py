"""R7: batch, duration and data, from the curves and from controls on a part of the data."""

from __future__ import annotations

from advisor.evidence.capacity import is_pretraining
from advisor.evidence.losses import Overfit, overfit_by_loss, overfit_by_score, trend
from advisor.evidence.noise import Difference
from advisor.evidence.published import curve, gate, move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap
from advisor.evidence.view import View, same_but
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door

GOOD_BATCH = 32
"""Sequences per step up to which small data is at its best (facts B1, B2)."""


def data_overfitted(view: View) -> Result | None:
    """R7. The best came before the end: more of anything that fits the training set makes it worse."""
    run = view.run
    found = _overfit(view, run)
    if found is None:
        return None
    what, share, sure = found
    epochs = None if run.epochs is None else max(0.1, round(run.epochs * share, 2))
    stop = f"at {epochs:g} epochs" if epochs is not None else f"at {share:.0%} of the training"
    return Result(
        gate="R7",
        binding=Binding.DATA_OVERFIT,
        door=Door.STAY,
        confidence=sure,
        reason=f"run {run.label}: {what}",
        experiment=f"Stop {stop} (keep the best checkpoint), and put the saved time into more or cleaner data; a lower rank or rate also "
        "helps. More rank or full fine-tuning would overfit faster.",
        run=next_run(run, epochs=epochs) if epochs is not None else next_run(run),
        accept=accept(view, "Keep the shorter run"),
        gain=move("data").gain,
        cost=move("data").price,
        evidence=("B4", "B5", "B7", "B10"),
    )


def _overfit(view: View, run: RunFacts) -> tuple[str, float, Confidence] | None:
    """What was seen, the share of the training at which the best came, and how sure that is."""
    epochs = [(point.epoch, level) for point in run.scores_by_epoch if (level := view.level(point.score)) is not None]
    by_loss, by_score = overfit_by_loss(run), overfit_by_score(epochs, view.error(run))
    found: Overfit | None = by_loss or by_score
    if found is not None:
        lost = show_gap(view, found.lost) if found.by_score else f"{found.lost:.0%}"
        thing = "score" if found.by_score else "evaluation loss"
        return (
            f"the {thing} was best at {found.at_share:.0%} of the training and lost {lost} since",
            found.at_share,
            HIGH if found.lost > gate("overfit_sure") or found.by_score else MEDIUM,
        )
    return _longer_is_worse(view, run)


def _longer_is_worse(view: View, run: RunFacts) -> tuple[str, float, Confidence] | None:
    """Another run differs in its epochs alone, and the longer one scored less by more than a standard error (fact B7)."""
    for other in view.facts.runs:
        if other is run or not other.epochs or not run.epochs or other.epochs == run.epochs:
            continue
        if not same_but(run, other) or other.learning_rate != run.learning_rate or other.data_fraction != run.data_fraction:
            continue
        short, long = (run, other) if run.epochs < other.epochs else (other, run)
        difference = view.compare(short, long)
        if difference is not None and difference.delta < 0 and -difference.delta > view.error(short):
            share = (short.epochs or 1) / run.epochs
            return (
                f"{long.epochs:g} epochs scored {show_gap(view, -difference.delta)} less than {short.epochs:g}",
                min(1.0, share),
                HIGH if difference.loses else MEDIUM,
            )
    return None


def data_control(view: View) -> tuple[RunFacts, Difference] | None:
    """The run on a part of the data that differs in nothing else, and what the whole data gained over it."""
    controls = [
        other
        for other in view.facts.runs
        if other.data_fraction < view.run.data_fraction and same_but(other, view.run) and other.learning_rate == view.run.learning_rate
    ]
    compared = [(other, difference) for other in controls if (difference := view.compare(other, view.run)) is not None]
    return max(compared, key=lambda pair: pair[0].data_fraction, default=None) if compared else None


def data_binds(view: View) -> Result | None:
    """R7. Half of the data is measurably worse: more data beats any change of the method (fact B10)."""
    control = data_control(view)
    if control is None or not control[1].wins:
        return None
    other, difference = control
    return Result(
        gate="R7",
        binding=Binding.DATA,
        door=Door.STAY,
        confidence=HIGH,
        reason=f"{other.data_fraction:.0%} of the data scores {show_gap(view, difference.delta)} less, {difference.z:.1f} standard errors: "
        "the score still grows with the data",
        experiment="Collect more data of the same kind, four times as much if it can be had, and train the same set-up on it.",
        run=next_run(view.run),
        accept=accept(view, "Go on collecting"),
        gain=move("data").gain,
        cost=move("data").price,
        evidence=("B8", "B10"),
    )


def batch_is_large(view: View) -> Result | None:
    """R7. A large batch that may explain the gap, or so few steps that nothing can be judged (facts B1, B2, C12)."""
    run = view.run
    if not run.method.has_adapter:
        return None
    large = run.batch is not None and run.batch >= gate("batch_high")
    few = run.steps is not None and run.steps < (gate("steps_few_large_batch") if large else gate("steps_few"))
    above = run.batch is not None and run.batch > gate("batch_high")
    if not few and not (above and _batch_explains(view, run)):
        return None
    batch = FIRST_EFFECTIVE_BATCH if run.batch is None or run.batch > GOOD_BATCH else run.batch
    shown = f"{run.batch} sequences per step" if run.batch is not None else ""
    steps = f"{run.steps} optimizer steps" if few else ""
    found = move("batch")
    return Result(
        gate="R7",
        binding=Binding.BATCH if run.batch is not None and run.batch > GOOD_BATCH else Binding.UNDERTRAINED,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"run {run.label}: {' and '.join(filter(None, (shown, steps)))}: adapters fall behind at large batches and in few steps, "
        "at any rank",
        experiment=f"Train with {batch} to {GOOD_BATCH} sequences per step, so with more steps, and sweep the learning rate again; "
        "it falls with the batch.",
        run=next_run(run, batch=batch, learning_rates=_rates_for(run, batch)),
        accept=accept(view, "Keep the small batch"),
        gain=found.gain,
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


def _rates_for(run: RunFacts, batch: int) -> tuple[float, ...]:
    if run.learning_rate is None or run.batch is None:
        return ()
    high = min(run.batch, gate("lr_batch_high"))
    rate = run.learning_rate * float((max(batch, gate("lr_batch_low")) / high) ** gate("lr_batch_power"))
    return tuple(float(f"{rate * step:.1e}") for step in (1 / 3, 1, 3))


def still_learning(view: View) -> Result | None:
    """R7. Both losses were still falling at the end: longer, before anything else (facts B4 to B6, B11)."""
    run = view.run
    if trend(run.eval_losses) != "falling" or trend(run.train_losses) not in ("falling", None):
        return None
    return _longer(view, run, f"run {run.label}: the losses were still falling when it ended", MEDIUM)


def one_pass_only(view: View) -> Result | None:
    """R7. A single pass over data of ordinary size, and no curve that says it was enough."""
    run = view.run
    once = run.epochs is not None and run.epochs <= gate("one_pass")
    if not once or is_pretraining(view) or trend(run.eval_losses) is not None or view.objective != "sft" or _tried_longer(view, run):
        return None
    return _longer(view, run, f"run {run.label} saw its data {run.epochs:g} times; two to three passes are the cheapest gain left", LOW)


def _tried_longer(view: View, run: RunFacts) -> bool:
    return any(other.epochs and run.epochs and other.epochs > run.epochs and same_but(run, other) for other in view.facts.runs)


def _longer(view: View, run: RunFacts, reason: str, sure: Confidence) -> Result:
    epochs = 2 * run.epochs if run.epochs is not None else None
    found = move("epochs")
    until = f"for {epochs:g} epochs" if epochs is not None else "twice as long"
    rate = f" at {show(run.learning_rate)}" if run.learning_rate is not None else ""
    return Result(
        gate="R7",
        binding=Binding.UNDERTRAINED,
        door=Door.STAY,
        confidence=sure,
        reason=reason,
        experiment=f"Train {until}{rate}, nothing else changed, with the evaluation loss logged at least ten times; stop where it turns.",
        run=next_run(run, epochs=epochs) if epochs is not None else next_run(run),
        accept=accept(view, "Keep the longer run"),
        gain=found.gain,
        cost=found.price,
        evidence=("B4", "B5", "B6", "B7", "B11"),
        missing=() if run.eval_losses else ("the evaluation loss along the run",),
    )


def is_saturated(view: View) -> bool | None:
    """Whether more data was shown to bring nothing; None where nobody looked."""
    control = data_control(view)
    return None if control is None else control[1].is_noise
