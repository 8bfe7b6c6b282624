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
from advisor.evidence.gates_scale import step_rates
from advisor.evidence.losses import is_flat_and_close
from advisor.evidence.pricing import fits_surely
from advisor.evidence.published import gate, move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import threshold
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import ALPHA_PER_RANK
from advisor.values import ALL_LINEAR
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, Gain, NextRun

ORDER = (
    "The ladder's next door for a rank that limits is DoRA; the evidence says one rank step with its own learning rate first, as DoRA has "
    "the same rank budget and gained 0.1 to 0.65 points (C8, D15)."
)


def rank_may_limit(view: View) -> Result | None:
    """R9. Capacity is suspected, or was shown by the last step; the next step of four decides, within 256 and a ratio of 4."""
    run = view.run
    won_before = tested_step(view)
    if won_before is not None and won_before.difference.wins:
        return _take_the_step(view, won_before)
    if not may_test_rank(view) or run.rank is None:
        return None
    planned = step_run(view, run)
    if planned is None or fits_surely(view, planned) is False:
        return None  # the rank cannot grow: R10 and R12 ask what that leaves
    shown = step_to_here(view)
    won = shown is not None and shown.difference.wins
    return Result(
        gate="R9",
        binding=Binding.CAPACITY,
        door=Door.STAY,
        confidence=HIGH if won else _confidence(view),
        reason=_reason(view, shown if won else None),
        experiment=f"Train rank {planned.rank} once, alpha {planned.alpha:g}, on all linear layers, at learning rates "
        f"{' and '.join(map(show, planned.learning_rates))}, on the same data for the same epochs."
        + (
            ""
            if won or view.facts.adapter is not None
            else f" First, for free: cut the adapter to rank {max(1, run.rank // 2)} and score it."
        ),
        run=planned,
        accept=accept(view, f"Keep rank {planned.rank}"),
        gain=_gain(run),
        cost=move("rank_16").price,
        evidence=("C1", "C4", "C8", "C17", "C20", "LR5", "P1"),
        missing=_missing(view),
        disagreement=ORDER,
        is_door=True,
    )


def _take_the_step(view: View, step: RankStep) -> Result:
    """The test has been run from here, and the higher rank won."""
    gained = show_gap(view, step.difference.delta)
    return Result(
        gate="R9",
        binding=Binding.CAPACITY,
        door=Door.STAY,
        confidence=HIGH,
        reason=f"{step.ranks} gained {gained} ({step.difference.z:.1f} standard errors) with its own learning rate: the rank was the limit",
        experiment=f"Go on from rank {step.high.rank} (run {step.high.label}) and judge everything else from there.",
        run=next_run(step.high),
        accept=accept(view, f"Keep rank {step.high.rank}"),
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
    """One step of four with alpha at twice the rank and two learning rates; None at the end of what may be tried."""
    if run.rank is None:
        return None
    rank = next_rank(view, run.rank)
    if rank <= run.rank:
        return None
    rates = step_rates(run.learning_rate, run.rank, rank) if run.learning_rate is not None else ()
    return next_run(run, rank=rank, alpha=ALPHA_PER_RANK * rank, targets=(ALL_LINEAR,), learning_rates=rates)


def rank_is_unused(view: View) -> bool:
    """The adapter cut to half its rank is as good: it does not use what it has (fact P1)."""
    adapter, run = view.facts.adapter, view.run
    if adapter is None or adapter.rank != run.rank:
        return False
    cut = view.level(adapter.truncated_score)
    score = view.current_score
    if cut is not None and score is not None and adapter.truncated_rank is not None and adapter.truncated_rank <= (run.rank or 0) / 2:
        return score - cut <= view.noise.total(run, score, 1, 0.0)
    return adapter.energy_at_half is not None and adapter.energy_at_half >= gate("energy_unused")


def rank_in_full_use(view: View) -> bool:
    adapter, run = view.facts.adapter, view.run
    if adapter is None or adapter.rank != run.rank:
        return False
    cut, score = view.level(adapter.truncated_score), view.current_score
    if cut is not None and score is not None:
        return score - cut > 2 * view.noise.total(run, score, 1, 0.0)
    return adapter.energy_at_half is not None and adapter.energy_at_half <= gate("energy_used")


def capacity_suspected(view: View) -> bool:
    """The ratio is below one, the curves are flat and close, or the last step won."""
    rho = view.rho(view.run.rank, view.run)
    shown = step_to_here(view)
    won = shown is not None and shown.difference.wins
    return (rho is not None and rho < threshold("rho_suspect")) or is_flat_and_close(view.run) or won


def _confidence(view: View) -> Confidence:
    return MEDIUM if capacity_suspected(view) else LOW


def _reason(view: View, won: RankStep | None) -> str:
    run, rho = view.run, view.rho(view.run.rank, view.run)
    parts = []
    if won is not None:
        gained = show_gap(view, won.difference.delta)
        parts.append(f"{won.ranks} gained {gained} ({won.difference.z:.1f} standard errors) with its own learning rate")
    if rho is not None:
        meaning = "below 1: capacity is suspected" if rho < threshold("rho_suspect") else "between 1 and 4: worth one test"
        parts.append(f"rank {run.rank} has {rho:.2g} LoRA parameters per training token, {meaning}")
    if is_flat_and_close(run):
        parts.append("training and evaluation loss are flat and close: what is left is not learned")
    if rank_in_full_use(view):
        parts.append("cutting the adapter in half costs: its rank is in full use, which alone proves nothing")
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
    if view.facts.adapter is None:
        missing.append("the adapter's spectrum (advise inspect), and its score cut to half the rank")
    if view.noise.items(run) is None and view.noise.error is None:
        missing.append("the number of held-out items")
    return tuple(missing)
