"""Learning rates: the prior of a set-up, the sweep around it, and what being off costs. The prior itself is the ladder's."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import Literal

from advisor.evidence.published import curve
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import lora_prior, prior_by_size, recipe_of
from advisor.stacks.first_plan import ALPHA_PER_RANK
from advisor.values import Range
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Gain, NextRun

SAME_RATE = 0.15
"""Share by which two learning rates may differ and count as the same point of a sweep. Judgement: an eighth of a step of three."""
DEFAULT_CENTRE = 2e-4
"""Centre of a sweep where neither a prior nor a rate is known: QLoRA's tuned value at 7B and 13B (fact LR16)."""
SWEEP_REACH = 30.0
"""Factor off the prior up to which a sweep is laid on the run's own rate. Judgement: three steps of three."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A learning rate to start from, and the facts behind it."""

    rate: float
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a learning rate is from the prior."""

    factor: float
    side: Literal["low", "high"]

    @property
    def words(self) -> str:
        factor = f"{self.factor:,.0f}" if self.factor >= 10 else f"{self.factor:.2g}"
        return f"{factor} × {'below' if self.side == 'low' else 'above'}"


def prior(view: View, run: RunFacts | NextRun) -> Prior | None:
    """For the run's method and scaling; None where nothing is published: preference tuning."""
    if view.objective == "dpo":
        return None
    if view.objective == "rl":
        low, high = threshold("lr_rl_low"), threshold("lr_rl_high")
        start = Prior(sqrt(low * high), ("LR11",))
    else:
        start = _sft_prior(view)
    batch = 1.0 if view.objective == "rl" else _batch_factor(view, run.batch)
    return Prior(start.rate * batch * _factor(run), (*start.evidence, *_factor_evidence(run)))


def _sft_prior(view: View) -> Prior:
    """By the recipe or by size; without a model by QLoRA's value, which holds up to 13B."""
    model = view.facts.model
    if model is not None:
        return Prior(lora_prior(model), ("LR3", "LR17") if recipe_of(model) else ("LR16", "LR22"))
    return Prior(prior_by_size(view.params or 0), ("LR16", "LR22"))


def _batch_factor(view: View, batch: int | None) -> float:
    """Larger batches want a higher rate (fact LR14); the recipe for Llama and Qwen is silent on it and is left alone."""
    model = view.facts.model
    if batch is None or (model is not None and recipe_of(model)):
        return 1.0
    low, high = gate("lr_batch_low"), gate("lr_batch_high")
    return float((min(max(batch, low), high) / low) ** gate("lr_batch_power"))


def _factor(run: RunFacts | NextRun) -> float:
    factor = 1.0
    short = isinstance(run, RunFacts) and run.steps is not None and run.steps < gate("lr_short_steps")
    if not run.method.has_adapter:
        return 1 / (gate("full_divisor_short") / gate("lr_short_factor") if short else threshold("lr_full_divisor"))
    if short:
        factor *= gate("lr_short_factor")
    if run.init.lower() == "pissa":
        factor /= gate("lr_pissa_divisor")
    return factor * _scale_factor(run)


def _scale_factor(run: RunFacts | NextRun) -> float:
    """The rate falls with the root of the scale above the usual alpha / r of one half to two, and rises below it (facts LR4, LR5, S6).

    Rank-stabilised scaling at alpha = 2 × rank is 2 √r, so that its rate is a half to a quarter at ranks 16 to 256 (facts S4, LR11).
    """
    rank = run.rank
    if rank is None or (run.alpha is None and not run.use_rslora):
        return 1.0
    scale = (run.alpha or ALPHA_PER_RANK * rank) / (rank**0.5 if run.use_rslora else rank)
    usual = min(max(scale, gate("scale_low")), ALPHA_PER_RANK)
    return float((usual / scale) ** gate("lr_rank_power"))


def _factor_evidence(run: RunFacts | NextRun) -> tuple[str, ...]:
    names = []
    if not run.method.has_adapter:
        names.append("LR1")
    if run.use_rslora:
        names += ["S4", "LR11"]
    if run.init.lower() == "pissa":
        names.append("LR8")
    return tuple(names)


def offset(rate: float, known: Prior) -> Offset:
    return Offset(known.rate / rate, "low") if rate < known.rate else Offset(rate / known.rate, "high")


def three_points(centre: float) -> tuple[float, float, float]:
    """A third, itself, and three times it: reaches 96 to 100 % of a twelve-point grid (fact LR21)."""
    step = threshold("lr_sweep_factor")
    return (rounded(centre / step), rounded(centre), rounded(centre * step))


def around(centre: float, own: float | None) -> tuple[float, ...]:
    """Three points around `centre` that hold the run's own rate where it lies within reach, so that it is compared on the same data."""
    step = threshold("lr_sweep_factor")
    if own is None or not 1 / SWEEP_REACH <= own / centre <= SWEEP_REACH:
        return three_points(centre)
    return three_points(own * step ** round(log(centre / own, step)))


def without(rates: tuple[float, ...], known: tuple[float, ...]) -> tuple[float, ...]:
    """Rates that were not run yet."""
    return tuple(rate for rate in rates if not any(abs(rate / other - 1) <= SAME_RATE for other in known))


def rounded(rate: float) -> float:
    """Two digits, more than the prior knows."""
    return float(f"{rate:.1e}")


def rate_for(rate: float, old: RunFacts | NextRun, new: RunFacts | NextRun) -> float:
    """The best rate of one set-up carried to another: it falls with the root of rank × scale and rises with the batch.

    At a fixed alpha rank × scale stays, and so does the rate (fact LR4); where alpha grows with the rank the rate is halved for four times
    the rank (facts LR5, S2).
    """
    reach_old, reach_new = _reach(old), _reach(new)
    if reach_old is not None and reach_new is not None:
        rate *= (reach_old / reach_new) ** gate("lr_rank_power")
    if old.batch is not None and new.batch is not None and old.batch != new.batch:
        low, high = gate("lr_batch_low"), gate("lr_batch_high")
        clipped = [min(max(batch, low), high) for batch in (old.batch, new.batch)]
        rate *= (clipped[1] / clipped[0]) ** gate("lr_batch_power")
    return float(rate)


def _reach(run: RunFacts | NextRun) -> float | None:
    """Rank × scale: alpha, or alpha √r where it is rank-stabilised; an alpha that is not known is taken to follow the rank."""
    if run.rank is None:
        return None
    alpha = run.alpha or ALPHA_PER_RANK * run.rank
    return float(alpha * (run.rank**0.5 if run.use_rslora else 1.0))


def rate_on_more_data(rate: float, share: float) -> float:
    """The best rate of a sweep on a share of the data, carried to all of it: it falls by a third for four times the data (fact LR15)."""
    return float(rate * share ** gate("lr_data_power"))


def gain_from(off: Offset) -> Gain:
    """What coming back to the best rate is worth, read off the published response (facts LR6, LR20)."""
    name, spread = f"lr_too_{off.side}", gate("lr_gain_spread")
    low, high = curve(name, max(1.0, off.factor / spread)), curve(name, off.factor * spread)
    points = Range(low=round(low, 1), high=round(max(low, high), 1), source="LR6, LR20")
    side = "low" if off.side == "low" else "high"
    return Gain(points=points, conditions=f"a learning rate {off.factor:.2g} × too {side}, Gemma-3-1B math", evidence=("LR6", "LR20"))
