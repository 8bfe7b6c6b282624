"""One run in a process of its own: build, train a few steps, and write what the allocator counted. Only a child process loads this module.

The model, the loop and the optimizer are those of `advise calibrate` (advisor/calibration/training.py). On a card nothing watches the steps
that are measured but the allocator itself; a processor counts no tensors, so there the dry run's recorder stands for it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from advisor.calibration.job import START, Event, Log
from advisor.errors import AdvisorError
from advisor.values import Phase
from advisor.values.calibration import Ending
from benchmarks.card.grid import Run

MEASURED_STEPS = 3
"""The first makes the optimizer's states; the others find them. A dry run of the row runs as many."""
WARM_UP_STEPS, LEAST_TIMED, MOST_TIMED = 2, 3, 20
"""A median needs three; more than twenty say no more (judgement)."""
RESULT_FILE, EVENTS_FILE = "result.json", "events.json"
POISONED = "poisoned"
"""Message of a child that was forked from a process which had touched the card: it has to be spawned."""
FIRST_LINE_CHARACTERS = 300


class Job(NamedTuple):
    """What the parent hands over."""

    run: Run
    device: str
    folder: Path
    """Where the child writes: its phases (advisor/calibration/job.py), its result, its events."""
    timed_s: float


@dataclass(slots=True)
class _Counters:
    """The backend's own count, per phase, and the phase that runs."""

    backend: Any
    log: Log
    phase: Phase = Phase.LOAD
    step: int = 0
    allocated: dict[Phase, int] = field(default_factory=dict)
    reserved: dict[Phase, int] = field(default_factory=dict)

    def begin(self, phase: Phase) -> None:
        if phase is Phase.FORWARD and self.phase is not Phase.BACKWARD:
            self.step += 1  # a backward that is followed by a forward is one of an accumulation
        self.phase = phase
        self.log.at(phase.value)

    def observe(self, phase: Phase) -> None:
        for kept, read in ((self.allocated, self.backend.peak_allocated_bytes), (self.reserved, self.backend.peak_reserved_bytes)):
            found = read()
            if found is not None:
                kept[phase] = max(kept.get(phase, 0), found)
        self.backend.reset_peaks()


def main(job: Job) -> None:
    """Run it, write the ending as an event whatever it is, and end the process."""
    output = (job.folder / "output.txt").open("ab", buffering=0)
    os.dup2(output.fileno(), sys.stdout.fileno())
    os.dup2(output.fileno(), sys.stderr.fileno())
    log = Log(job.folder, 0)
    log.at(START)
    try:
        log.write(Event(ending=Ending.DONE, notes=_run(job, log)))
    except AdvisorError as error:
        log.write(Event(ending=Ending.FAILED, message=str(error)))
    except Exception as error:
        log.write(_ending_of(error))
    # Threads of what broke off may hang; there is nothing left to save.
    os._exit(0)


def _ending_of(error: Exception) -> Event:
    from advisor.calibration.training import is_out_of_memory

    text = " ".join(str(error).split())[:FIRST_LINE_CHARACTERS]
    ending = Ending.OUT_OF_MEMORY if is_out_of_memory(error) else Ending.FAILED
    return Event(ending=ending, message=text if ending is Ending.OUT_OF_MEMORY else f"{type(error).__name__}: {text}")


def _run(job: Job, log: Log) -> tuple[str, ...]:
    import torch

    on_cpu = job.device == "cpu"
    if not on_cpu and torch.cuda._is_in_bad_fork():
        raise AdvisorError(POISONED)
    from accelerate import Accelerator

    from advisor.calibration import backends, training
    from benchmarks.card import watch

    run = job.run
    accelerator = Accelerator(mixed_precision=training.mixed_precision(run.plan), cpu=on_cpu or None)
    backend = backends.of(accelerator.device)
    torch.ones(1, device=accelerator.device)  # makes the context, which belongs to no model
    backend.empty_cache()
    counters = _Counters(backend, log)
    watched = watch.of(job, counters)
    backend.reset_peaks()
    counters.begin(Phase.LOAD)
    layers = run.layers or run.model.layers
    trainee = training.build(accelerator, backend, run.model, run.plan, layers, counters.begin)
    backend.synchronise()
    counters.observe(Phase.LOAD)
    with watched.steps(trainee):
        for _ in range(MEASURED_STEPS):
            training.step(trainee, counters.observe)
    process = backend.process_bytes() if not on_cpu else None
    reserved = backend.reserved_bytes()
    watched.write(trainee, job.folder / EVENTS_FILE)
    result = {
        "phases": {phase.value: size for phase, size in (counters.allocated or watched.live_bytes()).items()},
        "reserved": {phase.value: size for phase, size in counters.reserved.items()},
        "process_bytes": process,
        "context_bytes": None if process is None or reserved is None else max(process - reserved, 0),
        "card": backend.card(),
        "driver": backend.driver(),
        "compute_capability": "" if on_cpu else ".".join(map(str, torch.cuda.get_device_capability(accelerator.device))),
        "torch_cuda": torch.version.cuda or "",
    }
    _write(job, result)
    _write(job, {**result, "timing": _timing(trainee, job.timed_s), "later_reserved_bytes": backend.peak_reserved_bytes()})
    return training.notes(run.plan, backend)


def _write(job: Job, result: dict[str, Any]) -> None:
    """Whole or as it was: a run that dies while it is timed has been measured."""
    unfinished = job.folder / f"{RESULT_FILE}.unfinished"
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace(job.folder / RESULT_FILE)


def _timing(trainee: Any, timed_s: float) -> dict[str, Any]:
    """Seconds of whole optimizer steps: median, fastest and slowest; and the parts' medians. The device is waited for after each phase."""
    from advisor.calibration import training

    for _ in range(WARM_UP_STEPS):
        training.step(trainee)
    steps, parts = list[float](), list[Any]()
    until = time.perf_counter() + timed_s
    while len(steps) < LEAST_TIMED or (time.perf_counter() < until and len(steps) < MOST_TIMED):
        began = time.perf_counter()
        parts.append(training.step(trainee))
        steps.append(time.perf_counter() - began)
    return {
        "step_s": median(steps),
        "step_low_s": min(steps),
        "step_high_s": max(steps),
        "forward_s": median(part.forward for part in parts),
        "backward_s": median(part.backward for part in parts),
        "optimizer_s": median(part.optimizer for part in parts),
        "steps": len(steps),
    }
