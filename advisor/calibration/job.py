"""What the parent asks of the worker, and the lines that the worker writes back: files, so that a killed worker loses nothing.

Each process of the worker appends JSON lines to a file of its own, flushed one by one. The parent reads whole lines only.
"""

from __future__ import annotations

import json
from pathlib import Path

from advisor.values import ModelSpec, Plan, Value
from advisor.values.calibration import Ending, Hardware, Point
from advisor.values.vocabulary import Bytes

JOB_FILE = "job.json"
START = "starting the libraries"
LOAD = "load"
TIMING = "timed steps"
DRY_RUN = "dry run"


class Job(Value):
    """One run of the worker."""

    model: ModelSpec
    plan: Plan
    preflight: bool = False
    on_cpu: bool = False
    """Asked for with --device cpu: accelerate then leaves a card alone."""
    layers: int | None = None
    """Run this depth alone, at the plan's own batch."""
    timed_s: float
    parent_pid: int
    """The worker ends when this process is gone."""
    memory_limit_bytes: Bytes | None = None
    """Of each process on the host."""


class Event(Value):
    """One line: where the worker is, what it measured, or how it ended."""

    at: str = ""
    """Phase that begins now."""
    shape: str = ""
    """ "4 layers, 1 × 512 tokens"."""
    shapes: int | None = None
    """How many there are."""
    hardware: Hardware | None = None
    versions: dict[str, str] | None = None
    point: Point | None = None
    context_bytes: Bytes | None = None
    rss_bytes: Bytes | None = None
    """Resident memory of the process: the libraries alone in the first line that says it, the peak in the last."""
    notes: tuple[str, ...] = ()
    ending: Ending | None = None
    message: str = ""
    hint: str = ""


class Log:
    """Where one process of the worker writes its events."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = (folder / log_name(rank)).open("a", encoding="utf-8", buffering=1)

    def write(self, event: Event) -> None:
        self._file.write(event.model_dump_json(exclude_defaults=True) + "\n")

    def at(self, phase: str, shape: str = "") -> None:
        self.write(Event(at=phase, shape=shape))


def log_name(rank: int) -> str:
    return f"events-{rank}.jsonl"


def read_events(folder: Path, rank: int) -> tuple[Event, ...]:
    """Every whole line that one process has written so far; a line that was cut off by a kill is left out."""
    path = folder / log_name(rank)
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return tuple(event for event in map(_event, lines) if event is not None)


def _event(line: str) -> Event | None:
    try:
        return Event.model_validate(json.loads(line))
    except ValueError:  # pydantic's error and json's are both of this kind
        return None
