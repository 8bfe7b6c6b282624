"""Starts the worker through `accelerate launch`, follows what it writes, and ends it when it must: the parent's side, without torch.

The worker runs in a session of its own, so that a Ctrl-C reaches this process alone, which then ends the whole group.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from advisor.bounded import is_file
from advisor.calibration.job import JOB_FILE, START, Event, Job, read_events
from advisor.calibration.settings import Settings
from advisor.errors import InvalidInputError
from advisor.user_files import unfinished
from advisor.values.calibration import Ending, Hardware, Point

POLL_S = 0.1
GRACE_S = 5.0
"""Between asking a process group to end and making it. Judgement."""

Progress = Callable[[str], None]


class Outcome(NamedTuple):
    """Everything that the worker told before it ended."""

    ending: Ending
    ended_in: str
    message: str
    hint: str
    points: tuple[Point, ...]
    hardware: Hardware | None
    versions: dict[str, str]
    context_bytes: int | None
    libraries_rss_bytes: int
    peak_rss_bytes: int
    notes: tuple[str, ...]


def run(job: Job, settings: Settings, progress: Progress) -> Outcome:
    """Run the worker to its end, whichever that is."""
    with unfinished(Path(tempfile.gettempdir())) as folder:
        folder.mkdir(mode=0o700)
        (folder / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
        with (folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                command(settings, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(settings),
                start_new_session=True,
            )
            broken = _follow(process, folder, settings.time_limit_s, progress)
        printed = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        ranks = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("events-*.jsonl"))
        return outcome_of(tuple(read_events(folder, rank) for rank in ranks), broken, _silent_end(process.returncode, printed))


def command(settings: Settings, folder: Path) -> list[str]:
    """`accelerate launch`, with the user's configuration where there is one."""
    launcher = [sys.executable, "-m", "advisor.calibration.launcher"]
    if settings.accelerate_config is not None:
        if not is_file(settings.accelerate_config):
            raise InvalidInputError(
                f"--accelerate-config {settings.accelerate_config}: there is no such file; `accelerate config` writes one"
            )
        launcher += ["--config_file", str(settings.accelerate_config)]
    elif settings.device == "cpu" or settings.processes > 1 or not is_file(default_config()):
        launcher += ["--num_processes", str(settings.processes), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        # torch's launcher, which accelerate starts for several cards alone; on the CPU the environment says so below.
        launcher += ["--multi_gpu"] if settings.processes > 1 else []
    launcher += ["--cpu"] if settings.device == "cpu" and settings.processes == 1 else []
    # Port 0 lets accelerate find a free one, so that two calibrations at once do not meet.
    return [*launcher, "--main_process_port", "0", "--module", settings.worker, str(folder)]


def default_config() -> Path:
    """accelerate 1.15 commands/config/config_args.py, `default_config_file`."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
    return Path(home) / "accelerate" / "default_config.yaml"


def _environment(settings: Settings) -> dict[str, str]:
    """The child finds this very package, and all cores: accelerate would give a single process one thread."""
    own = str(Path(__file__).parent.parent.parent)
    path = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([own, path]) if path else own, "TOKENIZERS_PARALLELISM": "false"}
    if settings.device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    if settings.accelerate_config is None:
        environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // settings.processes, 1)))
    return environment


class _End(NamedTuple):
    """How the worker ended, where it did not say so itself."""

    ending: Ending
    message: str
    hint: str = ""


def _follow(process: subprocess.Popen[bytes], folder: Path, time_limit_s: float, progress: Progress) -> _End | None:
    """Wait, telling what the worker does; the end that this process made, if it made one."""
    until = time.monotonic() + time_limit_s
    told = 0
    try:
        while process.poll() is None:
            events = read_events(folder, 0)
            for number, event in enumerate(events[told:], told):
                if event not in events[:number]:
                    _tell(event, events, progress)
            told = len(events)
            if any(event.ending not in (None, Ending.DONE) for event in events):
                # One process of several is out; the others may wait for it for ever.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
                return None
            if time.monotonic() > until:
                return _End(
                    Ending.TIME_LIMIT,
                    f"it was not through after {time_limit_s:g} s",
                    "give more with --time-limit, or run a shorter sequence",
                )
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return _End(Ending.INTERRUPTED, "this command was told to end")
    finally:
        end_group(process)
    return None


def _tell(event: Event, events: tuple[Event, ...], progress: Progress) -> None:
    """One line for every shape and phase."""
    if event.at == START:
        progress("starting torch, transformers and accelerate")
    elif event.hardware is not None:
        progress(f"on {event.hardware.card}: {event.shapes} shapes")
    elif event.at:
        shapes = list(dict.fromkeys(other.shape for other in events if other.shape))
        count = next((other.shapes for other in events if other.shapes), None)
        progress(f"{shapes.index(event.shape) + 1} of {count}: {event.shape}: {event.at.replace('_', ' ')}")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the launcher and everything that it started to end, then make it."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            elif process.poll() is None:
                process.kill()
        except ProcessLookupError:
            break
        except PermissionError:  # macOS says so of a group that holds only the dead
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


_SIGNALS = (re.compile(r"died with <Signals\.(SIG\w+)"), re.compile(r"exitcode\s*:?\s*(-\d+)"), re.compile(r"Signal \d+ \((SIG\w+)\)"))
"""How accelerate (CalledProcessError) and torch's elastic launcher report the signal of a child."""


def _silent_end(returncode: int | None, printed: str) -> _End:
    """What became of a worker that wrote no ending."""
    name = _signal_name(returncode, printed)
    if name == "SIGKILL":
        return _End(
            Ending.KILLED,
            "it was killed (SIGKILL), as the system does when memory runs out",
            "if nobody killed it, try less: a smaller batch, or --memory-limit",
        )
    if name == "SIGINT":
        return _End(Ending.INTERRUPTED, "it was interrupted (SIGINT)")
    if name is not None:
        return _End(Ending.KILLED, f"it was ended by {name}")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception|Interrupt)\b", line)), lines[-1] if lines else "")
    return _End(Ending.FAILED, f"the worker ended with code {returncode}{': ' + said[:300] if said else ''}")


def _signal_name(returncode: int | None, printed: str) -> str | None:
    for pattern in _SIGNALS:
        found = pattern.search(printed)
        if found is not None:
            text = found[1]
            return text if text.startswith("SIG") else signal.Signals(-int(text)).name
    return signal.Signals(-returncode).name if returncode is not None and returncode < 0 else None


def outcome_of(logs: tuple[tuple[Event, ...], ...], broken: _End | None, silent: _End) -> Outcome:
    """One outcome from what each process wrote: the first ending that is not a success, the largest memory of any.

    `broken` is how this process ended the worker, which then says only that it was asked to; `silent` is for one that says nothing.
    """
    main = logs[0] if logs else ()
    said = [event for log in logs for event in log if event.ending is not None]
    bad = next((event for event in said if event.ending is not Ending.DONE), None)
    finished = bool(logs) and len(said) == len(logs)
    last = bad or (said[0] if finished else None)
    told = _End(last.ending, last.message, last.hint) if last is not None and last.ending is not None else silent
    end = broken if broken is not None and told.ending is not Ending.DONE else told
    ended_log = next((log for log in logs if bad in log), main) if bad is not None else main
    resident = [[event.rss_bytes for event in log if event.rss_bytes is not None] for log in logs]
    return Outcome(
        ending=end.ending,
        ended_in="" if end.ending is Ending.DONE else _place(ended_log),
        message=end.message,
        hint=end.hint,
        points=_points(logs),
        hardware=next((event.hardware for event in main if event.hardware is not None), None),
        versions=next((event.versions for event in main if event.versions is not None), {}),
        context_bytes=max((event.context_bytes for event in said if event.context_bytes is not None), default=None),
        libraries_rss_bytes=max((sizes[0] for sizes in resident if sizes), default=0),
        peak_rss_bytes=max((sizes[-1] for sizes in resident if sizes), default=0),
        notes=next((event.notes for event in said if event.notes), ()),
    )


def _place(log: tuple[Event, ...]) -> str:
    """ "backward (4 layers, 1 × 512 tokens)"."""
    last = next((event for event in reversed(log) if event.at), None)
    if last is None:
        return START
    return f"{last.at.replace('_', ' ')} ({last.shape})" if last.shape else last.at


def _points(logs: tuple[tuple[Event, ...], ...]) -> tuple[Point, ...]:
    """Every shape once: as the first process wrote it last, unless another one of them took more memory."""
    found: dict[tuple[int, int, int], Point] = {}
    for log in logs:
        for point in (event.point for event in log if event.point is not None):
            key = (point.layers, point.plan.micro_batch_size, point.plan.seq_len_tokens)
            held = found.get(key)
            if held is None or point.peak_bytes >= held.peak_bytes:
                found[key] = point
    return tuple(found.values())
