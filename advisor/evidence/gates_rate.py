"""R4: the learning rate is the first suspect. What was measured or is plainly off comes before all else, what was merely not swept is one
open cause among others, and no climb comes before it."""

from __future__ import annotations

from advisor.evidence.identity import same_length
from advisor.evidence.lr import DEFAULT_CENTRE, Offset, around, gain_from, offset, prior, rate_on_more_data, rounded, without
from advisor.evidence.rates import Better, better_rate, is_certified, rates_of
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View, scale_of
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.spelling import same_rate
from advisor.units import format_share
from advisor.values import Range
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain


def better_rate_known(view: View) -> Result | None:
    """R4. Another rate of the same sweep leads the run's, or the best lies at the sweep's edge."""
    run = view.run
    found = better_rate(view, run)
    return _measured(view, run, found) if found is not None else _at_edge(view, run)


def rate_is_flagged(view: View) -> Result | None:
    """R4. A rate for full fine-tuning, or one far off the prior, that no sweep has confirmed."""
    run = view.run
    rate = run.learning_rate
    if rate is None or is_certified(view, run):
        return None
    known = prior(view, run)
    off = None if known is None else offset(rate, known)
    if view.objective == "sft" and run.method.has_adapter and rate <= gate("lr_full_like"):
        beside = f"; it is {off.words} the prior of {show(known.rate)}" if off is not None and known is not None else ""
        reason = f"run {run.label}: {show(rate)} is a learning rate for full fine-tuning; adapters want about ten times that{beside}"
        tenfold = gain_from(off or Offset(threshold("lr_full_divisor"), "low"))
        return _sweep(view, reason, MEDIUM, tenfold, gate("odds_rate_flagged"))
    far = _off_unswept(view, run)
    return _far(view, run, far, MEDIUM) if far is not None and far.factor >= gate("lr_window") else None


def rate_is_open(view: View) -> Result | None:
    """R4. A rank step kept the rate, the rate is off the prior by more than a step of the sweep, or no sweep has closed the question."""
    run = view.run
    if is_certified(view, run):
        return None
    kept = _kept_over_rank(view, run)
    if kept is not None:
        return kept
    off = _off_unswept(view, run)
    if off is not None and off.factor >= gate("lr_doubt"):
        return _far(view, run, off, LOW)
    known = prior(view, run)
    beside = None if known is None or run.learning_rate is None else offset(run.learning_rate, known)
    gain = gain_from(beside or Offset(threshold("lr_sweep_factor"), "low"))
    told = "its learning rate is not known"
    if run.learning_rate is not None:
        told = f"its learning rate of {show(run.learning_rate)} was not swept at this rank, scale, batch and these targets"
    far = (
        f", and lies {beside.words} the prior of {show(known.rate)}" if beside and known and beside.factor >= gate("lr_gain_spread") else ""
    )
    reason = f"run {run.label}: {told}{far}"
    odds = gate("odds_rate_unknown") if run.learning_rate is None else gate("odds_rate_unswept")
    return _sweep(view, reason, LOW, gain, odds)


def _measured(view: View, run: RunFacts, found: Better) -> Result | None:
    """Another rate of the same sweep leads the run's: the rate is taken to all of the data."""
    assert run.learning_rate is not None
    best, rates, own = found.best, found.rates, show(run.learning_rate)
    if found.by is None:
        won = f"its own {own} broke" if found.wins else f"its own {own} was not among the rates"
    else:
        won = f"by {show_gap(view, found.by) if rates.by_score else f'{found.by:.3g} of evaluation loss'} over its own {own}"
    share = rates.data_fraction / run.data_fraction
    rate = rounded(rate_on_more_data(best.rate, share))
    carried = (
        f" (the sweep's {show(best.rate)} on {format_share(share)} of them, as the best rate falls with the data)" if share < 1 else ""
    )
    outward = rates.next_rates() if rates.standing not in ("interior", "open") else ()
    goes_on = f", then {', '.join(map(show, outward))}" if outward else ""
    return Result(
        gate="R4",
        binding=Binding.LEARNING_RATE,
        door=Door.STAY,
        confidence=HIGH if found.wins and (found.by is None or view.items_known) else MEDIUM,
        reason=f"the sweep of run {run.label} is won at {show(best.rate)}: {won}"
        + ("" if found.wins or found.by is None else ", a lead within the noise"),
        experiment=f"Take {show(rate)}{goes_on} on all of the data{carried}, and judge everything else from there.",
        run=next_run(run, learning_rates=(rate, *map(rounded, outward))),
        keep="Keep the new rate",
        no_worse=True,
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
    reason = f"the best of the sweep, {show(best.rate)}, is its {side} rate: the optimum may lie outside"
    return _sweep(view, reason, MEDIUM, None, gate("odds_rate_flagged"))


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
    odds = gate("odds_rate_flagged") if off.factor >= gate("lr_window") else gate("odds_rate_doubted")
    return _sweep(view, reason, sure, gain_from(off), odds)


def _kept_over_rank(view: View, run: RunFacts) -> Result | None:
    """The rank went up with alpha beside it, at the same rate, and nothing was gained: the rate was due to fall (facts LR5, C10, C11)."""
    for other in view.facts.runs:
        low, high = (run, other) if _raised(run, other) else (other, run)
        alike = same_rate(low.learning_rate, high.learning_rate) and same_length(low, high) and low.data_fraction == high.data_fraction
        difference = view.compare(low, high) if alike and _raised(low, high) else None
        if difference is not None and not difference.wins:
            hurt = "hurt" if difference.loses else "gained nothing"
            reason = f"rank {high.rank} instead of {low.rank} at the same learning rate {hurt}: that speaks of the rate, not of the rank"
            gain = gain_from(Offset((high.rank or 1) ** 0.5 / (low.rank or 1) ** 0.5, "high"))
            return _sweep(view, reason, MEDIUM, gain, gate("odds_rate_doubted"), ("C10", "C11", "C19", "LR5"))
    return None


def _raised(low: RunFacts, high: RunFacts) -> bool:
    """Rank and alpha went up together. Alpha left behind is a matter of scale: R5."""
    if low.rank is None or high.rank is None or high.rank <= low.rank or low.method is not high.method:
        return False
    before, after = scale_of(low), scale_of(high)
    return before is None or after is None or abs(after - before) < 1e-9


def _sweep(
    view: View,
    reason: str,
    sure: Confidence,
    gain: Gain | None,
    odds: float,
    evidence: tuple[str, ...] = ("LR1", "LR6", "LR21", "LR22"),
) -> Result:
    run = view.run
    rates, share = sweep_rates(view, run)
    known = prior(view, run)
    runs = f"{len(rates)} short runs" if len(rates) > 1 else "one short run" if share < 1 else "one run"
    return Result(
        gate="R4",
        binding=Binding.LEARNING_RATE,
        door=Door.STAY,
        confidence=sure,
        reason=reason,
        experiment=f"Sweep the learning rate: {', '.join(map(show, rates))}, nothing else changed, on {view.sweep_words(share)}; "
        "add a step of three outward while the best is at an edge.",
        run=next_run(run, learning_rates=rates, data_fraction=share),
        keep="Take the best rate; call it better than the present one",
        gain=gain,
        odds=odds,
        cost=runs,
        evidence=tuple(dict.fromkeys((*evidence, *(known.evidence if known is not None else ())))),
        missing=() if run.learning_rate is not None else ("the learning rate of the run",),
    )


def sweep_rates(view: View, run: RunFacts) -> tuple[tuple[float, ...], float]:
    """What is still to be run, and on which share of the data: a sweep that was begun goes on where it was, outward from an edge or
    filling its gaps; a new one takes three points around the prior that hold the run's own rate."""
    swept = rates_of(view, run)
    if len(swept.known) > 1 and swept.next_rates():
        return tuple(map(rounded, swept.next_rates())), swept.data_fraction
    known = prior(view, run)
    rates = around(known.rate, run.learning_rate) if known is not None else around(run.learning_rate or DEFAULT_CENTRE, None)
    share = view.sweep_share
    of_all = swept.known if swept.data_fraction == share else ()
    return without(rates, of_all) or rates, share
