"""What loss curves show: that nothing was learned, that it broke, that it was still falling, that it had begun to overfit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from advisor.ladder.knowledge import gate
from advisor.values.evidence import LossPoint, RunFacts, all_finite

Trend = Literal["falling", "flat", "rising"]
FEWEST_POINTS = 3
"""Points that a trend needs."""
FEWEST_FOR_SPIKE = 8
"""Points that a deviation needs to be one. Judgement."""


@dataclass(frozen=True, slots=True)
class Overfit:
    """The lowest evaluation loss, or the best score, came before the end."""

    at_share: float
    """Of the training."""
    lost: float
    """What was lost since: share of the loss, or points of the score."""
    by_score: bool


def is_broken(run: RunFacts) -> bool:
    """NaN or infinite losses."""
    return not all_finite(run.train_losses, run.eval_losses)


def has_spiked(run: RunFacts) -> bool:
    """A jump far beyond the loss's own steps, from which it did not come back."""
    losses = [point.loss for point in run.train_losses if point.is_finite]
    if len(losses) < FEWEST_FOR_SPIKE:
        return False
    steps = [b - a for a, b in pairwise(losses)]
    deviation = median(abs(step - median(steps)) for step in steps)
    for index, step in enumerate(steps):
        before = losses[index]
        if step > gate("spike_mads") * deviation and step > gate("spike_rise") * before and min(losses[index + 1 :]) > before:
            return True
    return False


def tail_mean(losses: Sequence[float]) -> float:
    """Mean of the last tenth of a curve, at least of its last point."""
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def trend(points: tuple[LossPoint, ...]) -> Trend | None:
    """Over the last fifth: falling beyond the scatter and by a share worth naming, or rising, else flat. None with too few points."""
    finite = [point for point in points if point.is_finite]
    if len(finite) < FEWEST_POINTS:
        return None
    end, start = finite[-1].step, finite[0].step
    since = end - gate("falling_tail") * (end - start)
    tail = [point for point in finite if point.step >= since]
    if len(tail) < FEWEST_POINTS:
        tail = finite[-FEWEST_POINTS:]
    slope, error = _slope(tail)
    change = slope * (tail[-1].step - tail[0].step)
    if abs(slope) <= error or abs(change) < gate("flat_tail") * abs(tail[-1].loss):
        return "flat"
    return "falling" if slope < 0 else "rising"


def _slope(tail: list[LossPoint]) -> tuple[float, float]:
    from advisor.statistics import slope_error

    return slope_error(tuple(point.step for point in tail), tuple(point.loss for point in tail))


def overfit_by_loss(run: RunFacts) -> Overfit | None:
    """The evaluation loss had its minimum early and rose since, while training did not get worse."""
    points = [point for point in run.eval_losses if point.is_finite]
    if len(points) < FEWEST_POINTS:
        return None
    lowest, last_point = min(points, key=lambda point: point.loss), points[-1]
    if _train_loss_rose(run, lowest.step):
        return None
    start = min(points[0].step, 0.0)
    share = (lowest.step - start) / ((last_point.step - start) or 1)
    rise = (last_point.loss - lowest.loss) / abs(lowest.loss or 1)
    if share >= gate("overfit_before") or rise <= gate("overfit_rise"):
        return None
    return Overfit(share, rise, by_score=False)


def _train_loss_rose(run: RunFacts, since: float) -> bool:
    """The training loss ended higher than it was: then the run went wrong as a whole, which is no overfitting."""
    finite = [point for point in run.train_losses if point.is_finite]
    before = [point.loss for point in finite if point.step <= since] or [point.loss for point in finite[:1]]
    return bool(finite) and finite[-1].loss > before[-1]


def barely_fell(run: RunFacts) -> bool:
    """The training loss ended above half its first: whatever is wrong, the data are not memorised."""
    losses = [point.loss for point in run.train_losses if point.is_finite]
    return len(losses) >= FEWEST_POINTS and tail_mean(losses) > gate("loss_learned") * losses[0]


def knows_by_heart(run: RunFacts) -> bool:
    """In more than one pass the training loss fell to almost nothing of what it was (mymusise/ChatGLM-Tuning issue 89)."""
    losses = [point.loss for point in run.train_losses if point.is_finite]
    repeated = run.epochs is not None and run.epochs > 1 and len(losses) >= FEWEST_POINTS
    return repeated and 0 < tail_mean(losses) <= gate("loss_by_heart") * losses[0]


def falls_in_stairs(run: RunFacts) -> bool:
    """The training loss falls where a pass over the data begins, and by less within a pass than there: examples are recognised."""
    points = [point for point in run.train_losses if point.is_finite]
    passes = round(run.epochs or 0)
    if passes < 2 or len(points) < passes * FEWEST_POINTS or points[-1].step <= points[0].step:
        return False
    length = points[-1].step / (run.epochs or 1)
    by_pass = [[point.loss for point in points if number * length < point.step <= (number + 1) * length] for number in range(passes)]
    if min(map(len, by_pass)) < FEWEST_POINTS:
        return False
    falls = [before[-1] - after[0] for before, after in pairwise(by_pass)]
    within = [abs(losses[0] - losses[-1]) for losses in by_pass[1:]]
    plain = all(fall > gate("stairs_fall") * before[-1] for fall, before in zip(falls, by_pass, strict=False))
    return plain and min(falls) > 2 * max(within)


def overfit_by_score(epochs: list[tuple[float, float]], error: float) -> Overfit | None:
    """The score had its peak early and fell since by more than its standard error. Pairs of epoch and score, higher being better."""
    if len(epochs) < 2:
        return None
    ordered = sorted(epochs)
    peak, best = max(ordered, key=lambda pair: pair[1])
    final, score = ordered[-1]
    if peak / final >= gate("overfit_before") or best - score <= error:
        return None
    return Overfit(peak / final, best - score, by_score=True)


def last(points: tuple[LossPoint, ...]) -> float | None:
    return next((point.loss for point in reversed(points) if point.is_finite), None)


def is_flat_and_close(run: RunFacts) -> bool:
    """Training and evaluation loss have stopped, close to one another: the model does not learn what is left."""
    train, held_out = last(run.train_losses), last(run.eval_losses)
    if train is None or held_out is None or trend(run.train_losses) != "flat" or trend(run.eval_losses) != "flat":
        return False
    return held_out <= train * (1 + gate("train_eval_close"))
