"""What a gate hands back, and the parts that every gate builds its answer from."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.evidence.published import Move, gate
from advisor.evidence.statistics import share_error
from advisor.evidence.view import View
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Acceptance, Binding, Confidence, Door, Gain, NextRun

LOW, MEDIUM, HIGH = Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH


@dataclass(frozen=True, slots=True)
class Result:
    """A gate that is not closed: the constraint it names and the experiment that would close it."""

    gate: str
    binding: Binding
    door: Door
    confidence: Confidence
    reason: str
    experiment: str
    run: NextRun | None = None
    accept: Acceptance | None = None
    gain: Gain | None = None
    cost: str = ""
    """What the move was measured to cost; beside the estimator's price."""
    evidence: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    disagreement: str = ""
    is_door: bool = False
    """It opens a rung or ends the climb; the others are checks that must be closed first."""


def next_run(run: RunFacts, **changes: object) -> NextRun:
    """The run's set-up with `changes`, at its own learning rate unless they name others."""
    kept = {name: getattr(run, name) for name in NextRun.model_fields if name in RunFacts.model_fields}
    rates = () if run.learning_rate is None else (run.learning_rate,)
    return NextRun.model_validate({**kept, "data_fraction": 1.0, "learning_rates": rates, **changes})


def accept(view: View, what: str, seeds: int = 1) -> Acceptance:
    """The difference to the present run that counts, as a number where the items are known."""
    k = gate("compare_z")
    paired = bool(view.focus is not None and view.focus.correct)
    difference = None if view.focus is None else _difference(view, view.focus, seeds)
    by = f"at least {k:g} standard errors" + (f" ({points(view, difference)})" if difference is not None else "")
    how = ", compared item by item" if paired else ""
    over = "" if seeds == 1 else f", over {seeds} seeds each"
    return Acceptance(
        standard_errors=k, difference=difference, paired=paired, seeds=seeds, sentence=f"{what} only if it wins by {by}{how}{over}"
    )


def _difference(view: View, run: RunFacts, seeds: int) -> float | None:
    """`compare_z` standard errors of the difference to come, in the scores' unit."""
    score = view.score(run)
    n = view.noise.items(run)
    if score is None or (view.noise.error is None and n is None):
        return None
    k, floor = gate("compare_z"), view.noise.floor
    if view.noise.error is not None:
        items = 2 * view.noise.error**2
    elif run.correct:
        items = gate("discordant") / len(run.correct)
    else:
        assert n is not None
        items = 2 * share_error(abs(score), n) ** 2
    difference = k * float((items + 2 * floor**2 / seeds) ** 0.5)
    return difference * (100 if view.unit == "percent" else 1)


def points(view: View, amount: float) -> str:
    """A difference in the scores' unit as it reads best: points of a percentage, or the metric's own unit."""
    if view.unit == "raw":
        return f"{amount:.3g}"
    return f"{amount if view.unit == 'percent' else 100 * amount:.1f} points"


def show_score(view: View, level: float) -> str:
    """A score as it was given, from the level that the gates compare."""
    value = level if view.facts.evaluation.higher_is_better else -level
    return f"{value:.3g}" if view.unit == "raw" else f"{100 * value:.1f} %"


def show_gap(view: View, gap: float) -> str:
    return f"{gap:.3g}" if view.unit == "raw" else f"{100 * gap:.1f} points"


def gain_of(found: Move) -> Gain:
    return found.gain
