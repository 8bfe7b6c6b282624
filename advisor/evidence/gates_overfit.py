"""R7: more passes than the data bear, by the curves, the scores along the run, shorter runs, or the number of passes alone."""

from __future__ import annotations

from advisor.evidence.alike import differ_only
from advisor.evidence.losses import Overfit, barely_fell, knows_by_heart, overfit_by_loss, overfit_by_score
from advisor.evidence.lr import around, offset, prior, rounded
from advisor.evidence.published import move
from advisor.evidence.rates import is_certified
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.units import format_share
from advisor.values import Range, Task
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain


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
    found: Overfit | None = by_score if by_loss is not None and score_gained(view, run) else by_loss or by_score
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


def score_gained(view: View, run: RunFacts) -> bool:
    """The score was higher at the end than where the evaluation loss was lowest, by a standard error of the two: the loss of answers told
    in other words rises while they get better (microsoft/LMOps issue 48), and the score is what counts."""
    found = overfit_by_loss(run)
    levels = sorted((point.epoch, view.level(point.score) or 0.0) for point in run.scores_by_epoch)
    if found is None or len(levels) < 2:
        return False
    length, end = levels[-1]
    _, there = min(levels, key=lambda pair: abs(pair[0] - found.at_share * length))
    return end - there > _error_of_two(view, run)


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


def many_passes(view: View) -> Result | None:
    """R7. More passes than ever were best, and neither a curve nor a shorter run that says they helped (facts B4, B5)."""
    return None if far_too_many_passes(view) is not None else _fewer_passes(view, gate("epochs_most"))


def far_too_many_passes(view: View) -> Result | None:
    """R7. Several times as many passes over running text, or a training loss that shows it known by heart: no rate is too low for that
    (hiyouga/LlamaFactory issue 1450). A format or a label takes many passes (the LoRA paper's GLUE runs: 25 to 80)."""
    if view.facts.task is Task.EXTRACTION or barely_fell(view.run):
        return None
    by_heart = view.current_score is None and knows_by_heart(view.run)
    return _fewer_passes(view, 1.0 if by_heart else gate("epochs_far"), by_heart)


def _fewer_passes(view: View, above: float, by_heart: bool = False) -> Result | None:
    run, most = view.run, gate("epochs_most")
    shorter = any(other.epochs and run.epochs and other.epochs < run.epochs for other in lengths_of(view, run))
    if run.epochs is None or run.epochs <= above or run.eval_losses or run.scores_by_epoch or shorter or view.objective != "sft":
        return None
    epochs = most / 2 if run.epochs > most else max(1.0, run.epochs // 2)
    found = move("fewer_epochs")
    times = f"run {run.label} passed over its data {run.epochs:g} times"
    best = f"{times}, and 4 to {most:g} passes were best where it was measured"
    known = f"{times} until the training loss was a tenth of its first and less: it knows them by heart, and nothing held out was scored"
    return Result(
        gate="R7",
        binding=Binding.DATA_OVERFIT,
        door=Door.STAY,
        confidence=LOW,
        reason=known if by_heart else best,
        experiment=f"Train for {passes(epochs)}, nothing else changed, with the evaluation logged ten times on the way and the best "
        "checkpoint kept.",
        run=next_run(run, epochs=epochs),
        keep="Keep the shorter run",
        no_worse=True,
        gain=found.gain,
        odds=gate("odds_many_passes"),
        cost=found.price,
        evidence=("B4", "B5", "B7", "E8"),
        missing=("the evaluation loss along the run",),
    )
