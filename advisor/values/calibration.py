"""What a short run on the real hardware measured, laid beside what was predicted: term by term, and how fast it was."""

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Literal

from pydantic import Field, computed_field

from advisor.values.advice import Advice, Fit, StepTime
from advisor.values.card import CardCalibration, Residual, StepRates
from advisor.values.memory import MOVING_TERMS, Computed, MemoryBreakdown, TermBytes
from advisor.values.plan import Plan
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Phase, Positive, Term, Value

CALIBRATION_VERSION = 1
"""Rises when a record is stored in a way that older programs cannot read, or when its numbers change their meaning."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Ending(str, Enum):
    """How a run on the hardware ended. Anything but DONE says in which phase."""

    DONE = "done"
    OUT_OF_MEMORY = "out_of_memory"
    MEMORY_LIMIT = "memory_limit"
    """The limit that was set for the process, not the card's."""
    TIME_LIMIT = "time_limit"
    KILLED = "killed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """The libraries refused, or crashed."""


class Hardware(Value):
    """What the run saw of the machine."""

    backend: Literal["cuda", "rocm", "mps", "xpu", "cpu"]
    card: str
    """As its driver names it; for a CPU its name and the number of its threads."""
    profile: str = ""
    """Name of the card's profile, where there is one: what --gpu resolves to."""
    driver: str = ""
    processes: Positive = 1
    distributed: str = "no"
    """accelerate's word for what runs them: no, multi_gpu, multi_cpu, fsdp, deepspeed …"""

    @property
    def counts_live_storages(self) -> bool:
        """The backend keeps no peaks of its own: what is called allocated is the sum of live storages."""
        return self.backend in ("cpu", "mps")


class PhaseMeasurement(Computed):
    """The highest moment of one phase, measured and predicted. Terms of the measurement are live storages."""

    phase: Phase
    measured: tuple[TermBytes, ...]
    unseen_bytes: int = 0
    """Allocated by the backend's own count beyond the live storages: buffers inside kernels, rounding to blocks."""
    predicted: tuple[TermBytes, ...]
    """By the closed form, for the same cut on the same hardware."""
    traced_bytes: Bytes | None = None
    """By the dry run of the same cut; None where it was not run."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def measured_bytes(self) -> int:
        return sum(entry.bytes for entry in self.measured) + self.unseen_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def predicted_bytes(self) -> int:
        return sum(entry.bytes for entry in self.predicted)

    def of(self, term: Term) -> tuple[int, int]:
        """Bytes of one term: measured, predicted."""
        return _bytes_of(self.measured, term), _bytes_of(self.predicted, term)

    @property
    def moving(self) -> tuple[int, int]:
        """Bytes that a step makes and frees: measured (what no storage explains among them), predicted."""
        measured = sum(entry.bytes for entry in self.measured if entry.term in MOVING_TERMS) + self.unseen_bytes
        return measured, sum(entry.bytes for entry in self.predicted if entry.term in MOVING_TERMS)


def _bytes_of(terms: tuple[TermBytes, ...], term: Term) -> int:
    return sum(entry.bytes for entry in terms if entry.term is term)


class Timing(Value):
    """Seconds of one micro-batch's forward and backward, and of the optimizer's step: medians over the steps that were timed."""

    forward_s: Seconds
    backward_s: Seconds
    optimizer_s: Seconds
    micro_low_s: Seconds
    micro_high_s: Seconds
    """Fastest and slowest forward with backward."""
    steps: Positive

    @property
    def micro_s(self) -> float:
        return self.forward_s + self.backward_s


class Point(Value):
    """One shape that was run: a cut of the model at one length."""

    layers: Positive
    plan: Plan
    """As it was run, with this shape's batch."""
    resting_bytes: Bytes
    """Allocated between two steps."""
    phases: tuple[PhaseMeasurement, ...]
    reserved_bytes: Bytes | None = None
    """The backend's peak of reserved memory; None where it has none."""
    predicted_reserved_bytes: Bytes
    timing: Timing | None = None

    @property
    def peak(self) -> PhaseMeasurement:
        """The phase that was predicted to be highest."""
        return max(self.phases, key=lambda phase: phase.predicted_bytes)

    @property
    def peak_bytes(self) -> int:
        return max(phase.measured_bytes for phase in self.phases)

    @property
    def predicted_peak_bytes(self) -> int:
        return self.peak.predicted_bytes

    @property
    def slack_bytes(self) -> int | None:
        """Reserved beyond allocated."""
        return None if self.reserved_bytes is None else self.reserved_bytes - self.peak_bytes


class Calibration(Computed):
    """One calibration of one card: stored under the user's data directory, and read by later estimates for that card."""

    calibration_version: int = CALIBRATION_VERSION
    id: str
    created_at: str
    """UTC, ISO 8601."""
    tool_version: str
    formulas: str = ""
    """Digest of the code that predicted (`calibrate.formulas`); empty in records of before it was kept."""
    mode: Literal["cut", "preflight"]
    """`preflight`: the whole model at the plan's own micro-batch."""
    hardware: Hardware
    versions: dict[str, str]
    model: str
    model_type: str
    model_layers: Positive
    plan: Plan
    """The whole plan that was asked about."""
    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    rates: StepRates | None
    context_bytes: Bytes | None = None
    """The process's memory by the driver, less what its allocator had reserved."""
    peak_rss_bytes: Bytes = 0
    """Largest resident memory of the process on the host."""
    libraries_rss_bytes: Bytes = 0
    """The same before the model was built."""
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def residuals(self) -> tuple[Residual, ...]:
        """How far measured lay from the closed form over the points: each resting term, and what moves as one."""
        return tuple(_residuals(self.points, traced=False))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def traced_residuals(self) -> tuple[Residual, ...]:
        """How far measured lay from the dry run of the same shapes, all of it told as what moves."""
        return tuple(_residuals(self.points, traced=True))

    @property
    def of_card(self) -> CardCalibration:
        """What later answers for this card use."""
        return CardCalibration(
            id=self.id,
            created_at=self.created_at,
            model=self.model,
            model_type=self.model_type,
            plan_kind=self.points[0].plan.kind,
            shapes=len(self.points),
            versions=self.versions,
            residuals=self.residuals,
            traced_residuals=self.traced_residuals,
            context_bytes=self.context_bytes,
            rates=self.rates,
        )


def _residuals(points: tuple[Point, ...], traced: bool) -> Iterator[Residual]:
    for phase in Phase:
        held = [(point, entry) for point in points for entry in point.phases if entry.phase is phase]
        if traced:
            pairs = [
                (entry.moving[0], entry.moving[0] + entry.traced_bytes - entry.measured_bytes)
                for _, entry in held
                if entry.traced_bytes is not None
            ]
            yield from _residual(phase, "moving", pairs)
            continue
        for term in (term for term in Term if term not in MOVING_TERMS):
            yield from _residual(phase, term, [entry.of(term) for _, entry in held])
        yield from _residual(phase, "moving", [_with_slack(point, entry) for point, entry in held])


def _with_slack(point: Point, entry: PhaseMeasurement) -> tuple[int, int]:
    """What moves, at the peak with what the allocator holds idle: an interval speaks of both as one."""
    measured, predicted = entry.moving
    if entry is not point.peak or point.reserved_bytes is None:
        return measured, predicted
    return measured + point.reserved_bytes - entry.measured_bytes, predicted + point.predicted_reserved_bytes - entry.predicted_bytes


def _residual(phase: Phase, term: Term | Literal["moving"], pairs: list[tuple[int, int]]) -> Iterator[Residual]:
    """From (measured, predicted) of every point; nothing where there was nothing to compare."""
    if not any(measured or predicted for measured, predicted in pairs):
        return
    shares = [(measured - predicted) / predicted for measured, predicted in pairs if predicted > 0] or [0.0]
    sizes = [measured - predicted for measured, predicted in pairs]
    yield Residual(
        phase=phase,
        term=term,
        low_share=min(shares),
        high_share=max(shares),
        low_bytes=min(sizes),
        high_bytes=max(sizes),
    )


class CalibrationRun(Computed):
    """What `advise calibrate` found: how it ended, what was measured up to then, and what follows for the plan."""

    schema_version: str = SCHEMA_VERSION
    ending: Ending
    ended_in: str = ""
    """Phase and shape in which it ended, where it did not reach the end."""
    message: str = ""
    hint: str = ""
    points: tuple[Point, ...] = ()
    """Everything that was measured, of a run that broke off as well."""
    seconds: Seconds
    calibration: Calibration | None = None
    """The record; None where the run broke off."""
    stored_at: str = ""
    """File of the record."""
    plan: Plan
    """The whole plan that was asked about."""
    predicted: MemoryBreakdown
    """Its memory, as predicted before."""
    calibrated: MemoryBreakdown | None = None
    """The whole plan again, its interval from what was measured."""
    step_time: StepTime | None = None
    """One optimizer step of the whole plan at the achieved rates."""
    gpu: str = ""
    """Card that the plan is held against; empty where none was named and none was found."""
    usable_bytes: Bytes | None = None
    """What the plan is held against; None where no card was named and none was found."""
    fit_before: Fit | None = None
    fit_after: Fit | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict_stands(self) -> bool | None:
        """None where there is nothing to hold it against, or where the run says nothing of that card."""
        return None if self.fit_before is None or self.fit_after is None else self.fit_before is self.fit_after

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 measured, and it fits where there is a card · 1 it ran out of memory, or does not fit · 3 cannot tell · 130 interrupted."""
        if self.ending is Ending.INTERRUPTED:
            return 130
        if self.ending in (Ending.OUT_OF_MEMORY, Ending.MEMORY_LIMIT):
            return 1
        if self.ending is not Ending.DONE:
            return 3
        return {None: 0, Fit.FITS: 0, Fit.DOES_NOT_FIT: 1, Fit.UNCERTAIN: 3}[self.fit_after or self.fit_before]


class CheckedAdvice(Value):
    """`advise --calibrate --json`: the answer, and the check of its verdict on the hardware."""

    advice: Advice
    check: CalibrationRun | None
    problem: str = ""
    """Why there is no check: nothing fits, or nothing can be run here."""

    @property
    def exit_code(self) -> int:
        """The check's; without one 1 where nothing fits, else 3."""
        return (self.advice.exit_code or 3) if self.check is None else self.check.exit_code
