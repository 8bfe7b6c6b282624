"""One shape on the hardware: its peaks by phase, its rest, its times, and what was predicted for it. Only the worker loads this module."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from advisor.calibration import live, training
from advisor.calibration.backends import Backend
from advisor.calibration.cuts import Cut
from advisor.calibration.job import LOAD, TIMING, Log
from advisor.memory import estimate_memory
from advisor.memory.runtime import workspace_bytes
from advisor.stacks.engines import shared
from advisor.tape.stream import STEP
from advisor.values import GpuSpec, ModelSpec, Phase, Plan, Sharding, Term, TermBytes
from advisor.values.calibration import PhaseMeasurement, Point, Timing

RECORDED_STEPS = 2
"""The first makes the optimizer's states, the second is like every other."""
WARM_UP_STEPS = 1
LEAST_TIMED_STEPS, MOST_TIMED_STEPS = 3, 20
"""A median needs three; more than twenty say no more (judgement)."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all shapes of one run share."""

    accelerator: Any
    backend: Backend
    gpu: GpuSpec | None
    """The card's profile, where there is one."""
    model: ModelSpec
    """The whole model: a cut is built from its config."""
    log: Log
    timed_s: float


@dataclass(slots=True)
class _BackendPeaks:
    """The backend's own count, per phase: the largest of every step since `begin`."""

    backend: Backend
    allocated: dict[Phase, int]
    reserved: int = 0

    def begin(self) -> None:
        self.backend.synchronise()
        self.backend.reset_peaks()

    def forget_steps(self) -> None:
        """Count the steps anew: those that were recorded may have held more for it."""
        self.allocated = {phase: size for phase, size in self.allocated.items() if phase is Phase.LOAD}
        self.reserved = 0

    def observe(self, phase: Phase) -> None:
        allocated, reserved = self.backend.peak_allocated_bytes(), self.backend.peak_reserved_bytes()
        if allocated is not None:
            self.allocated[phase] = max(self.allocated.get(phase, 0), allocated)
        self.reserved = max(self.reserved, reserved or 0)
        self.backend.reset_peaks()


def measure(bench: Bench, cut: Cut) -> Point:
    """Build the cut, train it for a few recorded and a few timed steps, and lay the prediction beside."""
    backend = bench.backend
    bench.log.at(LOAD, cut.shape)
    peaks = _BackendPeaks(backend, {})
    peaks.begin()
    trainee = training.build(
        bench.accelerator, backend, bench.model, cut.plan, cut.layers, lambda phase: bench.log.at(phase.value, cut.shape)
    )
    backend.synchronise()
    peaks.observe(Phase.LOAD)
    recorder = trainee.recorder
    assert recorder is not None  # it is taken away below only
    with recorder:
        for _ in range(RECORDED_STEPS):
            recorder.mark(STEP)
            training.step(trainee, peaks.observe)
    layer_path = trainee.built.layer_path
    stream = recorder.close()
    trainee.recorder = None
    peaks.forget_steps()
    timing = _time(bench, cut.shape, trainee, peaks)
    held_bytes = backend.allocated_bytes()
    training.release(trainee)
    emulated = live.SEEN_ONLY if peaks.allocated else live.AS_RECORDED
    seen = live.peaks(stream, layer_path, emulated)
    resting = live.resting_bytes(stream, emulated)
    if held_bytes is not None and peaks.allocated:
        seen = _with_workspaces(seen, held_bytes - resting)
    predicted = estimate_memory(cut.model, cut.plan, bench.gpu)
    return Point(
        layers=cut.layers,
        plan=cut.plan,
        resting_bytes=held_bytes if held_bytes is not None else resting,
        phases=tuple(_phase(phase.phase, seen, phase.terms, peaks.allocated) for phase in predicted.phases if phase.phase in seen),
        reserved_bytes=peaks.reserved or None,
        predicted_reserved_bytes=predicted.peak_reserved_bytes,
        timing=timing,
    )


def _time(bench: Bench, shape: str, trainee: training.Trainee, peaks: _BackendPeaks) -> Timing:
    """Median over steps that nothing watches; the backend's own peaks are read off them, too."""
    bench.log.at(TIMING, shape)
    trainee.at = lambda _: None
    for _ in range(WARM_UP_STEPS):
        training.step(trainee, peaks.observe)
    found: list[training.StepSeconds] = []
    until = time.perf_counter() + bench.timed_s
    while len(found) < LEAST_TIMED_STEPS or (time.perf_counter() < until and len(found) < MOST_TIMED_STEPS):
        found.append(training.step(trainee, peaks.observe))
    micro_batches = trainee.plan.grad_accum_steps
    micro = [(entry.forward + entry.backward) / micro_batches for entry in found]
    return Timing(
        forward_s=median(entry.forward for entry in found) / micro_batches,
        backward_s=median(entry.backward for entry in found) / micro_batches,
        optimizer_s=median(entry.optimizer for entry in found),
        micro_low_s=min(micro),
        micro_high_s=max(micro),
        steps=len(found),
    )


def _with_workspaces(seen: dict[Phase, tuple[TermBytes, ...]], more_bytes: int) -> dict[Phase, tuple[TermBytes, ...]]:
    """What rests on the card beyond the storages that were seen: workspaces of the matrix library, and rounding to blocks."""
    entry = (TermBytes(term=Term.WORKSPACE, bytes=max(more_bytes, 0)),)
    return {phase: (*terms, *(entry if phase is not Phase.LOAD else ())) for phase, terms in seen.items()}


def _phase(
    phase: Phase, seen: dict[Phase, tuple[TermBytes, ...]], predicted: tuple[TermBytes, ...], allocated: dict[Phase, int]
) -> PhaseMeasurement:
    measured = seen[phase]
    counted = sum(entry.bytes for entry in measured)
    return PhaseMeasurement(
        phase=phase,
        measured=measured,
        unseen_bytes=allocated[phase] - counted if phase in allocated else 0,
        predicted=predicted,
    )


def dry_run(bench: Bench, cut: Cut) -> dict[Phase, int]:
    """Peaks of the same cut by the dry run, in live storages as they are counted here."""
    from advisor.dryrun import trace

    traced = trace(bench.model, cut.plan, layers=cut.layers, gpu=bench.gpu)
    emulated = live.Emulated(workspaces=workspace_bytes(bench.gpu) > 0, insides=True)
    found = live.peaks(traced.stream, traced.layer_path, emulated)
    return {phase: sum(entry.bytes for entry in terms) for phase, terms in found.items()}


def with_dry_run(point: Point, traced: dict[Phase, int]) -> Point:
    phases = tuple(entry.model_copy(update={"traced_bytes": traced.get(entry.phase)}) for entry in point.phases)
    return point.model_copy(update={"phases": phases})


def plan_here(plan: Plan, accelerator: Any) -> Plan:
    """The plan as accelerate's configuration runs it: as many processes, shared as it says."""
    count = int(accelerator.num_processes)
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type)).lower()
    shards = kind in ("fsdp", "deepspeed", "megatron_lm")
    sharding = Sharding.NONE if count == 1 else Sharding.FSDP2 if shards else Sharding.DDP
    sharding = Sharding.NONE if count == 1 else Sharding.FSDP2 if shards else Sharding.DDP
    return shared(plan.model_copy(update={"n_gpus": count}), sharding)
