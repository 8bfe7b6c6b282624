"""Timed runs (`profiles/times/`) beside the times that rates of other sources give for them."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from statistics import median
from typing import NamedTuple

from advisor import profiles
from advisor.architectures import spec_from_config
from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.profiles.rates import LeftOut, TimedRun, TimedRuns
from advisor.refusals import boundary
from advisor.speed import relative_step_time
from advisor.values import GpuSpec, Method, ModelSpec, Plan, Value


class Timed(NamedTuple):
    """A timed run as the formulas read it."""

    run: TimedRun
    of: TimedRuns
    model: ModelSpec
    plan: Plan
    gpu: GpuSpec

    @property
    def seconds(self) -> float:
        """Of one optimizer step."""
        return self.plan.tokens_per_step / self.plan.n_gpus / self.run.tokens_per_s_per_gpu


class TimeCoverage(Value):
    """How often ranges hold the times of runs that were left out when their rates were fitted."""

    what: str
    """Where the rates came from, or which method is held against LoRA."""
    runs: int
    groups: int
    """Sources and cards."""
    inside: float
    median_width: float
    """Upper over lower end."""
    median_error: float
    """Of what is expected, absolute."""
    on_the_wrong_side: int | None = None
    """Of methods: pairs that were measured slower than LoRA and are expected to be faster."""


SOURCES = {
    "several": "cards that several sources timed; the run's source left out",
    "one or none": "other cards, as if no run of them were known",
}


def timed_runs() -> Iterator[Timed]:
    """Every run of `profiles/times/`, those listed apart too. Raises InvalidInputError for a row that is no plan."""
    for group in profiles.rows("times", TimedRuns):
        gpu = load_gpu(group.card)
        for run in group.runs:
            model = spec_from_config(run.config, id=run.model, source=group.source) if run.config else load_model(run.model)
            with boundary(run.id):
                plan = Plan.model_validate({**group.plan, **run.plan})
            yield Timed(run, group, model, plan, gpu)


def time_coverages() -> tuple[TimeCoverage, ...]:
    """Of seconds, by what the rates rest on; then of the multiples of LoRA's time, by method."""
    rows = profiles.rows("rates/left_out", LeftOut)
    seconds = (_coverage(words, [row for row in rows if row.sources == sources]) for sources, words in SOURCES.items())
    pairs = [*method_pairs()]
    methods = dict.fromkeys(pair.slow.plan.method for pair in pairs)
    return *seconds, *(_pairs_coverage(method, [pair for pair in pairs if pair.slow.plan.method is method]) for method in methods)


def _coverage(what: str, rows: list[LeftOut]) -> TimeCoverage:
    return TimeCoverage(
        what=what,
        runs=len(rows),
        groups=len({row.group for row in rows}),
        inside=sum(row.inside for row in rows) / len(rows),
        median_width=median(row.high_s / row.low_s for row in rows),
        median_error=median(abs(row.measured_s / row.expected_s - 1) for row in rows),
    )


class MethodPair(NamedTuple):
    """Two runs of one source that differ in the method alone."""

    slow: Timed
    lora: Timed
    low: float
    high: float

    @property
    def measured(self) -> float:
        return self.slow.seconds / self.lora.seconds

    @property
    def expected(self) -> float:
        return sqrt(self.low * self.high)


def method_pairs() -> Iterator[MethodPair]:
    """Every timed run beside the LoRA run with the same settings, where its source has one."""
    runs = [timed for timed in timed_runs() if not timed.of.apart]
    unit = {_but_method(timed): timed for timed in reversed(runs) if timed.plan.method is Method.LORA}
    for timed in runs:
        lora = unit.get(_but_method(timed))
        if lora is None or timed.plan.method is Method.LORA:
            continue
        adapter = {"rank": lora.plan.rank, "target_modules": lora.plan.target_modules}
        multiple = relative_step_time(timed.model, timed.plan.model_copy(update=adapter), timed.gpu)
        if multiple is not None:
            yield MethodPair(timed, lora, multiple.low, multiple.high)


def _but_method(timed: Timed) -> tuple[object, ...]:
    """What a pair of runs shares. In a source that repeats its runs over the years, the day as its ids end with it."""
    plan = timed.plan
    shapes = (plan.micro_batch_size, plan.seq_len_tokens, plan.grad_accum_steps, plan.n_gpus)
    day = timed.run.id[-10:-3] if timed.run.id[-10:].startswith("20") else ""
    return (
        timed.of.source,
        timed.of.place,
        timed.gpu.name,
        timed.model.id,
        *shapes,
        plan.loss,
        plan.autocast,
        plan.gradient_checkpointing,
        day,
    )


def _pairs_coverage(method: Method, pairs: list[MethodPair]) -> TimeCoverage:
    return TimeCoverage(
        what=f"{method.label} over LoRA, the same run otherwise",
        runs=len(pairs),
        groups=len({pair.slow.of.group for pair in pairs}),
        inside=sum(pair.low <= pair.measured <= pair.high for pair in pairs) / len(pairs),
        median_width=median(pair.high / pair.low for pair in pairs),
        median_error=median(abs(pair.measured / pair.expected - 1) for pair in pairs),
        on_the_wrong_side=sum(pair.measured >= 1 > pair.expected for pair in pairs),
    )
