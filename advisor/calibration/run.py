"""From a plan to what the hardware says of it: run the worker, keep a record, and price the plan anew with it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.util import find_spec

from advisor import __version__
from advisor.bounded import is_file
from advisor.calibration import store
from advisor.calibration.fit import rates_of
from advisor.calibration.formulas import digest
from advisor.calibration.job import Job
from advisor.calibration.launch import Outcome, Progress, default_config, run
from advisor.calibration.settings import Settings
from advisor.errors import AdvisorError, InvalidInputError, MissingExtraError
from advisor.host import CPU_VENDOR, available_bytes, this_cpu
from advisor.ladder import classify
from advisor.memory import estimate_memory
from advisor.speed import step_time
from advisor.tiers import Tier, refuse_unread
from advisor.values import Fit, GpuSpec, ModelSpec, Plan
from advisor.values.calibration import Calibration, CalibrationRun, Ending, Hardware, Point

MEMORY_SHARE = 0.9
"""Of the machine's free memory that the worker may take, where no limit is given (judgement)."""
UNSTEADY = 1.5
"""Slowest over fastest step of a shape, beyond which its times are doubted (judgement: up to 1.15 on an idle machine of two cores)."""


def calibrate(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, settings: Settings, progress: Progress) -> CalibrationRun:
    """Run `plan` on the hardware at hand and lay measured beside predicted; `gpu` is what the plan is held against.

    Whatever becomes of the child process is a result. Raises MissingExtraError where the libraries are missing, and
    UnsupportedError for settings of a plan that the worker's loop does not run.
    """
    refuse_unread(Tier.CALIBRATE, plan)
    _need_libraries(plan)
    settings = _as_planned(settings, plan, gpu)
    began = time.monotonic()
    outcome = run(_job(model, plan, settings), settings, progress)
    progress("")
    seconds = time.monotonic() - began
    held = gpu or _found_card(outcome.hardware)
    ran = outcome.points[-1].plan.model_copy(update=_own_batch(plan)) if outcome.points else plan
    # Of a plan for one GPU accelerate's configuration says how many there are.
    fewer = 1 < plan.n_gpus != ran.n_gpus
    plan = plan if fewer else ran
    predicted = estimate_memory(model, plan, held)
    found = CalibrationRun(
        ending=outcome.ending,
        ended_in=outcome.ended_in,
        message=outcome.message or (f"with {ran.n_gpus} of the plan's {plan.n_gpus} processes" if fewer else ""),
        hint=outcome.hint,
        points=outcome.points,
        seconds=seconds,
        plan=plan,
        predicted=predicted,
        gpu="" if held is None else held.name,
        usable_bytes=None if held is None else held.usable_bytes,
        fit_before=None if held is None else classify(predicted, held.usable_bytes),
    )
    if outcome.ending is not Ending.DONE or outcome.hardware is None:
        return found
    record = _record(model, ran, outcome, settings)
    found = found.model_copy(update={"calibration": record, **_priced_anew(model, plan, held, record)})
    try:
        return found.model_copy(update={"stored_at": str(store.save(record)) if settings.keep else ""})
    except AdvisorError as error:
        return found.model_copy(update={"message": f"no record was written: {error}"})


def _as_planned(settings: Settings, plan: Plan, gpu: GpuSpec | None) -> Settings:
    """Where nobody says otherwise: the processor for a plan on it, and a process for each GPU of the plan."""
    if gpu is not None and gpu.vendor == CPU_VENDOR:
        settings = settings.model_copy(update={"device": "cpu"})
    configured = settings.processes > 1 or settings.accelerate_config is not None or is_file(default_config())
    return settings if configured else settings.model_copy(update={"processes": plan.n_gpus})


def _own_batch(plan: Plan) -> dict[str, object]:
    """The worker knows how many processes there are; the batch is the plan's."""
    return {name: getattr(plan, name) for name in ("micro_batch_size", "seq_len_tokens", "grad_accum_steps")}


def _job(model: ModelSpec, plan: Plan, settings: Settings) -> Job:
    return Job(
        model=model,
        plan=plan,
        preflight=settings.preflight,
        on_cpu=settings.device == "cpu",
        layers=settings.layers,
        timed_s=settings.timed_s,
        parent_pid=os.getpid(),
        memory_limit_bytes=settings.memory_limit_bytes or _default_limit(settings.processes),
    )


def _default_limit(processes: int) -> int | None:
    try:
        return int(available_bytes() * MEMORY_SHARE) // processes
    except InvalidInputError:
        return None


def _need_libraries(plan: Plan) -> None:
    needed = ["torch", "transformers", "accelerate"] + (["peft"] if plan.method.has_adapter else [])
    needed += ["bitsandbytes"] if plan.method.is_quantized else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"a calibration needs {', '.join(missing)}: pip install 'finetune-advisor[torch]'")


def _found_card(hardware: Hardware | None) -> GpuSpec | None:
    """The profile of what the worker ran on, where there is one."""
    from advisor.devices import load_gpu

    if hardware is None or not hardware.profile:
        return None
    try:
        return this_cpu() if hardware.backend == "cpu" else load_gpu(hardware.profile)
    except AdvisorError:
        return None


def _record(model: ModelSpec, plan: Plan, outcome: Outcome, settings: Settings) -> Calibration:
    now = datetime.now(timezone.utc)
    assert outcome.hardware is not None
    on_cpu = outcome.hardware.backend == "cpu"
    return Calibration(
        id=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        created_at=now.isoformat(timespec="seconds"),
        tool_version=__version__,
        formulas=digest(),
        mode="preflight" if settings.preflight else "cut",
        hardware=outcome.hardware,
        versions=outcome.versions,
        model=model.id,
        model_type=model.model_type,
        model_layers=model.layers,
        plan=plan,
        points=outcome.points,
        rates=rates_of(model, outcome.points),
        # On the CPU what a process holds besides tensors is its libraries.
        context_bytes=outcome.libraries_rss_bytes if on_cpu else outcome.context_bytes,
        peak_rss_bytes=outcome.peak_rss_bytes,
        libraries_rss_bytes=outcome.libraries_rss_bytes,
        notes=(*outcome.notes, *_unsteady(outcome.points)),
    )


def _unsteady(points: tuple[Point, ...]) -> Iterator[str]:
    """A word where steps of one shape took so differently long that something else must have run."""
    timings = [point.timing for point in points if point.timing is not None and point.timing.micro_low_s > 0]
    worst = max((timing.micro_high_s / timing.micro_low_s for timing in timings), default=1.0)
    if worst > UNSTEADY:
        yield f"the slowest step of a shape took {worst:.1f} times as long as the fastest: calibrate again when nothing else runs here"


def _priced_anew(model: ModelSpec, plan: Plan, held: GpuSpec | None, record: Calibration) -> dict[str, object]:
    """The whole plan once more, on the card that it is held against, with this record alone."""
    if held is None:
        return {}
    here = ran_on(record.hardware, held)
    if not here and record.hardware.counts_live_storages:
        return {}  # tensors alone say nothing of that card's allocator
    told = record.of_card
    if not here:
        # The context and the rates are another card's; how far the formulas were off is not.
        told = told.model_copy(update={"context_bytes": None, "rates": None, "elsewhere": record.hardware.card})
    card = held.model_copy(update={"calibrations": (told,)})
    memory = estimate_memory(model, plan, card)
    proven = record.mode == "preflight" and here
    return {
        "calibrated": memory,
        "step_time": step_time(model, plan, card),
        "fit_after": Fit.FITS if proven else classify(memory, held.usable_bytes),
    }


def ran_on(hardware: Hardware, gpu: GpuSpec) -> bool:
    return gpu.name in (hardware.profile, hardware.card)
