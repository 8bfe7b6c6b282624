"""How much of a difference is noise: items, shared items, re-runs. Errors add in quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from advisor.ladder.knowledge import gate
from advisor.statistics import SIGNIFICANCE, mcnemar, paired, paired_error, share_error
from advisor.values.evidence import RunFacts

Scored = tuple[RunFacts, float, int]
"""A run, its score, and how many repeats that is the mean of."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Second run minus first, and how far it can be trusted."""

    delta: float
    error: float
    paired: bool = False
    p_value: float | None = None
    """McNemar's, where the items are known."""
    items_known: bool = True

    @property
    def wins(self) -> bool:
        """The second run is better by the standard errors that count."""
        return self.delta > 0 and self._counts

    @property
    def leads(self) -> bool:
        """The second run is better by a standard error: among runs of one price that is enough to go on from it, and no proof."""
        return self.delta > 0 and self.delta >= self.error

    @property
    def loses(self) -> bool:
        return self.delta < 0 and self._counts

    @property
    def _counts(self) -> bool:
        beyond = abs(self.delta) >= gate("compare_z") * self.error
        return beyond and (self.p_value is None or self.p_value <= SIGNIFICANCE)

    @property
    def is_noise(self) -> bool:
        return not self.wins and not self.loses

    @property
    def z(self) -> float:
        return abs(self.delta) / self.error if self.error > 0 else float("inf") if self.delta else 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of the evaluation's noise, in the scale of the scores."""

    shares: bool
    n: int | None
    error: float | None
    floor: float
    """Spread of the same run done again (fact N2)."""

    def items(self, run: RunFacts) -> int | None:
        return len(run.correct) or run.n or self.n

    def of_items(self, run: RunFacts, score: float) -> float | None:
        """Standard error from the items alone; None where their number is not known."""
        if self.error is not None:
            return self.error
        n = self.items(run)
        return share_error(abs(score), n) if self.shares and n is not None else None

    def total(self, run: RunFacts, score: float, repeats: int, spread: float) -> float:
        """With the spread of re-runs, which repeats average down; items are the same ones each time and do not average."""
        return sqrt((self.of_items(run, score) or 0.0) ** 2 + spread**2 / repeats)

    def difference(self, first: Scored, second: Scored, spread: float) -> Difference:
        """Second minus first. The spread of re-runs enters once: four re-runs of LoRA differed pairwise by about as much (fact N2)."""
        (run_a, score_a, repeats_a), (run_b, score_b, repeats_b) = first, second
        reruns = spread**2 * (1 / repeats_a + 1 / repeats_b) / 2
        shared = _shared_items(run_a, run_b)
        if shared is not None:
            pair = paired(*shared)
            error = sqrt(paired_error(pair) ** 2 + reruns)
            return Difference(score_b - score_a, error, paired=True, p_value=mcnemar(pair))
        a, b = self.of_items(run_a, score_a), self.of_items(run_b, score_b)
        error = sqrt((a or 0.0) ** 2 + (b or 0.0) ** 2 + reruns)
        return Difference(score_b - score_a, error, items_known=a is not None and b is not None)

    def to_come(self, run: RunFacts, score: float, repeats: int, seeds: int, spread: float) -> float | None:
        """Standard error of the difference between the run and one that is still to be made, as `difference` will have it; None where
        the items are not known."""
        variance = self._items_variance(run, score)
        return None if variance is None else sqrt(variance + spread**2 * (1 / repeats + 1 / seeds) / 2)

    def _items_variance(self, run: RunFacts, score: float) -> float | None:
        if run.correct:
            return gate("discordant") / len(run.correct)
        own = self.of_items(run, score)
        return None if own is None else 2 * own**2


def _shared_items(first: RunFacts, second: RunFacts) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """Results of both runs on the items that both were scored on, in one order; None where there are none."""
    if not first.correct or not second.correct:
        return None
    if first.item_ids and second.item_ids:
        by_id = dict(zip(second.item_ids, second.correct, strict=True))
        both = [(mine, by_id[item]) for item, mine in zip(first.item_ids, first.correct, strict=True) if item in by_id]
        return (tuple(a for a, _ in both), tuple(b for _, b in both)) if both else None
    return (first.correct, second.correct) if len(first.correct) == len(second.correct) else None
