"""R9: is the rank the limit. One bounded step with its own learning rate, never an open-ended climb."""

from __future__ import annotations

from advisor.evidence.capacity import (
    RankStep,
    ample,
    is_deep_pretraining,
    next_rank,
    predicted_gain,
    step_to_here,
    tested_step,
)
from advisor.evidence.losses import is_flat_and_close
from advisor.evidence.lr import rate_for, rounded
from advisor.evidence.pricing import fits_surely
from advisor.evidence.published import move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import ALPHA_PER_RANK
from advisor.values import ALL_LINEAR
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Door, Gain, NextRun

ORDER = (
    "The ladder's next door for a rank that limits is DoRA; the evidence says one rank step with its own learning rate first, as DoRA has "
    "the same rank budget and gained 0.1 to 0.65 points (C8, D15)."
)


def rank_may_limit(view: View) -> Result | None:
    """R9. Capacity is suspected, or was shown by the last step; the next step of four decides, within 256 and a ratio of 4."""
    run = view.run
    if not may_test_rank(view) or run.rank is None:
        return None
    planned = step_run(view, run)
    if planned is None or fits_surely(view, planned) is False:
        return None  # the rank cannot grow: R10 and R12 ask what that leaves
    shown = step_to_here(view)
    won = shown is not None and shown.difference.leads
    suspected = capacity_suspected(view)
    known = view.facts.adapter is not None and view.facts.adapter.truncated_score is not None
    free = "" if won or known else f" First, for free: cut the adapter to rank {max(1, run.rank // 2)} and score it."
    return Result(
        gate="R9",
        binding=Binding.CAPACITY,
        door=Door.STAY,
        confidence=HIGH if won and shown is not None and shown.difference.wins else MEDIUM if suspected else LOW,
        reason=_reason(view, shown if won else None),
        experiment=f"Train rank {planned.rank} once, alpha {planned.alpha:g}{_scale_words(run)}, at learning rates "
        f"{' and '.join(map(show, planned.learning_rates))}, on the same data for the same epochs.{free}",
        run=planned,
        keep=f"Keep rank {planned.rank}",
        gain=_gain(run),
        odds=gate("odds_rank_suspected") if suspected else gate("odds_rank"),
        cost=move("rank_16").price,
        evidence=("C1", "C4", "C8", "C17", "C20", "LR5", "P1"),
        missing=_missing(view),
        disagreement=ORDER,
        is_door=True,
    )


def _scale_words(run: RunFacts) -> str:
    return " (the scale stays as it was)" if run.alpha is not None and not run.use_rslora else ""


def rank_won(view: View) -> Result | None:
    """R9. The tuned step from here won, and the higher rank is at hand."""
    step = tested_step(view)
    if step is None or not step.difference.wins:
        return None
    gained = show_gap(view, step.difference.delta)
    return Result(
        gate="R9",
        binding=Binding.CAPACITY,
        door=Door.STAY,
        confidence=HIGH if step.difference.items_known else MEDIUM,
        reason=f"{step.ranks} gained {gained} ({step.difference.z:.1f} standard errors) {step.how}: the rank was the limit",
        experiment=f"Go on from rank {step.high.rank} (run {step.high.label}), which is at hand.",
        go_on_from=step.high,
        gain=_gain(step.low),
        evidence=("C1", "C4", "C8", "C20"),
        disagreement=ORDER,
        is_door=True,
    )


def may_test_rank(view: View) -> bool:
    """Whether a rank step can still tell anything."""
    run = view.run
    rho = view.rho(run.rank, run)
    if run.rank is None or not run.method.has_adapter or view.objective == "rl" or is_deep_pretraining(view):
        return False
    if (rho is not None and ample(rho)) or rank_is_unused(view):
        return False
    if rho is None and run.rank >= gate("rank_high_unknown") and not is_flat_and_close(run):
        return False
    if tested_step(view) is not None:
        return False  # tested, and it did not win: the rank is not the limit
    predicted = predicted_gain(view)
    return predicted is None or predicted >= view.error(run)


def step_run(view: View, run: RunFacts) -> NextRun | None:
    """One step of four at the scale that the run had, with two learning rates; None at the end of what may be tried.

    With alpha / r as it was the rate falls with the root of the rank (facts LR5, S2); alpha of rank-stabilised scaling stays.
    """
    if run.rank is None:
        return None
    rank = next_rank(view, run.rank)
    if rank <= run.rank:
        return None
    alpha = ALPHA_PER_RANK * rank if run.alpha is None else run.alpha if run.use_rslora else run.alpha * rank / run.rank
    higher = next_run(run, rank=rank, alpha=alpha, targets=run.targets or (ALL_LINEAR,))
    if run.learning_rate is None:
        return higher
    rate = rate_for(run.learning_rate, run, higher)
    return higher.model_copy(update={"learning_rates": (rounded(rate), rounded(rate / 2))})


def cut_cost(view: View) -> tuple[float, float] | None:
    """What the adapter cut to half its rank lost when it was scored, and the standard error of that; None where nobody scored one.

    A spectrum alone says nothing of it: energies of .97 went with eleven points lost.
    """
    adapter, run, score = view.facts.adapter, view.run, view.current_score
    cut = None if adapter is None else view.level(adapter.truncated_score)
    if adapter is None or cut is None or score is None or adapter.rank != run.rank or adapter.truncated_rank is None:
        return None
    if adapter.truncated_rank > (run.rank or 0) / 2:
        return None
    error = view.noise.of_items(run, score)
    return score - cut, 2**0.5 * (error if error is not None else view.noise.floor)


def rank_is_unused(view: View) -> bool:
    """Cut to half its rank and scored, the adapter is as good within a standard error (fact P1)."""
    cut = cut_cost(view)
    return cut is not None and cut[0] <= cut[1]


def capacity_suspected(view: View) -> bool:
    """The ratio is below one, the curves are flat and close, the last step led, or cutting the adapter cost points."""
    rho, shown, cut = view.rho(view.run.rank, view.run), step_to_here(view), cut_cost(view)
    led = shown is not None and shown.difference.leads
    used = cut is not None and cut[0] > 2 * cut[1]
    return (rho is not None and rho < threshold("rho_suspect")) or is_flat_and_close(view.run) or led or used


def _reason(view: View, won: RankStep | None) -> str:
    run, rho, cut = view.run, view.rho(view.run.rank, view.run), cut_cost(view)
    parts = []
    if won is not None:
        gained = show_gap(view, won.difference.delta)
        parts.append(f"{won.ranks} gained {gained} ({won.difference.z:.1f} standard errors) {won.how}")
    if rho is not None:
        meaning = "below 1: capacity is suspected" if rho < threshold("rho_suspect") else "between 1 and 4: worth one test"
        parts.append(f"rank {run.rank} has {rho:.2g} LoRA parameters per training token, {meaning}")
    if is_flat_and_close(run):
        parts.append("training and evaluation loss are flat and close: what is left is not learned")
    if cut is not None and cut[0] > 2 * cut[1]:
        parts.append(f"cutting the adapter in half cost {show_gap(view, cut[0])}: its rank is in full use, which alone proves nothing")
    return "; ".join(parts) or f"learning rate, scale, targets and duration are closed; whether rank {run.rank} limits is untested"


def _gain(run: RunFacts) -> Gain:
    """The published step nearest below the run's rank."""
    nearest = max((rank for rank in (8, 16, 32, 64) if rank <= (run.rank or 8)), default=8)
    return move(f"rank_{nearest}").gain


def _missing(view: View) -> tuple[str, ...]:
    run = view.run
    missing = []
    if view.rho(run.rank, run) is None:
        missing.append("the number of unique training tokens and the model's shape, for the capacity ratio")
    if not run.eval_losses:
        missing.append("the loss curves")
    if cut_cost(view) is None:
        missing.append("the score of the adapter cut to half its rank (advise inspect --truncate)")
    if view.noise.items(run) is None and view.noise.error is None:
        missing.append("the number of held-out items")
    return tuple(missing)
