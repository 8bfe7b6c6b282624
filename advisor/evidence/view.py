"""The facts as the gates read them: scores in one scale, the run to go on from, what is known of model, data and card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from advisor.evidence.alike import Setup, setup
from advisor.evidence.noise import Difference, Noise
from advisor.ladder.first_run import pilot_share
from advisor.ladder.knowledge import gate, threshold
from advisor.memory.params import known_adapter_params
from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH, FIRST_SEQ_LEN_TOKENS
from advisor.units import format_rough_share, format_share
from advisor.values import ALL_LINEAR, Method, Plan, Task
from advisor.values.contradictions import PERCENT, unit_of
from advisor.values.evidence import Facts, RunFacts

COST = {Method.LORA: 0, Method.QLORA: 1, Method.DORA: 2, Method.QDORA: 3, Method.FULL: 4}
"""The ladder's order, cheapest first."""
ARITHMETIC = (Task.MATH, Task.CODE)


@dataclass(frozen=True, slots=True)
class Repeats:
    """One run as often as it was done."""

    runs: tuple[RunFacts, ...]
    mean: float | None
    """Of the scores; None where there is none."""
    spread: float | None
    """Standard deviation of the scores; None with fewer than three."""


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

    @cached_property
    def by_setup(self) -> dict[Setup, tuple[RunFacts, ...]]:
        """The runs of each set-up, in their order: what keeps an answer linear in the number of runs."""
        groups: dict[Setup, list[RunFacts]] = {}
        for run in self.facts.runs:
            groups.setdefault(setup(run), []).append(run)
        return {key: tuple(runs) for key, runs in groups.items()}

    @cached_property
    def _groups(self) -> dict[Setup, Repeats]:
        """Runs that were done again, each group with the mean and the spread of its scores."""
        groups: dict[Setup, list[RunFacts]] = {}
        for run in self.facts.runs:
            if not run.oom:
                groups.setdefault(_repeated(run), []).append(run)
        return {key: self._together(tuple(runs)) for key, runs in groups.items()}

    @cached_property
    def _group_of(self) -> dict[int, Repeats]:
        """The group of each run of these facts, by identity."""
        return {id(run): group for group in self._groups.values() for run in group.runs}

    def _group(self, run: RunFacts) -> Repeats:
        """The run with its repeats; one that is not among the facts, or ran out of memory, alone."""
        found = self._group_of.get(id(run)) or (None if run.oom else self._groups.get(_repeated(run)))
        return found if found is not None else self._together((run,))

    def _together(self, runs: tuple[RunFacts, ...]) -> Repeats:
        scores = [score for run in runs if (score := self._one_score(run)) is not None]
        mean = sum(scores) / len(scores) if scores else None
        spread = None
        if mean is not None and len(scores) >= gate("repeats"):
            spread = float((sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5)
        return Repeats(runs, mean, spread)

    @cached_property
    def memo(self) -> dict[object, object]:
        """What other modules have worked out of these facts already."""
        return {}

    def score(self, run: RunFacts) -> float | None:
        """Mean of the run and its repeats."""
        return self._group(run).mean

    def _one_score(self, run: RunFacts) -> float | None:
        if run.score is None and run.correct:
            return sum(run.correct) / len(run.correct)
        return self.level(run.score)

    def repeats(self, run: RunFacts) -> tuple[RunFacts, ...]:
        """Runs of the same set-up, learning rate and data, the run itself among them."""
        return self._group(run).runs

    def compare(self, first: RunFacts, second: RunFacts) -> Difference | None:
        """Second minus first; None where one has no score."""
        a, b = self.score(first), self.score(second)
        if a is None or b is None:
            return None
        spread = self.spread(first, second)
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
        return self.noise.total(run, 0.5 if score is None else score, len(repeats), self.spread(run))

    def spread(self, *runs: RunFacts) -> float:
        """Spread of re-runs: measured where a run was repeated often enough, else the published floor."""
        known = (self._group(run).spread for run in runs)
        return next((spread for spread in known if spread is not None), self.noise.floor)

    @property
    def items_known(self) -> bool:
        """Whether it is known how far the present score wavers: without that no difference is sure."""
        return not self.noise.shares or self.noise.of_items(self.run, self.current_score or 0.5) is not None

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

    @cached_property
    def sweep_share(self) -> float:
        """Share of the data that a pilot needs: a quarter, or less where that is more steps than a sweep takes to decide."""
        batch, length = self._step_size
        epochs = 1.0 if self.focus is None or self.focus.epochs is None else self.focus.epochs
        return max(pilot_share(self.tokens, batch, length, epochs), self._share_of_enough_steps())

    @cached_property
    def _step_size(self) -> tuple[int, float]:
        """Sequences of an optimizer step, and tokens of a sequence."""
        run = self.focus
        batch = FIRST_EFFECTIVE_BATCH if run is None or run.batch is None else run.batch
        length = float(FIRST_SEQ_LEN_TOKENS if run is None or run.seq_len is None else run.seq_len)
        return batch, length if self.facts.mean_tokens is None else min(length, self.facts.mean_tokens)

    def _share_of_enough_steps(self) -> float:
        """Share of small data on which a pilot is no short run, whose best rate is another (fact LR2)."""
        run, examples = self.focus, self.facts.examples
        if run is None or examples is None or run.epochs is None:
            return 0.0
        steps = examples * run.epochs / (run.batch or FIRST_EFFECTIVE_BATCH)
        return min(1.0, float(f"{gate('lr_short_steps') / steps:.1g}"))

    def sweep_words(self, share: float, epochs: float | None = None) -> str:
        """Return "at least 25 % of the data", or a smaller share with the steps that it comes to."""
        quarter = threshold("sweep_data_share")
        if share >= quarter or self.tokens is None:
            return f"{'at least ' if share <= quarter else ''}{format_share(share)} of the data"
        batch, length = self._step_size
        run_epochs = self.focus.epochs if self.focus is not None else None
        steps = share * self.tokens * (epochs or run_epochs or 1.0) / (batch * length)
        enough = ", enough to tell rates apart" if steps >= threshold("sweep_steps") / 2 else ""
        return f"{format_rough_share(share)} of the data (about {float(f'{steps:.2g}'):,.0f} steps each{enough})"

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


def scale_of(run: RunFacts) -> float | None:
    """The factor before the adapter's product: alpha / r, or alpha / √r where it is rank-stabilised (peft 0.21 tuners/lora/layer.py)."""
    if run.alpha is None or run.rank is None:
        return None
    return float(run.alpha / (run.rank**0.5 if run.use_rslora else run.rank))


def _repeated(run: RunFacts) -> Setup:
    """What runs share that were done again."""
    return (*setup(run), run.learning_rate, run.data_fraction, run.epochs, run.steps)
