"""The child process: `accelerate launch -m advisor.calibration.worker FOLDER`. It measures, writes what it found line by line, and ends.

Every ending that it can see is written as an event with the phase in which it came. What it cannot see (a kill, a crash of the process)
the parent tells from the last line.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from advisor.architectures.cut import first_layers
from advisor.calibration import cuts, limits
from advisor.calibration.job import DRY_RUN, JOB_FILE, START, Event, Job, Log
from advisor.errors import AdvisorError
from advisor.host import this_cpu
from advisor.units import format_size
from advisor.values import GpuSpec, Plan
from advisor.values.calibration import Ending, Hardware, Point

FIRST_LINE_CHARACTERS = 300


class Stopped(BaseException):
    """SIGTERM: somebody asked this process to end."""


def main(folder: Path) -> None:
    job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    log = Log(folder, int(os.environ.get("RANK", "0")))
    log.at(START)
    signal.signal(signal.SIGTERM, _stop)
    limits.watch_parent(job.parent_pid)
    if job.memory_limit_bytes is not None:
        limits.watch(job.memory_limit_bytes, lambda held: _end_at_limit(log, held, job.memory_limit_bytes or 0))
    try:
        _run(job, log)
    except (KeyboardInterrupt, Stopped):
        log.write(Event(ending=Ending.INTERRUPTED, message="the run was interrupted"))
    except AdvisorError as error:
        log.write(Event(ending=Ending.FAILED, message=str(error)))
    except Exception as error:
        log.write(_ending_of(error, job))
    sys.stdout.flush()
    # Threads and communication of what broke off may hang; there is nothing left to save.
    os._exit(0)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _end_at_limit(log: Log, held_bytes: int, limit_bytes: int) -> None:
    message = f"the process took {format_size(held_bytes)} of memory, and its limit is {format_size(limit_bytes)}"
    log.write(Event(ending=Ending.MEMORY_LIMIT, message=message, hint="give more with --memory-limit, or run a smaller batch"))
    os._exit(0)


def _ending_of(error: Exception, job: Job) -> Event:
    from accelerate import PartialState

    from advisor.calibration.training import is_out_of_memory

    text = " ".join(str(error).split())[:FIRST_LINE_CHARACTERS]
    if is_out_of_memory(error):
        if PartialState().device.type == "cpu" and job.memory_limit_bytes is not None:
            message = f"the process may take {format_size(job.memory_limit_bytes)}, and more was asked for"
            return Event(ending=Ending.MEMORY_LIMIT, message=message, hint="give more with --memory-limit, or run a smaller batch")
        return Event(ending=Ending.OUT_OF_MEMORY, message=text, hint="run a smaller batch or a shorter sequence")
    return Event(ending=Ending.FAILED, message=f"{type(error).__name__}: {text}")


def _run(job: Job, log: Log) -> None:
    from accelerate import Accelerator

    from advisor.calibration import backends, measure, training
    from advisor.tape.store import installed

    _quiet()
    stay_on_this_machine()
    accelerator = Accelerator(mixed_precision=training.mixed_precision(job.plan), cpu=job.on_cpu or None)
    backend = backends.of(accelerator.device)
    if backend.name == "cpu" and job.memory_limit_bytes is not None:
        limits.limit_data(job.memory_limit_bytes)
    plan = measure.plan_here(job.plan, accelerator)
    gpu = this_cpu() if backend.name == "cpu" else _profile(backend.card())
    # Touching the device makes the context, which belongs to no model.
    accelerator.reduce(_one(accelerator), reduction="sum")
    hardware = Hardware(
        backend=backend.name,
        card=backend.card(),
        profile=gpu.name if gpu is not None else "",
        driver=backend.driver(),
        processes=plan.n_gpus,
        distributed=str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type)).lower(),
    )
    if not training.dtype_supported(plan, backend):
        raise AdvisorError(f"{hardware.card} has no bf16: give --precision fp16 or fp32")
    chosen = _shapes(job, plan, _free_bytes(accelerator, backend, job), gpu, backend.name == "cpu")
    log.write(Event(hardware=hardware, versions=dict(installed()), shapes=len(chosen), rss_bytes=limits.rss_bytes()))
    bench = measure.Bench(accelerator, backend, gpu, job.model, log, job.timed_s)
    points = []
    for cut in chosen:
        points.append(measure.measure(bench, cut))
        log.write(Event(point=points[-1]))
    process, reserved = backend.process_bytes(), backend.reserved_bytes()
    context = process - reserved if process is not None and reserved is not None else None
    rss_bytes, notes = limits.peak_rss_bytes(), training.notes(plan, backend)
    if accelerator.is_main_process:
        notes = (*notes, *_dry_runs(bench, chosen, points))
    log.write(Event(ending=Ending.DONE, context_bytes=None if context is None else max(context, 0), rss_bytes=rss_bytes, notes=notes))


def _dry_runs(bench: Any, chosen: tuple[cuts.Cut, ...], points: list[Point]) -> Iterator[str]:
    """Write every point anew with the peaks of its dry run; a note where the installed libraries have none."""
    from advisor.calibration import measure

    for cut, point in zip(chosen, points, strict=True):
        bench.log.at(DRY_RUN, cut.shape)
        try:
            bench.log.write(Event(point=measure.with_dry_run(point, measure.dry_run(bench, cut))))
        except AdvisorError as error:
            yield f"no dry run beside it: {error}"
            return


def _quiet() -> None:
    """Libraries' warnings go nowhere: what matters is written as an event."""
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()


def stay_on_this_machine() -> None:
    """Let gloo and NCCL listen on the loopback interface where the processes meet there; else they take that of the host's name.

    GLOO_SOCKET_IFNAME, torch 2.13 torch/csrc/distributed/c10d/init.cpp; NCCL_SOCKET_IFNAME, NCCL 2.28, user guide, environment variables.
    """
    if os.name != "posix" or os.environ.get("MASTER_ADDR") not in ("127.0.0.1", "localhost", "::1"):
        return
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)


def _one(accelerator: Any) -> Any:
    import torch

    return torch.ones(1, device=accelerator.device)


def _free_bytes(accelerator: Any, backend: Any, job: Job) -> int:
    """What every process can have: the least that any of them sees, and of shared memory its part."""
    import torch

    shared = backend.name in ("cpu", "mps")
    free = backend.free_bytes() // (accelerator.num_processes if shared else 1)
    if shared and job.memory_limit_bytes is not None:
        free = min(free, job.memory_limit_bytes)
    seen = accelerator.gather(torch.tensor([float(free)], device=accelerator.device))
    return int(seen.min())


def _shapes(job: Job, plan: Plan, free_bytes: int, gpu: GpuSpec | None, on_cpu: bool) -> tuple[cuts.Cut, ...]:
    if job.preflight:
        return cuts.whole(job.model, plan)
    if job.layers is not None:
        return (cuts.Cut(job.layers, first_layers(job.model, job.layers), plan),)
    return cuts.choose(job.model, plan, free_bytes, gpu, on_cpu)


def _profile(card: str) -> GpuSpec | None:
    """The profile of the card that the driver names, where there is one."""
    from advisor.devices import load_gpu

    try:
        return load_gpu(card)
    except AdvisorError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
