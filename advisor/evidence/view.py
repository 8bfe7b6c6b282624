"""The facts as the gates read them: scores in one scale, the run to go on from, what is known of model, data and card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from advisor.evidence.noise import Difference, Noise
from advisor.evidence.published import gate
from advisor.memory.params import known_adapter_params
from advisor.values import ALL_LINEAR, Method, Plan, Task
from advisor.values.contradictions import PERCENT, unit_of
from advisor.values.evidence import Facts, RunFacts

COST = {Method.LORA: 0, Method.QLORA: 1, Method.DORA: 2, Method.QDORA: 3, Method.FULL: 4}
"""The ladder's order, cheapest first."""
ARITHMETIC = (Task.MATH, Task.CODE)
SETUP = ("method", "rank", "alpha", "use_rslora", "init", "targets", "batch", "quantization")
"""What two runs must share for their learning rates to be one sweep."""


@dataclass(frozen=True)
class View:
    """Facts, and what follows from them alone. Scores are shares (or the metric's own unit), higher always better."""

    facts: Facts
    focus: RunFacts | None = None
    """The run to go on from."""

    @cached_property
    def unit(self) -> str:
        return unit_of(self.facts)

    @cached_property
    def noise(self) -> Noise:
        shares = self.unit != "raw"
        evaluation = self.facts.evaluation
        error = None if evaluation.standard_error is None else self.scaled(evaluation.standard_error)
        return Noise(shares=shares, n=evaluation.n, error=error, floor=gate("rerun_floor") if shares else 0.0)

    def scaled(self, value: float) -> float:
        return value / PERCENT if self.unit == "percent" else value

    def level(self, value: float | None) -> float | None:
        """A score as a share, turned so that higher is better."""
        if value is None:
            return None
        return self.scaled(value) if self.facts.evaluation.higher_is_better else -self.scaled(value)

    def score(self, run: RunFacts) -> float | None:
        """Mean of the run and its repeats."""
        scores = [self._one_score(repeat) for repeat in self.repeats(run)]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else None

    def _one_score(self, run: RunFacts) -> float | None:
        if run.score is None and run.correct:
            return sum(run.correct) / len(run.correct)
        return self.level(run.score)

    def repeats(self, run: RunFacts) -> tuple[RunFacts, ...]:
        """Runs of the same set-up, learning rate and data, the run itself among them."""
        same = tuple(other for other in self.facts.runs if other is not run and _is_repeat(other, run) and not other.oom)
        return (run, *same)

    def compare(self, first: RunFacts, second: RunFacts) -> Difference | None:
        """Second minus first; None where one has no score."""
        a, b = self.score(first), self.score(second)
        if a is None or b is None:
            return None
        spread = self._spread(first, second)
        return self.noise.difference((first, a, len(self.repeats(first))), (second, b, len(self.repeats(second))), spread)

    def beats(self, first: RunFacts, second: RunFacts) -> bool:
        """The second run is better beyond the noise. A costlier rung is not believed on few items unless it is better by far."""
        difference = self.compare(first, second)
        if difference is None or not difference.wins:
            return False
        climbs = COST[second.method] > COST[first.method] and self.noise.shares
        n = min(self.noise.items(first) or 0, self.noise.items(second) or 0)
        return not climbs or n == 0 or n >= gate("few_items") or difference.delta > gate("few_items_gap")

    def error(self, run: RunFacts) -> float:
        """Standard error of the run's score, with the spread of re-runs."""
        score = self.score(run)
        repeats = self.repeats(run)
        return self.noise.total(run, 0.5 if score is None else score, len(repeats), self._spread(run))

    def _spread(self, *runs: RunFacts) -> float:
        """Spread of re-runs: measured where a run was repeated often enough, else the published floor."""
        for run in runs:
            scores = [score for repeat in self.repeats(run) if (score := self._one_score(repeat)) is not None]
            if len(scores) >= gate("repeats"):
                mean = sum(scores) / len(scores)
                return float((sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5)
        return self.noise.floor

    @cached_property
    def target(self) -> float | None:
        return self.level(self.facts.evaluation.target)

    @cached_property
    def base(self) -> float | None:
        return self.level(self.facts.evaluation.base)

    @property
    def run(self) -> RunFacts:
        """The run to go on from, where there is one."""
        assert self.focus is not None
        return self.focus

    @cached_property
    def current_score(self) -> float | None:
        return None if self.focus is None else self.score(self.focus)

    @cached_property
    def gap(self) -> float | None:
        """Target minus score; None where either is unknown."""
        if self.target is None or self.current_score is None:
            return None
        return self.target - self.current_score

    @cached_property
    def objective(self) -> Literal["sft", "dpo", "rl"]:
        return self.facts.objective or ("rl" if self.facts.task is Task.RL else "sft")

    @cached_property
    def params(self) -> int | None:
        return self.facts.model.params if self.facts.model is not None else self.facts.params

    @property
    def is_small(self) -> bool:
        """Of the sizes at which 4 bit was measured to cost points; an unknown size counts, as most models that are tuned are small."""
        return self.params is None or self.params < gate("quantised_small")

    @property
    def is_arithmetic(self) -> bool:
        return self.facts.task in ARITHMETIC

    @cached_property
    def tokens(self) -> int | None:
        """Unique training tokens."""
        facts = self.facts
        if facts.dataset_tokens is not None:
            return facts.dataset_tokens
        if facts.examples is not None and facts.mean_tokens is not None:
            return round(facts.examples * facts.mean_tokens)
        return None

    def per_rank(self, targets: tuple[str, ...] | None, run: RunFacts | None = None) -> int | None:
        """LoRA parameters per unit of rank over `targets` (fact T7)."""
        if self.facts.model is not None:
            found = known_adapter_params(self.facts.model, Plan(rank=1, alpha=1, target_modules=targets or (ALL_LINEAR,)))
            if found:
                return found
        if run is not None and run.adapter_params is not None and run.rank is not None:
            return run.adapter_params // run.rank or None
        return self.facts.params_per_rank

    def rho(self, rank: int | None, run: RunFacts | None) -> float | None:
        """Capacity ratio: LoRA parameters at `rank` over unique training tokens; None where either is unknown (facts C1, C4)."""
        per_rank = self.per_rank(run.targets if run is not None else None, run)
        if rank is None or per_rank is None or self.tokens is None:
            return None
        return rank * per_rank / self.tokens

    @property
    def few_items(self) -> bool:
        """Too few items, or an unknown number, to decide a climb on; a gap far beyond the noise may be acted on nevertheless."""
        if not self.noise.shares:
            return self.noise.error is None
        if self.gap is not None and self.gap > gate("few_items_gap"):
            return False
        n = self.noise.items(self.run) if self.focus is not None else self.facts.evaluation.n
        return n is None or n < gate("few_items")


def setup(run: RunFacts) -> tuple[object, ...]:
    """Everything but the learning rate, the data and the seed."""
    values = run.model_copy(update={"targets": None if run.targets is None else tuple(sorted(run.targets))})
    return tuple(getattr(values, name) for name in SETUP)


def same_but(first: RunFacts, second: RunFacts, *names: str) -> bool:
    """The set-ups differ in nothing but `names`."""
    pairs = zip(SETUP, setup(first), setup(second), strict=True)
    return all(a == b for name, a, b in pairs if name not in names)


def same_rate(first: RunFacts, second: RunFacts) -> bool:
    return first.learning_rate == second.learning_rate


def _is_repeat(first: RunFacts, second: RunFacts) -> bool:
    shared = setup(first) == setup(second) and same_rate(first, second)
    return shared and first.data_fraction == second.data_fraction and first.epochs == second.epochs and first.steps == second.steps
