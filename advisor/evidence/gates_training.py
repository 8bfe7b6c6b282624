"""R3: did it train at all. Broken losses, a loss that never moved, a score no better than the untuned model's."""

from __future__ import annotations

from advisor.evidence.losses import broken_at, has_spiked, is_broken, is_unmoved
from advisor.evidence.lr import offset, prior, rounded, three_points, without
from advisor.evidence.published import gate
from advisor.evidence.rates import better_rate, rates_of
from advisor.evidence.result import HIGH, MEDIUM, Result, accept, next_run, show_score
from advisor.evidence.view import View, same_but, same_rate
from advisor.ladder.knowledge import threshold
from advisor.ladder.learning_rate import show
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door

CHECKS = "labels and loss mask, chat template, end-of-sequence token, packing, and that every adapter module moved (B is not zero)"
STEEP = 10
"""By how much reinforcement learning that fell below its start is lowered: collapses were cured at a tenth and less (fact LR11)."""


def did_not_train(view: View) -> Result | None:
    """R3. Nothing can be said of rank or method before a run has learned something."""
    run = view.run
    if better_rate(view, run) is not None:
        return None  # the same set-up trains at another rate: R4 names it
    for found in (_broken(run), _unmoved(run), _no_better(view), _failed_rank(view)):
        if found is not None:
            reason, direction, sure = found
            return _result(view, run, reason, direction, sure)
    untrained = view.facts.adapter.untrained_modules if view.facts.adapter is not None else ()
    if untrained:
        names = ", ".join(untrained[:3]) + (f" and {len(untrained) - 3} more" if len(untrained) > 3 else "")
        return _result(view, run, f"the update of {names} is zero: those modules did not train", "", HIGH)
    return None


Found = tuple[str, str, Confidence]
"""What is wrong, whether the rate is rather too high ("down") or too low ("up"), and how sure that is."""


def _broken(run: RunFacts) -> Found | None:
    if is_broken(run):
        step = broken_at(run)
        return f"run {run.label}: the loss is NaN or infinite from step {step:g} on", "down", HIGH
    if run.diverged or has_spiked(run):
        return f"run {run.label}: the loss spiked and did not come back", "down", HIGH
    return None


def _unmoved(run: RunFacts) -> Found | None:
    return (f"run {run.label}: the training loss ended where it began", "up", HIGH) if is_unmoved(run) else None


def _no_better(view: View) -> Found | None:
    """Not clearly above the untuned model."""
    score, base = view.current_score, view.base
    if score is None or base is None or score > base + gate("base_z") * view.error(view.run):
        return None
    below = score < base
    shown = f"{show_score(view, score)} {'below' if below else 'no better than'} the untuned model's {show_score(view, base)}"
    return f"run {view.run.label} scores {shown}", "down" if below else "", HIGH if below else MEDIUM


def _failed_rank(view: View) -> Found | None:
    """The next rank up, at the same learning rate, gained more than any capacity explains: this one had failed to train (fact C11)."""
    run = view.run
    for other in view.facts.runs:
        if run.rank is None or other.rank is None or not run.rank < other.rank <= gate("rank_step") * run.rank:
            continue
        difference = view.compare(run, other)
        if same_but(run, other, "rank", "alpha") and same_rate(run, other) and difference is not None:
            jump = gate("rank_jump")
            if view.noise.shares and difference.delta > jump and difference.wins:
                return (
                    f"rank {other.rank} scores {100 * difference.delta:.0f} points more at the same learning rate: more than any capacity "
                    f"explains, so rank {run.rank} failed to train",
                    "",
                    MEDIUM,
                )
    return None


def _result(view: View, run: RunFacts, reason: str, direction: str, sure: Confidence) -> Result:
    rates, direction = _untried(view, run, direction)
    guilty = _rate_is_guilty(view, run, direction)
    change = "Lower" if direction == "down" else "Raise" if direction == "up" else "Sweep"
    what = f"{change} the learning rate to {', '.join(map(show, rates))}" if rates else "Run the first steps again"
    rl = view.objective == "rl"
    return Result(
        gate="R3",
        binding=Binding.LEARNING_RATE if guilty else Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=sure,
        reason=reason + (f", at a learning rate that is {guilty}" if guilty else ""),
        experiment=f"{what}, on as many steps as showed the failure; before that, check {CHECKS}.",
        run=next_run(run, learning_rates=rates, data_fraction=threshold("sweep_data_share")) if rates else None,
        accept=accept(view, "Go on from the new rate"),
        evidence=("LR11", "LR19", "C15") if rl else ("LR6", "LR7", "C11"),
        missing=() if run.train_losses else ("the training losses, step by step",),
        disagreement="The ladder has no rung for a run that did not train: neither rank, DoRA nor full fine-tuning is tried on it.",
    )


def _untried(view: View, run: RunFacts, direction: str) -> tuple[tuple[float, ...], str]:
    """Rates to try. A loss that went nowhere says little of the side: what lies below the untuned model was driven too hard, then the
    prior decides; and where one side was tried and failed as well, it is the other."""
    known, rate = prior(view, run), run.learning_rate
    score, base = view.current_score, view.base
    if direction == "up" and score is not None and base is not None and score < base:
        direction = "down"
    elif direction == "up" and known is not None and rate is not None:
        direction = "up" if rate <= known.rate else "down"
    rates = _rates(view, run, direction)
    tried = rates_of(view, run).known
    if direction and rates and not without(rates, tried):
        direction = "up" if direction == "down" else "down"
        rates = _rates(view, run, direction)
    return rates, direction


def _rates(view: View, run: RunFacts, direction: str) -> tuple[float, ...]:
    rate, known = run.learning_rate, prior(view, run)
    if rate is None:
        return three_points(known.rate) if known is not None else ()
    step = threshold("lr_sweep_factor")
    if direction == "down" and view.objective == "rl":
        window = (threshold("lr_rl_low"), rate / STEEP, threshold("lr_rl_high"))
        return tuple(sorted({rounded(point) for point in window if point < rate})) or (rounded(rate / STEEP),)
    if direction == "down":
        return (rounded(rate / step**2), rounded(rate / step))
    if direction == "up":
        return (rounded(rate * step), rounded(rate * step**2))
    return tuple(sorted({*three_points(known.rate if known is not None else rate)}))


def _rate_is_guilty(view: View, run: RunFacts, direction: str) -> str:
    """Where the learning rate alone explains it, in words; empty where it does not."""
    rate, known = run.learning_rate, prior(view, run)
    if rate is None or known is None:
        return ""
    off = offset(rate, known)
    too_far = off.factor >= gate("lr_doubt")
    if direction == "down":
        return f"{off.words} the prior of {show(known.rate)}" if off.side == "high" and too_far else ""
    return f"{off.words} the prior of {show(known.rate)}" if off.side == "low" and too_far else ""
