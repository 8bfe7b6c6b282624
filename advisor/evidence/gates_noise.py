"""R2 and R14: is there a gap at all, and is forgetting the complaint."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from advisor.evidence.alike import setup
from advisor.evidence.done import is_done
from advisor.evidence.losses import is_broken
from advisor.evidence.noise import Difference
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_change, show_gap, show_score
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
from advisor.ladder.learning_rate import show
from advisor.statistics import gap_items, items_needed_paired, share_error
from advisor.units import format_share
from advisor.values import Method
from advisor.values.evidence import Complaint, RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

FEWER_RATES = (1 / 3, 1 / 10)
"""Learning rates to walk down to, as shares of the run's: a step of the sweep and two (fact F7: a high rate forgets most)."""
REPLAY = "mix general data into the training set (a tenth of it is a usual start)"
"""Judgement: R14 of the method evidence names replay, no source its share."""
NO_CURE = "DoRA is no cure."


def forgetting_complaint(view: View) -> Result | None:
    """R14. What the model knew before has gone: walk down, learning rate first (facts F7, F8)."""
    run = view.run
    if run.oom or run.diverged or is_broken(run):
        return None
    lost = _forgetting(view, run)
    explicit = view.facts.complaint is Complaint.FORGETTING
    if not explicit and (lost is None or (view.gap is not None and view.gap > 0)):
        return None
    kept = _kept_it(view, run)
    planned = None if kept else next((each for each in _gentler(run) if not is_done(view, each)), None)
    return Result(
        gate="R14",
        binding=Binding.FORGETTING,
        door=Door.STAY,
        confidence=HIGH if lost is not None and explicit else MEDIUM if lost is not None else LOW,
        reason=lost or "forgetting is the complaint; how much was lost has not been measured",
        experiment=kept or _walk_down(run, planned),
        run=planned,
        keep="Keep the gentler run" if planned is not None else "",
        no_worse=True,
        evidence=("F6", "F7", "F8", "S4"),
        missing=() if lost else ("the general benchmark before and after training, and its number of items",),
        disagreement="The ladder has no rung for this: every step up it forgets more or the same, DoRA included (F8), so the way is down.",
    )


def _kept_it(view: View, run: RunFacts) -> str:
    """Another run that kept the general benchmark and is as good on the task: the answer is at hand."""
    own = view.level(run.retention)
    for other in view.facts.runs:
        kept, difference = view.level(other.retention), view.compare(other, run)
        if other is run or own is None or kept is None or difference is None or view.beats(other, run):
            continue
        if kept - own > gate("retention_z") * _retention_error(view, kept):
            n = view.noise.items(run)
            items = f" on {n:,} items" if n is not None else ""
            return (
                f"Take run {other.label}, which is at hand: it kept {show_score(view, kept)} of the general benchmark, and cannot be told "
                f"from {run.label} on the task ({show_change(view, -difference.delta)}, {difference.z:.1f} standard errors{items})."
            )
    return ""


def _walk_down(run: RunFacts, planned: NextRun | None) -> str:
    """What the gentler run changes, and what is left after it."""
    mix = REPLAY[0].upper() + REPLAY[1:]
    if planned is None:
        return f"{mix}, everything else unchanged; else lower the learning rate. {NO_CURE}"
    if planned.learning_rates and planned.learning_rates != (run.learning_rate,):
        rates = " and to ".join(show(rate) for rate in planned.learning_rates)
        what = f"Lower the learning rate to {rates}"
    elif planned.rank != run.rank:
        what = f"Lower the rank to {planned.rank}, at the same scale"
    elif planned.use_rslora != run.use_rslora:
        what = "Turn rank-stabilised scaling off, which makes the update smaller"
    else:
        what = f"Train for {planned.epochs:g} epochs instead of {run.epochs:g}"
    return f"{what}, nothing else changed. If that costs the task too much, {REPLAY}. {NO_CURE}"


def _gentler(run: RunFacts) -> Iterator[NextRun]:
    """Runs that change the model less, in the order in which to try them: rate, scale, rank, passes."""
    if run.learning_rate is not None:
        yield next_run(run, learning_rates=tuple(run.learning_rate * share for share in FEWER_RATES))
    if run.use_rslora:
        yield next_run(run, use_rslora=False)
    elif run.rank is not None and run.rank > gate("rank_step") and run.learning_rate is not None:
        step = int(gate("rank_step"))
        yield next_run(run, rank=run.rank // step, alpha=None if run.alpha is None else run.alpha / step)
    if run.epochs is not None and run.epochs > 1:
        yield next_run(run, epochs=max(1.0, run.epochs / 2))


def _forgetting(view: View, run: RunFacts) -> str | None:
    """The loss on the general benchmark in words, where it is beyond the noise."""
    before, after = view.level(view.facts.retention_base), view.level(run.retention)
    if before is not None and after is not None:
        error = _retention_error(view, before)
        if before - after > gate("retention_z") * error:
            return f"the general benchmark fell by {show_gap(view, before - after)}, {(before - after) / error:.1f} standard errors"
    if run.forgetting is not None and run.forgetting >= gate("forgetting_high"):
        others = [other.forgetting for other in view.facts.runs if other is not run and other.forgetting is not None]
        beside = f", and {format_share(min(others), 1)} in the gentlest other run" if others else ""
        return f"the general benchmark lost {format_share(run.forgetting, 1)}{beside}"
    return None


def _retention_error(view: View, score: float) -> float:
    """Standard error of a difference on the general benchmark, at least the spread of re-runs."""
    n = view.facts.retention_n
    error = sqrt(2) * share_error(abs(score), n) if n is not None and view.noise.shares else view.noise.floor
    return max(error, view.noise.floor, 1e-12)


def no_gap(view: View) -> Result | None:
    """R2. The target is reached, or the gap to it cannot be told from noise; without a target, whether the runs differ at all."""
    if view.current_score is None:
        return None
    if view.gap is None:
        return _runs_alike(view) or _unsteady(view)
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
    sure = -view.gap >= margin and view.items_known
    score, target = show_score(view, view.current_score), show_score(view, view.target)
    by = "" if sure else f", though by less than the {show_gap(view, margin)} that the evaluation wavers by"
    return Result(
        gate="R2",
        binding=Binding.NONE,
        door=Door.STOP,
        confidence=HIGH if sure else MEDIUM,
        reason=f"the target is reached: {score} against {target}{by}",
        experiment="Stop here: no climb. Score the finished adapter once on items that no decision was made on."
        if sure
        else "Stop here: no climb. Score the same adapter on more items, or on new ones, to be sure of the target.",
        evidence=("N1", "N2", "Q11") if view.facts.task is not None else ("N1", "N2"),
        missing=_noise_missing(view),
        is_door=True,
    )


def _too_small(view: View, margin: float) -> Result:
    """The gap is real or it is not: repeats tell what the spread of runs hides, then only items do."""
    assert view.gap is not None
    repeats = len(view.repeats(view.run))
    seeds = max(0, int(gate("repeats")) - repeats)
    needed = gap_items(view.gap, abs(view.current_score or 0.0), gate("noise_z"), gate("power_z")) if view.noise.shares and view.gap else 0
    measure = []
    if seeds:
        measure.append(f"train {seeds} more seed{'s' if seeds > 1 else ''} of the same run and take the mean")
    if 0 < needed <= MOST_ITEMS:
        measure.append(f"score on about {needed:,} items, which would show a gap of this size")
    measure.append("compare with other runs item by item on the same items")
    told = f", after {repeats} repeats" if repeats >= gate("repeats") else ""
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=HIGH if view.items_known else MEDIUM,
        reason=f"the gap of {show_gap(view, view.gap)} lies within the noise of the evaluation ({show_gap(view, margin)}){told}",
        experiment=f"Measure better before changing anything: {'; or '.join(measure)}.",
        run=next_run(view.run, seeds=seeds) if seeds and view.run.data_fraction == 1.0 else None,
        evidence=("N1", "N2", "N7"),
        missing=_noise_missing(view),
    )


MOST_ITEMS = 20_000
"""Items beyond which no evaluation is asked for. Judgement: above the largest public benchmarks of one task (MMLU has 14,042)."""


def _runs_alike(view: View) -> Result | None:
    """No target: other set-ups that the run cannot be told from."""
    rivals = [run for run in view.facts.runs if setup(run) != setup(view.run) and run.data_fraction == view.run.data_fraction]
    compared = [(run, difference) for run in rivals if (difference := view.compare(view.run, run)) is not None]
    beaten = [run for run, _ in compared if view.beats(view.run, run)]
    alike = [(run, difference) for run, difference in compared if not difference.loses and run not in beaten]
    if not alike or beaten:
        return None
    shown = ", ".join(f"{run.label} ({show_change(view, each.delta)}, {each.z:.1f} standard errors)" for run, each in alike[:3])
    more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
    n = view.noise.items(view.run)
    few = f" on {n} items, too few to decide a climb on" if n is not None and n < gate("few_items") and view.noise.shares else ""
    seeds = max(0, int(gate("repeats")) - len(view.repeats(view.run)))
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=_alike_confidence(alike),
        reason=f"{view.run.label} cannot be told from {shown}{more}{few}: none is a reason to change the rung",
        experiment=_more_items(view, max(abs(difference.delta) for _, difference in alike)),
        run=next_run(view.run, seeds=seeds) if seeds else None,
        evidence=("N1", "N2", "N7", "N8"),
        missing=("the score that would be good enough", *_noise_missing(view)),
        disagreement=_cheapest(view.run),
    )


def _unsteady(view: View) -> Result | None:
    """The same run again moves by far more than runs were measured to (fact N2), and than its items explain (haotian-liu/LLaVA 961)."""
    run, spread = view.run, view.spread(view.run)
    repeats = len(view.repeats(run))
    items = view.noise.of_items(run, view.current_score or 0.5)
    if repeats < gate("repeats") or not view.noise.shares or spread <= max(UNSTEADY * view.noise.floor, UNSTEADY_OF_ITEMS * (items or 0)):
        return None
    explained = f", of which its {view.noise.items(run):,} items explain {show_gap(view, items)}" if items is not None else ""
    rates = () if run.learning_rate is None else (run.learning_rate / 3,)
    gentler = f"at {show(rates[0])}" if rates else "at a third of its learning rate"
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"{run.label}, run {repeats} times, scatters by {show_gap(view, spread)} (one standard deviation){explained}, and "
        "runs ranged over 1.4 to 3.8 points where it was measured: training is barely stable, and no set-up can be told from another",
        experiment=f"Repeat the same run with {repeats} seeds {gentler}, with warm-up and a clipped gradient, nothing else changed, and "
        "see whether the scatter shrinks; score each on as many items as there are, and compare means only.",
        run=next_run(run, learning_rates=rates, seeds=repeats),
        evidence=("N1", "N2", "N7"),
        missing=_noise_missing(view),
    )


UNSTEADY = 4
"""Times the published spread of re-runs from which a run is called unsteady. Judgement: above the largest range, 3.8 points (fact N2)."""
UNSTEADY_OF_ITEMS = 1.5
"""Times the items' own standard error that the spread must exceed. Judgement: three repeats scatter by as much in one of ten."""


def _alike_confidence(alike: list[tuple[RunFacts, Difference]]) -> Confidence:
    return HIGH if all(difference.items_known for _, difference in alike) else LOW


def _more_items(view: View, difference: float) -> str:
    needed = items_needed_paired(difference, gate("discordant")) if view.noise.shares and difference > 0 else None
    if needed is not None and needed > MOST_ITEMS:
        return (
            f"Keep {view.run.label}, the cheapest of them: no evaluation of a practical size shows a difference of "
            f"{show_gap(view, difference)}, so it is no reason to pay more. Say which score would be good enough."
        )
    if needed is None:
        return "Measure better before changing anything: three seeds a run, compared item by item."
    return (
        f"Measure better before changing anything: a difference of {show_gap(view, difference)} takes about {needed:,} items to show, "
        "which both runs are scored on, with each item's result kept."
    )


def _cheapest(run: RunFacts) -> str:
    if run.method is not Method.LORA:
        return ""
    return "The ladder would climb to the better score; the evidence cannot tell the two apart, so the cheaper rung stays."


def _noise_missing(view: View) -> tuple[str, ...]:
    known = view.noise.error is not None or view.noise.items(view.run) is not None
    items = () if known else ("the number of held-out items",)
    return items if view.run.correct else (*items, "the result of every item, so that runs can be compared in pairs")
