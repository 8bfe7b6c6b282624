"""R5 and R6: the scale of the update (alpha, rank-stabilised scaling), and where the adapters sit."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.evidence.alike import differ_only, same_but
from advisor.evidence.identity import same_length
from advisor.evidence.lr import DEFAULT_CENTRE, offset, prior, rate_for, rounded, three_points
from advisor.evidence.published import move
from advisor.evidence.rates import is_certified
from advisor.evidence.result import LOW, MEDIUM, Result, next_run
from advisor.evidence.view import View, scale_of
from advisor.ladder.knowledge import gate
from advisor.ladder.learning_rate import show
from advisor.stacks.first_plan import ALPHA_PER_RANK
from advisor.stacks.spelling import same_rate
from advisor.values import ALL_LINEAR, Task
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

MLP_NAMES = (
    "gate",
    "up_proj",
    "down_proj",
    "fc",
    "mlp",
    "dense_h_to_4h",
    "dense_4h_to_h",
    "w1",
    "w2",
    "w3",
    "wi",
    "wo",
    "c_fc",
    "lin1",
    "lin2",
)
"""Beginnings of the names of feed-forward matrices, for models whose shape is not known."""


RSLORA_SLACK = 2.0
"""By how much the rate may exceed what rank-stabilised scaling wants before it is called left over from plain scaling. Judgement."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The run whose scale is off, why, and how sure that is."""

    run: RunFacts
    reason: str
    sure: Confidence


def scale_is_off(view: View) -> Result | None:
    """R5. Rank changed and alpha left behind, alpha far below the rank, alpha and rate raised together, or rank-stabilised scaling at
    the plain rate: each moves the size of the update without anybody having asked for it."""
    run = view.run
    if not run.method.has_adapter or is_certified(view, run):
        return None
    for found in (_left_behind(view, run), _far_below(run), _both_raised(view, run), _rslora(view, run)):
        if found is not None:
            return _rescale(view, found)
    return None


def _left_behind(view: View, run: RunFacts) -> _Found | None:
    """Two ranks at one alpha and one rate, and no gain from the higher one (fact S5)."""
    for other in view.facts.runs:
        if run.rank is None or other.rank is None or other.rank == run.rank or run.alpha is None or other.alpha != run.alpha:
            continue
        if not differ_only(run, other, "rank"):
            continue
        low, high = (run, other) if run.rank < other.rank else (other, run)
        difference = view.compare(low, high)
        if difference is None or not difference.wins:
            hurt = "hurt" if difference is not None and difference.loses else "gained nothing"
            reason = f"rank {high.rank} with rank {low.rank}'s alpha of {run.alpha:g} and learning rate {hurt}: its update was scaled down"
            return _Found(high, reason, MEDIUM)
    return None


def _far_below(run: RunFacts) -> _Found | None:
    scale = scale_of(run)
    if scale is None or run.use_rslora or scale >= gate("scale_low"):
        return None
    if (run.rank or 0) < gate("scale_rank") and scale >= gate("scale_far"):
        return None
    reason = f"alpha {run.alpha:g} at rank {run.rank} scales the update by {scale:.2g}, and no sweep at that scale made up for it"
    return _Found(run, reason, MEDIUM)


def _both_raised(view: View, run: RunFacts) -> _Found | None:
    """The same knob twice, and nothing gained (fact S6)."""
    for other in view.facts.runs:
        if not same_but(run, other, "alpha") or not same_length(run, other) or (not _above(run, other) and not _above(other, run)):
            continue
        low, high = (other, run) if _above(run, other) else (run, other)
        difference = view.compare(low, high)
        if difference is None or not difference.wins:
            return _Found(run, "alpha and the learning rate were raised together: for the update they are one knob", LOW)
    return None


def _above(first: RunFacts, second: RunFacts) -> bool:
    """Both alpha and the learning rate are higher."""
    if first.alpha is None or second.alpha is None or first.learning_rate is None or second.learning_rate is None:
        return False
    return first.alpha > second.alpha and first.learning_rate > second.learning_rate


def _rslora(view: View, run: RunFacts) -> _Found | None:
    """alpha / √rank instead of alpha / rank, at a rate that suits the latter (facts S4, LR11)."""
    known = prior(view, run)
    if not run.use_rslora or known is None or run.learning_rate is None:
        return None
    off = offset(run.learning_rate, known)
    if off.side == "low" or off.factor < RSLORA_SLACK:
        return None
    reason = f"rank-stabilised scaling raises the update by the root of the rank; {show(run.learning_rate)} suits plain scaling"
    return _Found(run, reason, LOW)


def _rescale(view: View, scaled: _Found) -> Result:
    """The usual scale, with the rates that belong to it: where the scale goes up, the rate does not."""
    run, rank = scaled.run, scaled.run.rank
    alpha = run.alpha if run.use_rslora or rank is None else ALPHA_PER_RANK * rank
    planned = next_run(run, alpha=alpha)
    known = prior(view, planned)
    rates = three_points(known.rate if known is not None else run.learning_rate or DEFAULT_CENTRE)
    found = move("scale")
    what = f"alpha to {alpha:g} at rank {rank}" if alpha is not None else "alpha to twice the rank"
    return Result(
        gate="R5",
        binding=Binding.SCALE,
        door=Door.STAY,
        confidence=scaled.sure,
        reason=f"run {run.label}: {scaled.reason}",
        experiment=f"Set {what} and sweep the learning rate anew: {', '.join(map(show, rates))}. Raise one or the other, never both.",
        run=planned.model_copy(update={"learning_rates": rates}),
        keep="Go on from the better of the two; call it a gain",
        gain=found.gain,
        odds=gate("odds_scale"),
        cost=found.price,
        evidence=("S1", "S4", "S5", "S6", "LR4", "LR5"),
        missing=() if run.alpha is not None else ("alpha of the run",),
    )


def mlp_is_bare(view: View) -> Result | None:
    """R6. No adapter on the feed-forward matrices, which is where most of the gain is (facts T1 to T4; T6 is the counter-example)."""
    run = view.run
    if not run.method.has_adapter or run.targets is None or view.facts.task is Task.EXTRACTION or has_mlp(view, run.targets):
        return None
    rank = equal_params_rank(view, run)
    found = move("targets")
    alpha = run.alpha if rank is None or run.alpha is None or run.rank is None else round(run.alpha * rank / run.rank, 3)
    planned = _at_its_rate(run, next_run(run, targets=(ALL_LINEAR,), rank=rank or run.rank, alpha=alpha))
    return Result(
        gate="R6",
        binding=Binding.TARGET_MODULES,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"run {run.label} adapts {', '.join(run.targets)} only: no adapter on the feed-forward layers",
        experiment=f"Adapt all linear layers at rank {rank}{f' and alpha {alpha:g}, the same scale' if alpha is not None else ''}, "
        f"which has as many parameters as before: what it gains is the placement's, not capacity's.{_rate_words(run, planned)}"
        if rank is not None
        else "Adapt all linear layers, with the rank lowered so that the adapter keeps its number of parameters.",
        run=planned,
        keep="Go on from the better of the two; call it a gain",
        gain=found.gain,
        odds=gate("odds_targets"),
        cost=found.price,
        evidence=("T1", "T2", "T3", "T4", "T5", "LR5"),
        missing=() if rank is not None else ("the model's shape, to keep the number of parameters",),
    )


def _at_its_rate(run: RunFacts, planned: NextRun) -> NextRun:
    """The planned run at what the run's learning rate comes to at the other rank (fact LR5): at the old one it is judged off its best."""
    if run.learning_rate is None:
        return planned
    return planned.model_copy(update={"learning_rates": (rounded(rate_for(run.learning_rate, run, planned)),)})


def _rate_words(run: RunFacts, planned: NextRun) -> str:
    if run.learning_rate is None or same_rate(planned.learning_rates[0], run.learning_rate):
        return ""
    return f" The learning rate goes with the rank, from {show(run.learning_rate)} to {show(planned.learning_rates[0])}."


def has_mlp(view: View, targets: tuple[str, ...]) -> bool:
    """Whether an adapter sits on a feed-forward matrix."""
    if targets == (ALL_LINEAR,):
        return True
    if view.facts.model is not None and view.facts.model.tables is not None:
        parts = {linear.part for block in view.facts.model.tables.blocks for linear in block.linears if linear.name in targets}
        if parts:
            return "mlp" in parts
    return any(name.lower().startswith(MLP_NAMES) for name in targets)


def equal_params_rank(view: View, run: RunFacts) -> int | None:
    """Rank at which all linear layers hold as many adapter parameters as the run's targets; None where the shape is not known."""
    if view.facts.model is None or run.rank is None:
        return None
    mine, every = view.per_rank(run.targets), view.per_rank((ALL_LINEAR,))
    return None if mine is None or every is None else max(1, round(run.rank * mine / every))
