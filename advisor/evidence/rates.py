"""What was tried of the learning rate at one set-up, and whether its best is known."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from advisor.evidence.alike import same_but, setup
from advisor.evidence.losses import is_broken
from advisor.evidence.lr import rate_for, without
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.stacks.spelling import same_rate
from advisor.values import Method
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


Row = tuple[float, float | None, float | None, float]
"""Learning rate, score, evaluation loss, standard error of the score."""


def sweeps_of(view: View, run: RunFacts) -> tuple[Rates, ...]:
    """Learning rates of the run's set-up, apart for each share of the data and each number of epochs."""
    key = ("sweeps", setup(run))
    if key not in view.memo:
        view.memo[key] = _sweeps(view, view.by_setup.get(setup(run), ()))
    found = view.memo[key]
    assert isinstance(found, tuple)
    return found


def _sweeps(view: View, runs: tuple[RunFacts, ...]) -> tuple[Rates, ...]:
    groups: dict[tuple[float, float | None], list[Row]] = {}
    for other in (other for other in runs if not other.oom):
        if other.learning_rate is not None:
            score = None if broke(other) else view.score(other)
            row = (other.learning_rate, score, _eval_loss(other), view.error(other))
            groups.setdefault((other.data_fraction, other.epochs), []).append(row)
        for point in other.lr_sweep:
            score = None if point.diverged else view.level(point.score)
            loss = None if point.diverged else point.eval_loss
            fraction = point.data_fraction or other.data_fraction
            groups.setdefault((fraction, other.epochs), []).append((point.learning_rate, score, loss, view.error(other)))
    return tuple(_merged(rows, fraction) for (fraction, _), rows in groups.items())


@dataclass(frozen=True, slots=True)
class Better:
    """A learning rate that leads the run's own by a standard error or more, and in which sweep."""

    rates: Rates
    best: Point
    by: float | None
    """None where the run's own broke, or was not among the sweep's."""
    wins: bool
    """By as many standard errors as count."""


def better_rate(view: View, run: RunFacts) -> Better | None:
    """The best rate on as much of the data or less, if it leads the run's; a run that broke is beaten by any that ended.

    A lead of one standard error is taken: among rates that cost the same, the better score is the better guess.
    """
    if run.learning_rate is None:
        return None
    found = []
    for sweep in sweeps_of(view, run):
        best, mine = sweep.best, _own_point(view, run, sweep)
        if best is None or best.value is None or same_rate(best.rate, run.learning_rate) or sweep.data_fraction > run.data_fraction:
            continue
        if mine is None or mine.value is None:
            found += [Better(sweep, best, None, wins=True)] if broke(run) or mine is not None else []
            found += [Better(sweep, best, None, wins=False)] if mine is None and not broke(run) and _far_inside(sweep, best, run) else []
            continue
        lead, error = best.value - mine.value, sqrt(best.error**2 + mine.error**2)
        if lead > 0 and lead >= error:
            found.append(Better(sweep, best, lead, wins=lead >= gate("compare_z") * error))
    return max(found, key=lambda better: better.rates.data_fraction, default=None)


def broke(run: RunFacts) -> bool:
    """It was said to have diverged, or a loss is not a number."""
    return run.diverged or is_broken(run)


def _far_inside(sweep: Rates, best: Point, run: RunFacts) -> bool:
    """The sweep has its best inside, a step or more from the run's rate, which was not among its own: on another share of the data the two
    scores cannot be compared, and the sweep is believed."""
    off = best.rate / (run.learning_rate or best.rate)
    return sweep.standing == "interior" and max(off, 1 / off) >= threshold("lr_sweep_factor") * (1 - ROUNDED)


def _own_point(view: View, run: RunFacts, sweep: Rates) -> Point | None:
    """The run's rate in the sweep; from the run itself where the sweep had as much data."""
    mine = next((point for point in sweep.points if same_rate(point.rate, run.learning_rate)), None)
    if mine is not None or not sweep.by_score or sweep.data_fraction < run.data_fraction or broke(run):
        return mine
    score = view.score(run)
    return None if score is None or run.learning_rate is None else Point(run.learning_rate, score, view.error(run))


def _eval_loss(run: RunFacts) -> float | None:
    finite = [point.loss for point in run.eval_losses if point.is_finite]
    return min(finite) if finite and not run.diverged else None


def _merged(rows: list[Row], fraction: float) -> Rates:
    """One point a rate. Scores where any were taken, else evaluation losses."""
    by_score = any(score is not None for _, score, _, _ in rows)
    points = []
    for same in _of_one_rate(rows):
        values = [value for _, score, loss, _ in same if (value := score if by_score else None if loss is None else -loss) is not None]
        mean = sum(values) / len(values) if values else None
        error = same[0][3] if by_score else abs(mean or 0.0) * LOSS_TIE
        points.append(Point(same[0][0], mean, error))
    return Rates(tuple(points), fraction, by_score)


def _of_one_rate(rows: list[Row]) -> list[list[Row]]:
    """Rows of each learning rate, lowest first."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row[0]):
        if groups and same_rate(groups[-1][0][0], row[0]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def is_certified(view: View, run: RunFacts) -> bool:
    """The best learning rate of this set-up is known: swept, claimed, or what the sweep of a kindred set-up comes to."""
    return is_swept(view, run) or any(_carried(other, rate, run) for other, rate in _certificates(view))


def _certificates(view: View) -> list[tuple[RunFacts, float]]:
    """One run of each set-up that was swept, and its best rate."""
    if "certificates" not in view.memo:
        found = []
        for runs in view.by_setup.values():
            best = rates_of(view, runs[0]).best if rates_of(view, runs[0]).standing == "interior" else None
            claimed = next((run.learning_rate for run in runs if run.lr_tuned), None)
            rate = best.rate if best is not None else claimed
            found += [(runs[0], rate)] if rate is not None else []
        view.memo["certificates"] = found
    known = view.memo["certificates"]
    assert isinstance(known, list)
    return known


def is_swept(view: View, run: RunFacts) -> bool:
    """The rate was swept for exactly this set-up."""
    return any(each.lr_tuned for each in view.repeats(run)) or rates_of(view, run).standing == "interior"


CARRIES = ("rank", "alpha", "targets", "batch", "quantization", "method", "use_rslora")
"""What the best learning rate is carried over: rank, scale and batch by their laws (facts LR4, LR5, LR14), targets and a 4-bit base as
they are (facts T1, LR16), and DoRA as LoRA (fact LR20)."""


def _carried(other: RunFacts, rate: float, run: RunFacts) -> bool:
    """The run's rate lies within half a step of the sweep of what a kindred set-up's best comes to here."""
    adapters = other.method is not Method.FULL and run.method is not Method.FULL
    if run.learning_rate is None or not adapters or not same_but(other, run, *CARRIES):
        return False
    off = run.learning_rate / rate_for(rate, other, run)
    return bool(max(off, 1 / off) <= threshold("lr_sweep_factor") ** 0.5 * (1 + ROUNDED))


ROUNDED = 0.05
"""Rates are given in two digits."""
