"""What was run already, so that no experiment is asked for twice."""

from __future__ import annotations

from advisor.evidence.identity import SAME_LENGTH
from advisor.evidence.view import View
from advisor.stacks.spelling import same_rate
from advisor.values.evidence import RunFacts
from advisor.values.next_step import NextRun

TOLD = ("rank", "alpha", "targets", "batch", "quantization", "use_rslora", "init")
"""Fields of a set-up that a recorded run may leave untold; one that is told must be the same."""


def is_done(view: View, planned: NextRun) -> bool:
    """Return whether every run of the experiment is among the facts, as often as it asks for."""
    return all(times_done(view, planned, rate) >= planned.seeds for rate in planned.learning_rates or (None,))


def times_done(view: View, planned: NextRun, rate: float | None) -> int:
    """Count the runs that are that one."""
    return sum(_counts(run, planned, rate) for run in view.facts.runs)


def _counts(run: RunFacts, planned: NextRun, rate: float | None) -> int:
    if run.method is not planned.method or not all(_agree(getattr(run, name), getattr(planned, name)) for name in TOLD):
        return 0
    if planned.precision is not None and planned.precision is not run.precision:
        return 0
    if planned.epochs is not None and (run.epochs is None or abs(run.epochs / planned.epochs - 1) > SAME_LENGTH):
        return 0
    return int(same_rate(run.learning_rate, rate) and run.data_fraction == planned.data_fraction)


def _agree(told: object, planned: object) -> bool:
    return told is None or planned is None or told == planned


def untried(view: View, planned: NextRun) -> NextRun | None:
    """Return the experiment without the learning rates that were run; None where all were."""
    left = tuple(rate for rate in planned.learning_rates if times_done(view, planned, rate) < planned.seeds)
    if not planned.learning_rates:
        return None if is_done(view, planned) else planned
    return planned.model_copy(update={"learning_rates": left}) if left else None
