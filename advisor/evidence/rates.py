"""What was tried of the learning rate at one set-up, and whether its best is known."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from advisor.evidence.losses import is_broken
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
    data_fraction: float = 1.0
    by_score: bool = True

    @property
    def known(self) -> tuple[float, ...]:
        return tuple(point.rate for point in self.points)

    @property
    def best(self) -> Point | None:
        ended = [point for point in self.points if point.value is not None]
        return max(ended, key=lambda point: point.value or 0.0, default=None)

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
    """The sweep of the run's set-up that tells most, on whichever share of the data it was run."""
    return max(sweeps_of(view, run), key=lambda sweep: (sweep.standing == "interior", len(sweep.points)), default=Rates(()))


def sweeps_of(view: View, run: RunFacts) -> tuple[Rates, ...]:
    """Learning rates of the run's set-up, apart for each share of the data."""
    groups: dict[float, list[tuple[float, float | None, float | None, float]]] = {}
    for other in (other for other in view.facts.runs if setup(other) == setup(run) and not other.oom):
        if other.learning_rate is not None:
            row = (other.learning_rate, view.score(other), _eval_loss(other), view.error(other))
            groups.setdefault(other.data_fraction, []).append(row)
        for point in other.lr_sweep:
            score = None if point.diverged else view.level(point.score)
            loss = None if point.diverged else point.eval_loss
            groups.setdefault(point.data_fraction or other.data_fraction, []).append((point.learning_rate, score, loss, view.error(other)))
    return tuple(_merged(rows, fraction) for fraction, rows in groups.items())


@dataclass(frozen=True, slots=True)
class Better:
    """A learning rate that beats the run's own beyond the noise, in which sweep, and by how much; None where the run's own broke."""

    rates: Rates
    best: Point
    by: float | None


def better_rate(view: View, run: RunFacts) -> Better | None:
    """The best rate on as much of the data or less, if it beats the run's; a run that broke is beaten by any that ended."""
    if run.learning_rate is None:
        return None
    found = []
    for sweep in sweeps_of(view, run):
        best, mine = sweep.best, _own_point(view, run, sweep)
        if best is None or best.value is None or best.rate == run.learning_rate or sweep.data_fraction > run.data_fraction:
            continue
        if mine is None or mine.value is None:
            broke = run.diverged or is_broken(run) or mine is not None
            found += [Better(sweep, best, None)] if broke else []
        elif best.value - mine.value >= gate("compare_z") * sqrt(best.error**2 + mine.error**2):
            found.append(Better(sweep, best, best.value - mine.value))
    return max(found, key=lambda better: better.rates.data_fraction, default=None)


def _own_point(view: View, run: RunFacts, sweep: Rates) -> Point | None:
    """The run's rate in the sweep; from the run itself where the sweep had less data, which can only favour the run."""
    mine = next((point for point in sweep.points if point.rate == run.learning_rate), None)
    if mine is not None or not sweep.by_score:
        return mine
    score = view.score(run)
    return None if score is None or run.learning_rate is None else Point(run.learning_rate, score, view.error(run))


def _eval_loss(run: RunFacts) -> float | None:
    finite = [point.loss for point in run.eval_losses if point.is_finite]
    return min(finite) if finite and not run.diverged else None


def _merged(rows: list[tuple[float, float | None, float | None, float]], fraction: float) -> Rates:
    """One point a rate. Scores where any were taken, else evaluation losses."""
    by_score = any(score is not None for _, score, _, _ in rows)
    points = []
    for rate in sorted({row[0] for row in rows}):
        same = [row for row in rows if row[0] == rate]
        values = [value for _, score, loss, _ in same if (value := score if by_score else None if loss is None else -loss) is not None]
        mean = sum(values) / len(values) if values else None
        error = same[0][3] if by_score else abs(mean or 0.0) * LOSS_TIE
        points.append(Point(rate, mean, error))
    return Rates(tuple(points), fraction, by_score)


def is_certified(view: View, run: RunFacts) -> bool:
    """The best learning rate of this set-up is known: swept, claimed, or carried over a rank step with rates of its own (fact LR5)."""
    if run.lr_tuned or rates_of(view, run).standing == "interior":
        return True
    return len(rates_of(view, run).known) > 1 and any(_swept_at_lower_rank(view, other, run) for other in view.facts.runs)


def _swept_at_lower_rank(view: View, other: RunFacts, run: RunFacts) -> bool:
    lower = other.rank is not None and run.rank is not None and other.rank < run.rank
    return lower and same_but(other, run, "rank", "alpha") and (other.lr_tuned or rates_of(view, other).standing == "interior")
