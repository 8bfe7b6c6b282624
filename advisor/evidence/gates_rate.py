"""R4: the learning rate is the first suspect. What is plainly off comes before all else, what was merely not swept before a climb."""

from __future__ import annotations

from advisor.evidence.lr import Offset, gain_from, offset, prior, rate_on_more_data, rounded, three_points
from advisor.evidence.published import gate
from advisor.evidence.rates import better_rate, is_certified, rates_of
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap
from advisor.evidence.view import View, same_rate
from advisor.ladder.knowledge import threshold
from advisor.ladder.learning_rate import show
from advisor.values import Range
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain

DEFAULT_CENTRE = 2e-4
"""Centre of a sweep where neither a prior nor a rate is known: QLoRA's tuned value at 7B and 13B (fact LR16)."""


def rate_is_off(view: View) -> Result | None:
    """R4. A better rate was measured, the best lies at the sweep's edge, or the rate is far off the prior."""
    run = view.run
    return _measured(view, run) or _at_edge(view, run) or _red_flag(view, run)


def rate_is_doubtful(view: View) -> Result | None:
    """R4. A rank step kept the rate, or it is off the prior by more than a step of the sweep: suspected before what was not measured."""
    kept = _kept_over_rank(view, view.run)
    if kept is not None:
        return kept
    off = _off_unswept(view, view.run)
    if off is None or off.factor < gate("lr_doubt"):
        return None
    return _far(view, view.run, off, LOW)


def rate_is_unswept(view: View) -> Result | None:
    """R4. Nothing looks wrong with the rate, but no sweep has closed the question: no climb before that (facts LR6, LR12)."""
    run = view.run
    if is_certified(view, run):
        return None
    known = prior(view, run)
    off = None if known is None or run.learning_rate is None else offset(run.learning_rate, known)
    gain = gain_from(off) if off is not None and off.factor > 1 else None
    told = (
        "its learning rate is not known" if run.learning_rate is None else f"its learning rate of {show(run.learning_rate)} was not swept"
    )
    return _sweep(view, run, f"run {run.label}: {told} at this rank, scale, batch and these targets", LOW, gain)


def _measured(view: View, run: RunFacts) -> Result | None:
    """Another rate of the same sweep beats the run's."""
    found = better_rate(view, run)
    if found is None:
        return None
    assert run.learning_rate is not None
    best, rates, own = found.best, found.rates, show(run.learning_rate)
    if found.by is None:
        won = f"its own {own} broke"
    else:
        won = f"by {show_gap(view, found.by) if rates.by_score else f'{found.by:.3g} of evaluation loss'} over its own {own}"
    share = rates.data_fraction / run.data_fraction
    rate = rate_on_more_data(best.rate, share)
    carried = f", which {show(best.rate)} on {share:.0%} of the data comes to" if share < 1 else ""
    outward = rates.next_rates() if rates.standing != "interior" else ()
    goes_on = f", then {', '.join(map(show, outward))}" if outward else ""
    return Result(
        gate="R4",
        binding=Binding.LEARNING_RATE,
        door=Door.STAY,
        confidence=HIGH,
        reason=f"the sweep of run {run.label} is won at {show(best.rate)}: {won}",
        experiment=f"Take {show(rate)}{carried}{goes_on}, on all of the data, and judge everything else from there.",
        run=next_run(run, learning_rates=(rounded(rate), *map(rounded, outward))),
        accept=accept(view, "Keep the new rate"),
        gain=_measured_gain(view, found.by) if found.by is not None and rates.by_score else None,
        evidence=("LR6", "LR7", "LR15", "LR21"),
    )


def _measured_gain(view: View, delta: float) -> Gain | None:
    if not view.noise.shares:
        return None
    return Gain(points=Range(low=100 * delta, high=100 * delta, source="measured here"), conditions="the sweep itself")


def _at_edge(view: View, run: RunFacts) -> Result | None:
    """The best of a full sweep is its lowest or highest rate: the optimum may lie outside."""
    rates = rates_of(view, run)
    if rates.standing not in ("low edge", "high edge") or run.lr_tuned:
        return None
    best = rates.best
    assert best is not None
    side = "highest" if rates.standing == "high edge" else "lowest"
    return _sweep(view, run, f"the best of the sweep, {show(best.rate)}, is its {side} rate: the optimum may lie outside", MEDIUM, None)


def _red_flag(view: View, run: RunFacts) -> Result | None:
    """A rate for full fine-tuning, or one far off the prior, that no sweep has confirmed."""
    rate = run.learning_rate
    if rate is None or is_certified(view, run):
        return None
    known = prior(view, run)
    off = None if known is None else offset(rate, known)
    if view.objective == "sft" and run.method.has_adapter and rate <= gate("lr_full_like"):
        beside = f", {off.words} the prior of {show(known.rate)}" if off is not None and known is not None else ""
        reason = f"run {run.label}: {show(rate)} is a learning rate for full fine-tuning; adapters want about ten times that{beside}"
        return _sweep(view, run, reason, MEDIUM, gain_from(off or Offset(threshold("lr_full_divisor"), "low")))
    far = _off_unswept(view, run)
    return _far(view, run, far, MEDIUM) if far is not None and far.factor >= gate("lr_window") else None


def _off_unswept(view: View, run: RunFacts) -> Offset | None:
    """How far an unswept rate is off the prior; in reinforcement learning only what broke runs counts (facts LR11, LR19)."""
    known, rate = prior(view, run), run.learning_rate
    if known is None or rate is None or is_certified(view, run):
        return None
    off = offset(rate, known)
    if view.objective == "rl" and (off.side == "low" or rate < gate("lr_rl_over")):
        return None
    return off


def _far(view: View, run: RunFacts, off: Offset, sure: Confidence) -> Result:
    known, rate = prior(view, run), run.learning_rate
    assert known is not None
    assert rate is not None
    reason = f"run {run.label}: {show(rate)} is {off.words} the prior of {show(known.rate)}, and was not swept"
    return _sweep(view, run, reason, sure, gain_from(off))


def _kept_over_rank(view: View, run: RunFacts) -> Result | None:
    """The rank went up with alpha beside it, at the same rate, and nothing was gained: the rate was due to fall (facts LR5, C10, C11)."""
    if is_certified(view, run):
        return None
    for other in view.facts.runs:
        low, high = (run, other) if _raised(run, other) else (other, run)
        difference = view.compare(low, high) if _raised(low, high) and same_rate(low, high) else None
        if difference is not None and not difference.wins:
            hurt = "hurt" if difference.loses else "gained nothing"
            reason = f"rank {high.rank} instead of {low.rank} at the same learning rate {hurt}: that speaks of the rate, not of the rank"
            return _sweep(view, run, reason, MEDIUM, None, ("C10", "C11", "C19", "LR5"))
    return None


def _raised(low: RunFacts, high: RunFacts) -> bool:
    """Rank and alpha went up together. Alpha left behind is a matter of scale: R5."""
    if low.rank is None or high.rank is None or high.rank <= low.rank or low.method is not high.method:
        return False
    if low.alpha is None or high.alpha is None:
        return True
    return abs(high.alpha / high.rank - low.alpha / low.rank) < 1e-9


def _sweep(
    view: View, run: RunFacts, reason: str, sure: Confidence, gain: Gain | None, evidence: tuple[str, ...] = ("LR1", "LR6", "LR21", "LR22")
) -> Result:
    rates, share = sweep_rates(view, run)
    known = prior(view, run)
    return Result(
        gate="R4",
        binding=Binding.LEARNING_RATE,
        door=Door.STAY,
        confidence=sure,
        reason=reason,
        experiment=f"Sweep the learning rate: {', '.join(map(show, rates))}, nothing else changed, on {_data(share)}; "
        "add a step of three outward while the best is at an edge.",
        run=next_run(run, learning_rates=rates, data_fraction=share),
        accept=accept(view, "Take the best rate; call it better than the present one"),
        gain=gain,
        cost=f"{len(rates)} short runs",
        evidence=tuple(dict.fromkeys((*evidence, *(known.evidence if known is not None else ())))),
        missing=() if run.learning_rate is not None else ("the learning rate of the run",),
    )


def sweep_rates(view: View, run: RunFacts) -> tuple[tuple[float, ...], float]:
    """What is still to be run, and on which share of the data: a sweep that was begun goes on where it was, outward from an edge or
    filling its gaps; a new one takes three points around the prior, else around the run's own rate."""
    swept = rates_of(view, run)
    if len(swept.known) > 1 and swept.next_rates():
        return tuple(map(rounded, swept.next_rates())), swept.data_fraction
    known = prior(view, run)
    centre = known.rate if known is not None else run.learning_rate or DEFAULT_CENTRE
    return three_points(centre), threshold("sweep_data_share")


def _data(share: float) -> str:
    return f"at least {share:.0%} of the data" if share <= threshold("sweep_data_share") else f"{share:.0%} of the data"
