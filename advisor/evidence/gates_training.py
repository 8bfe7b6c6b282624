"""R3: did it train at all, or was it not what was scored. What was found wrong, and what is changed or checked first."""

from __future__ import annotations

from dataclasses import replace

from advisor.evidence.failures import Failure, failure_of
from advisor.evidence.gates_overfit import data_overfitted, far_too_many_passes, many_passes
from advisor.evidence.lr import offset, prior, rounded, three_points, without
from advisor.evidence.rates import better_rate, rates_of
from advisor.evidence.result import Result, next_run
from advisor.evidence.signatures import NARROW
from advisor.evidence.symptoms import symptom
from advisor.evidence.view import View, scale_of
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import ALPHA_PER_RANK
from advisor.values import Precision
from advisor.values.evidence import Complaint, RunFacts
from advisor.values.next_step import Binding, Door

STEEP = 10
"""By how much reinforcement learning that fell below its start is lowered: collapses were cured at a tenth and less (fact LR11)."""


def complained_of(view: View) -> Result | None:
    """R3. What is wrong was told, and no score shows it: the check that tells comes before any further run."""
    found = symptom(view)
    if found is None or view.run.oom:
        return None
    passes = _fewer(view) if view.facts.complaint is Complaint.REPEATS else None
    return passes if passes is not None else _result(view, view.run, found)


def _fewer(view: View) -> Result | None:
    """Repetition after more passes than were ever best is overfitting until shown otherwise (hiyouga/LlamaFactory issue 1450)."""
    return data_overfitted(view) or far_too_many_passes(view) or many_passes(view)


def did_not_train(view: View) -> Result | None:
    """R3. Nothing can be said of rank or method before a run has learned something."""
    run = view.run
    if better_rate(view, run) is not None:
        return None  # the same set-up trains at another rate: R4 names it
    found = failure_of(view)
    return None if found is None else _result(view, run, found)


def _result(view: View, run: RunFacts, found: Failure) -> Result:
    if found.cure in ("setup", "precision", "evaluation"):
        return _without_rates(view, run, found)
    rates, direction = _untried(view, run, found.cure)
    if not rates:
        return _without_rates(view, run, replace(found, reason=f"{found.reason}, at every learning rate that was tried", cure="setup"))
    guilty = _rate_is_guilty(view, run, direction)
    change = {"lower": "Lower", "raise": "Raise"}.get(direction, "Sweep")
    to = "to" if direction else "over"
    rl, scored = view.objective == "rl", view.current_score is not None
    ends = "" if scored else " Go on from the highest rate whose loss falls and does not turn."
    return Result(
        gate="R3",
        binding=Binding.LEARNING_RATE if guilty else Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=found.sure,
        reason=found.reason + (f", at a learning rate that is {guilty}" if guilty else ""),
        experiment=f"{change} the learning rate {to} {_listed(rates)}{_or_scale(run, direction)}, on as many steps as showed the failure; "
        f"before that, check {found.check}.{ends}",
        run=next_run(run, learning_rates=rates, data_fraction=min(run.data_fraction, threshold("sweep_data_share"))),
        keep="Go on from the new rate" if scored else "",
        evidence=(*found.evidence, *(("LR11", "LR19", "C15") if rl else ("LR6", "LR7", "C11"))),
        missing=_missing(run),
        disagreement=NO_RUNG,
    )


def _or_scale(run: RunFacts, direction: str) -> str:
    """The other end of the same knob, where the update is scaled up far beyond what is usual (microsoft/PhiCookBook issue 121)."""
    scale = scale_of(run)
    if direction != "lower" or scale is None or run.rank is None or run.use_rslora or scale < SCALED_UP * ALPHA_PER_RANK:
        return ""
    return f" (or alpha, {scale:g} times the rank, to {ALPHA_PER_RANK * run.rank:g} at the present rate: for the update they are one knob)"


SCALED_UP = 4
"""Times the usual alpha over rank from which it is named beside the rate. Judgement: by the root of the scale it asks for half the rate."""
NO_RUNG = "The ladder has no rung for a run that did not train: neither rank, DoRA nor full fine-tuning is tried on it."


def _listed(rates: tuple[float, ...]) -> str:
    return " and ".join(map(show, rates)) if len(rates) < 3 else ", ".join(map(show, rates))


def _missing(run: RunFacts) -> tuple[str, ...]:
    losses = () if run.train_losses else ("the training losses, step by step",)
    return losses if run.precision is not None else (*losses, "the type that the weights were loaded in (bf16, fp16 or fp32)")


def _without_rates(view: View, run: RunFacts, found: Failure) -> Result:
    """No learning rate cures it: the type of the numbers is changed, or the set-up is checked, at the rate as it is."""
    rate = run.learning_rate
    wider = _wider(view, run)
    if found.cure == "precision":
        at = f", at {show(rate)}" if rate is not None else ""
        instead = f" instead of {run.precision.value}" if run.precision else ", whatever it ran in"
        experiment = (
            f"Train in {wider.value}{instead}{at}, nothing else changed, for as many steps as showed the failure; check {found.check}, "
        )
        experiment += "and log the gradient norm."
        if view.current_score is None:
            experiment += f" Go on from there where the loss stays a number{_usual(view, run)}."
    else:
        after = "score the same run again" if found.cure == "evaluation" else "run the first hundred steps again and see the loss fall"
        experiment = f"Change no rate yet. Check {found.check}; then {after}."
    return Result(
        gate="R3",
        binding=Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=found.sure,
        reason=found.reason,
        experiment=experiment,
        run=next_run(run, precision=wider) if found.cure == "precision" else None,
        keep=f"Go on in {wider.value}" if found.cure == "precision" and view.current_score is not None else "",
        evidence=found.evidence or ("LR6", "LR7"),
        missing=_missing(run),
        disagreement=NO_RUNG,
    )


def _usual(view: View, run: RunFacts) -> str:
    """Back to a rate that teaches, where it was lowered in vain."""
    known, rate = prior(view, run), run.learning_rate
    return f", at the usual {show(known.rate)}" if known and rate and rate * gate("lr_window") <= known.rate else ""


def _wider(view: View, run: RunFacts) -> Precision:
    """A type with more room than the run's: bf16 where the card computes in it; else fp32 weights under scaled fp16, then fp32."""
    if run.precision is not None and run.precision not in NARROW:
        return Precision.FP32
    if view.facts.gpu is None or view.facts.gpu.bf16_supported:
        return Precision.BF16
    return Precision.FP32 if run.precision is Precision.FP16_AMP else Precision.FP16_AMP


def _untried(view: View, run: RunFacts, direction: str) -> tuple[tuple[float, ...], str]:
    """Rates to try, and on which side. A loss that went nowhere says little of the side: what lies below the untuned model was driven too
    hard. Where a side was tried and failed as well, it goes on there as far as the prior makes sense."""
    score, base = view.current_score, view.base
    if direction == "raise" and score is not None and base is not None and score < base:
        direction = "lower"
    tried = rates_of(view, run).known
    rates = without(_rates(view, run, direction, run.learning_rate), tried)
    if not rates and direction and tried:
        furthest = min(tried) if direction == "lower" else max(tried)
        rates = without(_rates(view, run, direction, furthest), tried)
        known = prior(view, run)
        if known is not None:
            rates = tuple(rate for rate in rates if offset(rate, known).factor <= REACH)
    return rates, direction


REACH = 100
"""Factor off the prior beyond which no rate is tried. Judgement: no tuned optimum was further than 5.5 (fact LR22)."""


def _rates(view: View, run: RunFacts, direction: str, rate: float | None) -> tuple[float, ...]:
    known, step = prior(view, run), threshold("lr_sweep_factor")
    if rate is None:
        if known is None:
            return ()
        return (rounded(known.rate / step**2), rounded(known.rate / step)) if direction == "lower" else three_points(known.rate)
    if direction == "lower" and view.objective == "rl":
        window = (threshold("lr_rl_low"), rate / STEEP, threshold("lr_rl_high"))
        return tuple(sorted({rounded(point) for point in window if point < rate})) or (rounded(rate / STEEP),)
    if known is not None and direction and _is_far(known.rate, rate, direction, step):
        return three_points(known.rate)
    if direction == "lower":
        return (rounded(rate / step**2), rounded(rate / step))
    if direction == "raise":
        return (rounded(rate * step), rounded(rate * step**2))
    return three_points(known.rate if known is not None else rate)


def _is_far(prior_rate: float, rate: float, direction: str, step: float) -> bool:
    """Whether two steps of a sweep would not come near the prior: the sweep then begins there, as tuned optima lie about it (fact LR22)."""
    return prior_rate / rate > step**3 if direction == "raise" else rate / prior_rate > step**3


def _rate_is_guilty(view: View, run: RunFacts, direction: str) -> str:
    """Where the learning rate alone explains it, in words; empty where it does not."""
    rate, known = run.learning_rate, prior(view, run)
    if rate is None or known is None:
        return ""
    off = offset(rate, known)
    side = "high" if direction == "lower" else "low"
    return f"{off.words} the prior of {show(known.rate)}" if off.side == side and off.factor >= gate("lr_doubt") else ""
