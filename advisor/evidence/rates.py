"""What was tried of the learning rate at one set-up, and whether its best is known."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from advisor.evidence.lr import without
from advisor.evidence.published import gate
from advisor.evidence.view import View, same_but, setup
from advisor.ladder.knowledge import threshold
from advisor.values.evidence import RunFacts

Standing = Literal["none", "open", "low edge", "high edge", "interior"]
LOSS_TIE = 0.005
"""Share of an evaluation loss within which two learning rates tie, where no score was taken. Judgement."""


@dataclass(frozen=True, slots=True)
class Point:
    """One learning rate: a value of which higher is better, or a run that broke."""

    rate: float
    value: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of one set-up on one share of the data, lowest first."""

    points: tuple[Point, ...]
    by_score: bool = True

    @property
    def known(self) -> tuple[float, ...]:
        return tuple(point.rate for point in self.points)

    @property
    def best(self) -> Point | None:
        ended = [point for point in self.points if point.value is not None]
        return max(ended, key=lambda point: point.value or 0.0, default=None) if ended else None

    @property
    def standing(self) -> Standing:
        """Whether the best lies inside: a tie with an inner point counts as inside, a run that broke as worse."""
        best = self.best
        if best is None or len(self.points) < 2:
            return "none"
        inner = self.points[1:-1]
        if best not in inner and any(_tie(best, point) for point in inner):
            best = next(point for point in inner if _tie(self.best, point))
        wide = len(self.points) >= gate("lr_sweep_points") and self.known[-1] / self.known[0] >= gate("lr_sweep_span")
        if best in inner:
            return "interior" if wide else "open"
        if not wide:
            return "open"
        return "low edge" if best is self.points[0] else "high edge"

    def next_rates(self) -> tuple[float, ...]:
        """One step outward where the best is at an edge; else what is still missing of three points around the best."""
        best = self.best
        if best is None:
            return ()
        step = threshold("lr_sweep_factor")
        if self.standing == "high edge":
            return (best.rate * step,)
        if self.standing == "low edge":
            return (best.rate / step,)
        return without((best.rate / step, best.rate, best.rate * step), self.known)


def _tie(best: Point | None, other: Point) -> bool:
    if best is None or best.value is None or other.value is None:
        return False
    return best.value - other.value <= sqrt(best.error**2 + other.error**2)


def rates_of(view: View, run: RunFacts) -> Rates:
    """The sweep of the run's set-up with the most points, on whichever share of the data it was run."""
    groups: dict[float, list[tuple[float, float | None, float | None, float]]] = {}
    for other in (other for other in view.facts.runs if setup(other) == setup(run) and not other.oom):
        if other.learning_rate is not None:
            row = (other.learning_rate, view.score(other), _eval_loss(other), view.error(other))
            groups.setdefault(other.data_fraction, []).append(row)
        for point in other.lr_sweep:
            score = None if point.diverged else view.level(point.score)
            loss = None if point.diverged else point.eval_loss
            groups.setdefault(point.data_fraction or other.data_fraction, []).append((point.learning_rate, score, loss, view.error(other)))
    sweeps = [_merged(rows) for rows in groups.values()]
    return max(sweeps, key=lambda sweep: (sweep.standing == "interior", len(sweep.points)), default=Rates(()))


def _eval_loss(run: RunFacts) -> float | None:
    finite = [point.loss for point in run.eval_losses if point.is_finite]
    return min(finite) if finite and not run.diverged else None


def _merged(rows: list[tuple[float, float | None, float | None, float]]) -> Rates:
    """One point a rate. Scores where any were taken, else evaluation losses."""
    by_score = any(score is not None for _, score, _, _ in rows)
    points = []
    for rate in sorted({row[0] for row in rows}):
        same = [row for row in rows if row[0] == rate]
        values = [value for _, score, loss, _ in same if (value := score if by_score else None if loss is None else -loss) is not None]
        mean = sum(values) / len(values) if values else None
        error = same[0][3] if by_score else abs(mean or 0.0) * LOSS_TIE
        points.append(Point(rate, mean, error))
    return Rates(tuple(points), by_score)


def is_certified(view: View, run: RunFacts) -> bool:
    """The best learning rate of this set-up is known: swept, claimed, or carried over a rank step with rates of its own (fact LR5)."""
    if run.lr_tuned or rates_of(view, run).standing == "interior":
        return True
    return len(rates_of(view, run).known) > 1 and any(_swept_at_lower_rank(view, other, run) for other in view.facts.runs)


def _swept_at_lower_rank(view: View, other: RunFacts, run: RunFacts) -> bool:
    lower = other.rank is not None and run.rank is not None and other.rank < run.rank
    return lower and same_but(other, run, "rank", "alpha") and (other.lr_tuned or rates_of(view, other).standing == "interior")
