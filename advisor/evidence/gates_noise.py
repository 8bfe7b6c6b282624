"""R2 and R14: is there a gap at all, and is forgetting the complaint."""

from __future__ import annotations

from math import sqrt

from advisor.evidence.losses import is_broken
from advisor.evidence.noise import Difference
from advisor.evidence.published import gate
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap, show_score
from advisor.evidence.statistics import gap_items, items_needed_paired, share_error
from advisor.evidence.view import View, setup
from advisor.ladder.learning_rate import show
from advisor.values import Method
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

FEWER_RATES = (1 / 3, 1 / 10)
"""Learning rates to walk down to, as shares of the run's: a step of the sweep and two (fact F7: a high rate forgets most)."""


def forgetting_complaint(view: View) -> Result | None:
    """R14. What the model knew before has gone: walk down, learning rate first (facts F7, F8)."""
    run = view.run
    if run.oom or run.diverged or is_broken(run):
        return None
    lost = _forgetting(view, run)
    explicit = view.facts.complaint == "forgetting"
    if not explicit and (lost is None or (view.gap is not None and view.gap > 0)):
        return None
    return Result(
        gate="R14",
        binding=Binding.FORGETTING,
        door=Door.STAY,
        confidence=HIGH if lost is not None and explicit else MEDIUM if lost is not None else LOW,
        reason=lost or "forgetting is the complaint; how much was lost has not been measured",
        experiment=_walk_down(run),
        run=_gentler(run),
        accept=accept(view, "Keep the gentler run unless its score falls"),
        evidence=("F6", "F7", "F8", "S4"),
        missing=() if lost else ("the general benchmark before and after training, and its number of items",),
        disagreement="The ladder has no rung for this: every step up it forgets more or the same, DoRA included (F8), so the way is down.",
    )


def _walk_down(run: RunFacts) -> str:
    steps = []
    if run.learning_rate is not None:
        steps.append(f"the learning rate to {' and '.join(show(run.learning_rate * share) for share in FEWER_RATES)}")
    if run.use_rslora:
        steps.append("the scale (rank-stabilised scaling off)")
    elif run.rank is not None:
        steps.append("then the rank")
    if run.epochs is not None and run.epochs > 1:
        steps.append("then the epochs")
    return f"Lower {', '.join(steps) or 'the learning rate'}, one at a time; then mix in general data. DoRA is no cure."


def _gentler(run: RunFacts) -> NextRun:
    rates = () if run.learning_rate is None else tuple(run.learning_rate * share for share in FEWER_RATES)
    return next_run(run, learning_rates=rates)


def _forgetting(view: View, run: RunFacts) -> str | None:
    """The loss on the general benchmark in words, where it is beyond the noise."""
    before, after, n = view.level(view.facts.retention_base), view.level(run.retention), view.facts.retention_n
    if before is not None and after is not None:
        error = sqrt(2) * share_error(abs(before), n) if n is not None and view.unit != "raw" else view.noise.floor
        if before - after > gate("retention_z") * max(error, view.noise.floor):
            return f"the general benchmark fell by {show_gap(view, before - after)}, {(before - after) / error:.1f} standard errors"
    if run.forgetting is not None and run.forgetting >= gate("forgetting_high"):
        others = [other.forgetting for other in view.facts.runs if other is not run and other.forgetting is not None]
        beside = f", {min(others):.1%} for the gentlest other run" if others else ""
        return f"the general benchmark lost {run.forgetting:.1%}{beside}"
    return None


def no_gap(view: View) -> Result | None:
    """R2. The target is reached, or the gap to it cannot be told from noise; without a target, whether the runs differ at all."""
    if view.current_score is None:
        return None
    if view.gap is None:
        return _runs_alike(view)
    rival = _rival(view)
    error = rival.error if rival is not None else view.error(view.run)
    z = gate("compare_z") if rival is not None else gate("noise_z")
    if rival is not None and view.gap <= 0 and rival.is_noise:
        return _runs_alike(view)
    if view.gap <= 0:
        return _reached(view, z * error)
    if view.gap > z * error:
        return None
    return _too_small(view, z * error)


def _rival(view: View) -> Difference | None:
    """The difference to the run that the target was taken from: two measured scores make more noise than one."""
    for other in view.facts.runs:
        if other is not view.run and setup(other) != setup(view.run) and view.score(other) == view.target:
            return view.compare(view.run, other)
    return None


def _reached(view: View, margin: float) -> Result:
    assert view.gap is not None
    assert view.current_score is not None
    assert view.target is not None
    sure = -view.gap >= margin
    score, target = show_score(view, view.current_score), show_score(view, view.target)
    return Result(
        gate="R2",
        binding=Binding.NONE,
        door=Door.STOP,
        confidence=HIGH if sure else MEDIUM,
        reason=f"the target is reached: {score} against {target}"
        + ("" if sure else f", though by less than the {show_gap(view, margin)} that the evaluation wavers by"),
        experiment="Stop here: no climb. Score the finished adapter once on items that no decision was made on."
        if sure
        else "Stop here: no climb. Score the same adapter on more items, or on new ones, to be sure of the target.",
        evidence=("N1", "N2", "Q11") if view.facts.task is not None else ("N1", "N2"),
        missing=_noise_missing(view),
        is_door=True,
    )


def _too_small(view: View, margin: float) -> Result:
    assert view.gap is not None
    score = view.current_score or 0.0
    more = ""
    if view.noise.shares:
        needed = gap_items(view.gap, abs(score), gate("noise_z"), gate("power_z"))
        more = f" about {needed:,} items would show a gap of this size;"
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=HIGH if view.noise.items(view.run) is not None or view.noise.error is not None else MEDIUM,
        reason=f"the gap of {show_gap(view, view.gap)} lies within the noise of the evaluation ({show_gap(view, margin)})",
        experiment=f"Measure better before changing anything:{more} or compare runs item by item on the same items, or train three seeds.",
        run=next_run(view.run, seeds=3),
        evidence=("N1", "N2", "N7"),
        missing=_noise_missing(view),
    )


def _runs_alike(view: View) -> Result | None:
    """No target: other set-ups that the run cannot be told from."""
    rivals = [run for run in view.facts.runs if setup(run) != setup(view.run) and run.data_fraction == view.run.data_fraction]
    compared = [(run, difference) for run in rivals if (difference := view.compare(view.run, run)) is not None]
    beaten = [run for run, _ in compared if view.beats(view.run, run)]
    alike = [(run, difference) for run, difference in compared if not difference.loses and run not in beaten]
    if not alike or beaten:
        return None
    shown = ", ".join(f"{run.label} ({show_gap(view, difference.delta)}, {difference.z:.1f} standard errors)" for run, difference in alike)
    n = view.noise.items(view.run)
    few = f" on {n} items, too few to decide a climb on" if n is not None and n < gate("few_items") and view.noise.shares else ""
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=_alike_confidence(alike),
        reason=f"{view.run.label} cannot be told from {shown}{few}: none is a reason to change the rung",
        experiment=_more_items(view, max(abs(difference.delta) for _, difference in alike)),
        run=next_run(view.run, seeds=3),
        evidence=("N1", "N2", "N7", "N8"),
        missing=("the score that would be good enough", *_noise_missing(view)),
        disagreement=_cheapest(view.run),
    )


def _alike_confidence(alike: list[tuple[RunFacts, Difference]]) -> Confidence:
    return HIGH if all(difference.items_known for _, difference in alike) else LOW


def _more_items(view: View, difference: float) -> str:
    if not view.noise.shares or difference <= 0:
        return "Measure better before changing anything: three seeds a run, compared item by item."
    needed = items_needed_paired(difference, gate("discordant"))
    return (
        f"Measure better before changing anything: to tell {show_gap(view, difference)} apart takes about {needed:,} items that both runs "
        "are scored on, with each item's result kept."
    )


def _cheapest(run: RunFacts) -> str:
    if run.method is not Method.LORA:
        return ""
    return "The ladder would climb to the better score; the evidence cannot tell the two apart, so the cheaper rung stays."


def _noise_missing(view: View) -> tuple[str, ...]:
    known = view.noise.error is not None or view.noise.items(view.run) is not None
    items = () if known else ("the number of held-out items",)
    return items if view.run.correct else (*items, "the result of every item, so that runs can be compared in pairs")
