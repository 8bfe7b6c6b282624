"""R3: did it train at all. Curves that cannot be right, a score no better than the untuned model's, modules that never moved."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.evidence.alike import differ_only
from advisor.evidence.lr import offset, prior, rounded, three_points, without
from advisor.evidence.rates import better_rate, rates_of
from advisor.evidence.result import HIGH, MEDIUM, Result, next_run, show_score
from advisor.evidence.signatures import MOVED, NUMBERS, Cure, learned_but_scores_nothing, of_curves
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.values import Precision
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door

CHECKS = "labels and loss mask, chat template, end-of-sequence token, packing, and that every adapter module moved (B is not zero)"
STEEP = 10
"""By how much reinforcement learning that fell below its start is lowered: collapses were cured at a tenth and less (fact LR11)."""
NARROW = (Precision.FP16, Precision.FP16_AMP)
"""Types that overflow where bf16 does not."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong, what to check, and what is changed first; an empty cure: the rate may be too high or too low."""

    reason: str
    check: str
    cure: Cure | str
    sure: Confidence


def did_not_train(view: View) -> Result | None:
    """R3. Nothing can be said of rank or method before a run has learned something."""
    run = view.run
    if better_rate(view, run) is not None:
        return None  # the same set-up trains at another rate: R4 names it
    for found in (_curves(view, run), _no_better(view), _failed_rank(view), _untrained(view)):
        if found is not None:
            return _result(view, run, found)
    return None


def _curves(view: View, run: RunFacts) -> Failure | None:
    vocabulary = view.facts.model.vocab_size if view.facts.model is not None else None
    found = of_curves(run, view.facts.runs, vocabulary)
    if found is None:
        return None
    cure, check = _cure(view, run, found.cure), found.check
    if cure == "precision" and NUMBERS not in check:
        check = NUMBERS
    return Failure(f"run {run.label}: {found.what}{_beside_16_bit(view, run)}", check, cure, HIGH)


def _cure(view: View, run: RunFacts, first: Cure) -> Cure:
    """Where the rate is far below what is usual, lowering it further cures nothing: then it is the type of the numbers, or the set-up."""
    known, rate = prior(view, run), run.learning_rate
    if first == "raise" and known is not None and rate is not None and rate > known.rate:
        return "lower"
    if first != "lower":
        return first
    far_below = known is not None and rate is not None and rate * gate("lr_window") <= known.rate
    narrow = run.precision in NARROW
    if narrow and (known is None or rate is None or rate < gate("lr_doubt") * known.rate):
        return "precision"
    if far_below:
        return "precision" if run.precision is None else "setup"
    return "lower"


def _beside_16_bit(view: View, run: RunFacts) -> str:
    """A 4-bit run beside one on a 16-bit base that learned: the fault is of the set-up."""
    if not run.method.is_quantized:
        return ""
    for other in view.facts.runs:
        losses = [point.loss for point in other.train_losses if point.is_finite]
        if not other.method.is_quantized and len(losses) > 1 and losses[-1] < gate("loss_learned") * losses[0]:
            return f", while run {other.label} learned on a 16-bit base: a fault of the 4-bit set-up, not the price of 4 bit"
    return ""


def _no_better(view: View) -> Failure | None:
    """Not clearly above the untuned model."""
    score, base = view.current_score, view.base
    if score is None or base is None or score > base + gate("base_z") * view.error(view.run):
        return None
    below = score < base
    shown = f"{show_score(view, score)}, {'below' if below else 'no better than'} the untuned model's {show_score(view, base)}"
    reason = f"run {view.run.label} scores {shown}"
    wrong = learned_but_scores_nothing(view.run)
    if wrong is not None:
        return Failure(f"{reason}; {wrong.what}", wrong.check, wrong.cure, MEDIUM)
    return Failure(reason, CHECKS, "lower" if below else "", HIGH if below and view.items_known else MEDIUM)


def _failed_rank(view: View) -> Failure | None:
    """The next rank up, at the same learning rate, gained more than any capacity explains: this one had failed to train (fact C11)."""
    run = view.run
    for other in view.facts.runs:
        if run.rank is None or other.rank is None or not run.rank < other.rank <= gate("rank_step") * run.rank:
            continue
        difference = view.compare(run, other)
        if not differ_only(run, other, "rank", "alpha") or difference is None or not view.noise.shares:
            continue
        if difference.delta > gate("rank_jump") and difference.wins:
            reason = (
                f"rank {other.rank} scores {100 * difference.delta:.0f} points more at the same learning rate: more than any capacity "
                f"explains, so rank {run.rank} failed to train"
            )
            return Failure(reason, CHECKS, "", MEDIUM)
    return None


def _untrained(view: View) -> Failure | None:
    names = view.facts.adapter.untrained_modules if view.facts.adapter is not None else ()
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = "that module" if len(names) == 1 else "those modules"
    return Failure(f"the update of {shown} is zero: {which} did not train", MOVED, "setup", HIGH)


def _result(view: View, run: RunFacts, found: Failure) -> Result:
    if found.cure in ("setup", "precision", "evaluation"):
        return _without_rates(view, run, found)
    rates, direction = _untried(view, run, found.cure)
    if not rates:
        return _without_rates(view, run, replace(found, reason=f"{found.reason}, at every learning rate that was tried", cure="setup"))
    guilty = _rate_is_guilty(view, run, direction)
    change = {"lower": "Lower", "raise": "Raise"}.get(direction, "Sweep")
    to = "to" if direction else "over"
    rl = view.objective == "rl"
    return Result(
        gate="R3",
        binding=Binding.LEARNING_RATE if guilty else Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=found.sure,
        reason=found.reason + (f", at a learning rate that is {guilty}" if guilty else ""),
        experiment=f"{change} the learning rate {to} {_listed(rates)}, on as many steps as showed the failure; before that, check "
        f"{found.check}.",
        run=next_run(run, learning_rates=rates, data_fraction=min(run.data_fraction, threshold("sweep_data_share"))),
        keep="Go on from the new rate",
        evidence=("LR11", "LR19", "C15") if rl else ("LR6", "LR7", "C11"),
        missing=_missing(run),
        disagreement=NO_RUNG,
    )


NO_RUNG = "The ladder has no rung for a run that did not train: neither rank, DoRA nor full fine-tuning is tried on it."


def _listed(rates: tuple[float, ...]) -> str:
    return " and ".join(map(show, rates)) if len(rates) < 3 else ", ".join(map(show, rates))


def _missing(run: RunFacts) -> tuple[str, ...]:
    losses = () if run.train_losses else ("the training losses, step by step",)
    return losses if run.precision is not None else (*losses, "the type that the weights were loaded in (bf16, fp16 or fp32)")


def _without_rates(view: View, run: RunFacts, found: Failure) -> Result:
    """No learning rate cures it: the type of the numbers is changed, or the set-up is checked, at the rate as it is."""
    known, rate = prior(view, run), run.learning_rate
    low = known is not None and rate is not None and rate * gate("lr_doubt") <= known.rate
    why = f"; {show(rate)} is {offset(rate, known).words} the prior, so no lower rate cures it" if low and rate and known else ""
    wider = Precision.BF16 if run.precision is None or run.precision in NARROW else Precision.FP32
    if found.cure == "precision":
        at = f", at {show(rate)}" if rate is not None else ""
        instead = f" instead of {run.precision.value}" if run.precision else ", whatever it ran in"
        experiment = (
            f"Train in {wider.value}{instead}{at}, nothing else changed, for as many steps as showed the failure; check {found.check}, "
        )
        experiment += "and log the gradient norm."
    else:
        after = "score the same run again" if found.cure == "evaluation" else "run the first hundred steps again and see the loss fall"
        experiment = f"Change no rate yet. Check {found.check}; then {after}."
    return Result(
        gate="R3",
        binding=Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=found.sure,
        reason=found.reason + why,
        experiment=experiment,
        run=next_run(run, precision=wider) if found.cure == "precision" else None,
        keep=f"Go on in {wider.value}" if found.cure == "precision" else "",
        evidence=("LR6", "LR7"),
        missing=_missing(run),
        disagreement=NO_RUNG,
    )


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
