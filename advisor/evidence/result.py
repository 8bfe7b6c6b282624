"""What a gate hands back, and the parts that every gate builds its answer from."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.evidence.view import View
from advisor.units import format_share
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain, NextRun

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
    go_on_from: RunFacts | None = None
    """A run at hand that settles this gate: the experiment is the one that comes next from there."""
    keep: str = ""
    """What is kept if the experiment shows it: "Keep the new scale"."""
    no_worse: bool = False
    """It is kept unless it scores measurably less."""
    gain: Gain | None = None
    odds: float = 1.0
    """Chance that this is what keeps the score where it is, before the experiment."""
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


def show_score(view: View, level: float) -> str:
    """A score as it was given, from the level that the gates compare."""
    value = level if view.facts.evaluation.higher_is_better else -level
    return f"{value:.3g}" if view.unit == "raw" else format_share(value, 1)


def show_change(view: View, delta: float) -> str:
    """ "2.0 points better", "0.3 points worse", of a level's difference, in which more is better."""
    return f"{show_gap(view, abs(delta))} {'better' if delta >= 0 else 'worse'}"


def show_gap(view: View, gap: float) -> str:
    """A difference as it reads best: points of a percentage, or the metric's own unit."""
    return f"{gap:.3g}" if view.unit == "raw" else f"{100 * gap:.1f} points"
