"""Predicted against measured: every row, every metric, like with like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pydantic import computed_field

from advisor.accuracy.comparisons import Comparison, Summary, by_release, residuals_of, summarise
from advisor.accuracy.intervals import Coverage, coverages
from advisor.accuracy.plans import plan_of
from advisor.accuracy.replays import replay_coverages, replayed_like
from advisor.accuracy.rows import Measurement, Metric, Reading, measurements
from advisor.accuracy.tiers import CLOSED_FORM, DRY_RUN, MeasuredPlan, kind_of_run
from advisor.accuracy.times import TimeCoverage, time_coverages
from advisor.architectures.cut import first_layers
from advisor.devices import load_gpu
from advisor.errors import AdvisorError, UnsupportedError
from advisor.ladder import classify
from advisor.memory.kinds import kind_of
from advisor.values import Fit, GpuSpec, MemoryBreakdown, ModelSpec, Value
from advisor.values.memory import Computed

Estimator = Callable[[MeasuredPlan], MemoryBreakdown]
Resolver = Callable[[str], ModelSpec]


class BoundaryCheck(Computed):
    """A run that completed or ran out of memory, beside what the estimate says of it."""

    id: str
    group: str
    kind: str
    """What was run, in words."""
    measured_fits: bool
    predicted: Fit
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    usable_bytes: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def unsafe(self) -> bool:
        """Out of memory in truth, a fit by the estimate: the error that costs a user money."""
        return not self.measured_fits and self.predicted is Fit.FITS

    @computed_field  # type: ignore[prop-decorator]
    @property
    def refused(self) -> bool:
        """Completed in truth, no fit by the estimate."""
        return self.measured_fits and self.predicted is Fit.DOES_NOT_FIT


class NotScored(Value):
    id: str
    source: str
    reason: str


class AccuracyReport(Computed):
    """What `advise accuracy` prints of one tier."""

    tier: str
    """estimate: the closed form. trace: the dry run."""
    comparisons: tuple[Comparison, ...]
    summaries: tuple[Summary, ...]
    summaries_with_apart: tuple[Summary, ...]
    """The same over all rows, those listed apart included."""
    releases: tuple[Summary, ...]
    """The same by the major release of transformers that ran, newest first."""
    boundaries: tuple[BoundaryCheck, ...]
    not_scored: tuple[NotScored, ...]
    coverages: tuple[Coverage, ...]
    """How often the intervals hold what was measured, by kind of plan; the last is of all runs."""
    replayed: tuple[Coverage, ...] = ()
    """Of the closed form: how often the bounds from dry runs hold its error on those of another model, by kind of plan."""
    times: tuple[TimeCoverage, ...] = ()
    """Of the closed form, over the timed runs of `profiles/times/`; none where other rows are asked about."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def unsafe_fits(self) -> tuple[str, ...]:
        """Ids of measured OOMs that the estimate calls a fit."""
        return tuple(check.id for check in self.boundaries if check.unsafe)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def refused_fits(self) -> tuple[str, ...]:
        """Ids of completed runs that the estimate refuses."""
        return tuple(check.id for check in self.boundaries if check.refused)


def accuracy(estimator: Estimator, tier: str, resolve: Resolver | None = None, rows: Iterable[Measurement] | None = None) -> AccuracyReport:
    """Price every scored row with `estimator` and lay the predictions beside the measurements.

    Rows that are not scored, and rows that the estimator or `resolve` (by default `hub.load_model`) refuses, are listed with the reason.
    """
    comparisons: list[Comparison] = []
    boundaries: list[BoundaryCheck] = []
    not_scored: list[NotScored] = []
    for row in measurements() if rows is None else rows:
        if not row.scored:
            not_scored.append(NotScored(id=row.id, source=row.source, reason=row.reason))
            continue
        try:
            model, gpu = _model(row, resolve), _gpu(row)
            comparisons.extend(_compare(row, model, gpu, estimator, tier))
            boundaries.extend(_check(row, model, gpu, estimator, tier))
        except AdvisorError as error:
            not_scored.append(NotScored(id=row.id, source=row.source, reason=str(error)))
    together = [item for item in comparisons if not item.apart]
    return AccuracyReport(
        tier=tier,
        comparisons=tuple(comparisons),
        summaries=summarise(together),
        summaries_with_apart=summarise(comparisons),
        releases=by_release(together),
        boundaries=tuple(boundaries),
        not_scored=tuple(not_scored),
        coverages=coverages(tier, residuals_of(comparisons)),
        replayed=replay_coverages() if tier == CLOSED_FORM else (),
        times=time_coverages() if tier == CLOSED_FORM and rows is None else (),
    )


def _model(row: Measurement, resolve: Resolver | None) -> ModelSpec:
    if resolve is None:
        from advisor.hub import load_model

        resolve = load_model
    model = resolve(row.same_shape_as or row.model)
    return model if row.layers is None else first_layers(model, row.layers)


def _gpu(row: Measurement) -> GpuSpec:
    """The row's card, with the memory that its own machine showed where that was printed."""
    if row.card is None:
        raise UnsupportedError(f"{row.id}: no profile for the card {row.gpu!r}")
    gpu = load_gpu(row.card)
    own = {"usable_bytes": row.usable_bytes, "usable_source": f"printed by the run: {row.source}"}
    return gpu.model_copy(update=own) if row.usable_bytes else gpu


def _compare(row: Measurement, model: ModelSpec, gpu: GpuSpec, estimator: Estimator, tier: str) -> Iterator[Comparison]:
    for reading in row.readings:
        if not reading.scored or reading.metric is Metric.UNKNOWN:
            continue
        plan = plan_of(row, reading.seq_len_tokens)
        ran = MeasuredPlan(row, model, plan, gpu)
        memory = estimator(ran)
        other_plan = _apart(row, tier, memory)
        predicted = _predicted(memory, reading)
        yield Comparison(
            id=row.id,
            group=row.group,
            grade=row.grade,
            model=row.model,
            method=row.peft_config.get("peft_type", plan.method.value).lower(),
            gpu=row.gpu,
            metric=reading.metric,
            what=reading.what,
            seq_len_tokens=plan.seq_len_tokens,
            micro_batch_size=plan.micro_batch_size,
            measured_bytes=reading.bytes,
            predicted_bytes=predicted,
            reserved_bytes=memory.peak_reserved_bytes,
            low_bytes=predicted - int(memory.peak_reserved_bytes * memory.interval.low_share),
            high_bytes=predicted + int(memory.peak_reserved_bytes * memory.interval.high_share),
            kind=kind_of_run(ran, memory),
            alike=replayed_like(model),
            versions=memory.versions,
            release=row.versions.get("transformers", ""),
            apart=other_plan or (reading.dry_run_apart if tier == DRY_RUN else ""),
            of_the_plan=not other_plan,
        )


def _apart(row: Measurement, tier: str, memory: MemoryBreakdown) -> str:
    """What the row says, unless older libraries alone were the reason and the dry run ran under those."""
    own_versions = tier == DRY_RUN and memory.versions.get("transformers") == row.versions.get("transformers")
    return "" if row.apart_by_versions and own_versions else row.apart


def _predicted(memory: MemoryBreakdown, reading: Reading) -> int:
    return {
        Metric.ALLOCATED: memory.peak_allocated_bytes,
        Metric.RESERVED: memory.peak_reserved_bytes,
        Metric.PROCESS: memory.process_bytes,
    }[reading.metric]


def _check(row: Measurement, model: ModelSpec, gpu: GpuSpec, estimator: Estimator, tier: str) -> Iterator[BoundaryCheck]:
    """A boundary as it is stated; a run that was measured is a run that fitted. None where another plan ran than the one priced."""
    lengths = [reading.seq_len_tokens for reading in row.readings if reading.seq_len_tokens]
    plan = plan_of(row, max(lengths, default=None))
    memory = estimator(MeasuredPlan(row, model, plan, gpu))
    if _apart(row, tier, memory):
        return
    yield BoundaryCheck(
        id=row.id,
        group=row.group,
        kind=f"{plan.method.label}, {kind_of(model, plan, gpu).words(('cards',))}",
        measured_fits=row.kind == "run" or bool(row.fits),
        predicted=classify(memory, gpu.usable_bytes),
        low_bytes=memory.low_bytes,
        expected_bytes=memory.expected_bytes,
        high_bytes=memory.high_bytes,
        usable_bytes=gpu.usable_bytes,
    )
