"""Whether the rank is the limit: the capacity ratio, what rank steps have shown, and what the next one could bring.

rho = LoRA parameters / unique training tokens (facts C1, C4, C17). A step counts only where its learning rate was tuned anew: frozen
rates mislead both ways (facts C10, C11, C19).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log2

from advisor.evidence.alike import same_but
from advisor.evidence.identity import same_length
from advisor.evidence.noise import Difference
from advisor.evidence.rates import is_swept, rates_of
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.stacks.spelling import same_rate
from advisor.values.evidence import RunFacts


@dataclass(frozen=True, slots=True)
class RankStep:
    """Two runs that differ in rank (and alpha): the lower one, the higher one, and the difference."""

    low: RunFacts
    high: RunFacts
    difference: Difference
    retuned: bool
    """The higher rank got learning rates of its own."""

    @property
    def ranks(self) -> str:
        return f"rank {self.low.rank} to {self.high.rank}"

    @property
    def how(self) -> str:
        """At which learning rate the higher rank ran."""
        if self.retuned:
            return "with its own learning rate"
        same = same_rate(self.low.learning_rate, self.high.learning_rate)
        return "at the same learning rate" if same else "at another learning rate, which was not tuned"


def rank_steps(view: View) -> tuple[RankStep, ...]:
    """Every pair of neighbouring ranks of one set-up, the best run of each on the same data for as many epochs, smallest first."""
    best: dict[int, RunFacts] = {}
    for run in sorted(_of_the_focus(view), key=lambda run: view.score(run) or 0.0):
        assert run.rank is not None
        best[run.rank] = run
    ranks = sorted(best)
    return tuple(_step(view, best[low], best[high]) for low, high in pairwise(ranks))


def _of_the_focus(view: View) -> list[RunFacts]:
    run = view.run
    others = (other for other in view.facts.runs if other.rank is not None and other.data_fraction == run.data_fraction)
    alike = (other for other in others if same_but(other, run, "rank", "alpha", "use_rslora") and same_length(other, run))
    return [other for other in alike if view.score(other) is not None]


def _step(view: View, low: RunFacts, high: RunFacts) -> RankStep:
    difference = view.compare(low, high)
    assert difference is not None
    own_rates = high.lr_tuned or len(rates_of(view, high).known) > 1
    return RankStep(low, high, difference, own_rates)


def tested_step(view: View) -> RankStep | None:
    """The last tuned step from the run's rank upwards."""
    steps = [step for step in rank_steps(view) if step.low.rank == view.run.rank and step.retuned]
    return steps[-1] if steps else None


def step_to_here(view: View) -> RankStep | None:
    """The tuned step that led to the run's rank."""
    steps = [step for step in rank_steps(view) if step.high.rank == view.run.rank and step.retuned]
    return steps[-1] if steps else None


def ample(rho: float) -> bool:
    """From here on to look elsewhere first. The threshold is soft: two digits of rho decide."""
    return float(f"{rho:.2g}") >= threshold("rho_ample")


def rho_largest(view: View) -> float | None:
    """Capacity ratio at the largest rank of the published comparisons: below 1 it is continued pre-training in scale."""
    return view.rho(int(gate("rank_largest")), view.focus)


def is_pretraining(view: View) -> bool:
    rho = rho_largest(view)
    return rho is not None and rho < threshold("rho_suspect")


def is_deep_pretraining(view: View) -> bool:
    rho = rho_largest(view)
    return rho is not None and rho < threshold("rho_deep_cpt")


def next_rank(view: View, rank: int) -> int:
    """One step of four, within what was ever measured and what serving allows."""
    return min(rank * int(gate("rank_step")), int(gate("rank_largest")), view.facts.rank_cap or int(gate("rank_largest")))


def predicted_gain(view: View) -> float | None:
    """What the next step of four would bring, from a straight line of the score in log2 of the tuned ranks; None with too few of them."""
    tuned: dict[int, float] = {}
    for run in _of_the_focus(view):
        score = view.score(run)
        if is_swept(view, run) and score is not None and run.rank is not None:
            tuned[run.rank] = max(score, tuned.get(run.rank, score))
    if len(tuned) < gate("rank_fit_points"):
        return None
    from advisor.statistics import slope_error

    slope, _ = slope_error(tuple(log2(rank) for rank in tuned), tuple(tuned.values()))
    return slope * log2(gate("rank_step"))
