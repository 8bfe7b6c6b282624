"""Starts each run in a process of its own and waits for its end, whichever that is. The parent never touches the card.

Children are forked from a server process that has loaded the libraries and no more, so that each has a context and an allocator of its own
without waiting for imports. Where that cannot be (no fork, or a library touched the card on import), they are spawned.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from advisor.calibration.job import START, read_events
from advisor.values.calibration import Ending
from benchmarks.card import child
from benchmarks.card.grid import Run

PRELOADED = ("benchmarks.card.preload",)


class Ended(NamedTuple):
    """What became of a run."""

    ending: Ending
    phase: str
    """In which it ended, where it did not reach the end."""
    message: str
    notes: tuple[str, ...]
    result: dict[str, Any] | None
    """What the child measured; None where it did not get so far."""
    events: dict[str, Any] | None
    """The history's events, where they were kept."""


class Launcher:
    def __init__(self, device: str) -> None:
        self.device = device
        # torch then counts cards by NVML on import, which leaves the driver alone (torch 2.13 cuda/__init__.py `is_available`).
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        leaves_the_driver_alone = device == "cpu" or find_spec("bitsandbytes") is None
        self.context = _forking(*PRELOADED, *(("peft",) if leaves_the_driver_alone else ()))

    def run(self, run: Run, timed_s: float, limit_s: float) -> Ended:
        """Make one run; after `limit_s` seconds it is ended."""
        ended = self._run(run, timed_s, limit_s)
        if ended.message != child.POISONED:
            return ended
        self.context = multiprocessing.get_context("spawn")
        return self._run(run, timed_s, limit_s)

    def _run(self, run: Run, timed_s: float, limit_s: float) -> Ended:
        with tempfile.TemporaryDirectory(prefix="on-card-") as name:
            folder = Path(name)
            process = self.context.Process(target=child.main, args=(child.Job(run, self.device, folder, timed_s),))
            process.start()
            try:
                process.join(limit_s)
                timed_out = process.exitcode is None
            finally:  # at its limit, and where the user interrupts
                process.kill()
                process.join()
            return _ended(folder, process.exitcode, f"it was not through after {limit_s:.0f} s" if timed_out else "")


def _forking(*preloaded: str) -> Any:
    """Children forked from a server that has loaded these modules; spawned where the system does not fork so."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preloaded])
    return context


def _ended(folder: Path, exit_code: int | None, timed_out: str) -> Ended:
    events = read_events(folder, 0)
    phase = next((event.at for event in reversed(events) if event.at), START)
    said = next((event for event in events if event.ending is not None), None)
    result, kept = _read(folder / child.RESULT_FILE), _read(folder / child.EVENTS_FILE)
    if said is not None and said.ending is not None:
        return Ended(said.ending, "" if said.ending is Ending.DONE else phase, said.message, said.notes, result, kept)
    if timed_out:
        return Ended(Ending.TIME_LIMIT, phase, timed_out, (), result, kept)
    printed = folder / "output.txt"
    lines = printed.read_text(encoding="utf-8", errors="replace").splitlines() if printed.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return Ended(Ending.KILLED, phase, f"the process ended with code {exit_code}: {last.strip()[:200]}", (), result, kept)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    return dict(zip(("labels", "allocations", "events", "segments"), found, strict=True)) if isinstance(found, list) else found
