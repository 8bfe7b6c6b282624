"""The parent's side of `benchmarks/on_card.py`: which runs, in what order, until when, and what is kept of them."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from advisor.accuracy import Measurement
from advisor.devices.local import local_card
from advisor.errors import AdvisorError, InvalidInputError
from advisor.host import this_cpu
from advisor.values import GpuSpec
from advisor.values.calibration import Ending
from benchmarks.card import boundaries, ceilings, grid
from benchmarks.card.grid import Row, Run, run_of
from benchmarks.card.launcher import Launcher
from benchmarks.card.rows import read_rows, row_of, write_history, write_rows

TIMED_S, LONG_TIMED_S = 1.5, 5.0
"""Steps of a run are timed until so long has passed; longer where times are what is wanted."""
RUN_LIMIT_S = 120.0
"""Of one run. Judgement: the largest model is built in seconds, and no step of the grid takes ten."""
LAST_START_S = 15.0
"""A run is not begun with less left."""
CEILINGS_LIMIT_S = 120.0
TIMES_FILE = "times.json"


@dataclass(frozen=True, slots=True)
class Options:
    until: float
    """On `time.monotonic()`."""
    out: Path
    device: str
    only: str
    times: bool

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def wants(self, run_id: str) -> bool:
        return any(text in run_id for text in self.only.split(","))

    @property
    def left_s(self) -> float:
        return self.until - time.monotonic()


def listed(options: Options) -> int:
    """Print the ids of the grid; boundaries need a card, and are made from it."""
    for row in grid.SIDE_BY_SIDE if options.times else grid.ROWS:
        if options.wants(row.id):
            sys.stdout.write(f"{row.id}{'  (history)' if row.history else ''}\n")
    return 0


def run(options: Options) -> int:
    """Make the runs that have no row yet. 0 where all were made or skipped, 3 where the time ran out before.

    Raises InvalidInputError where there is no card, or --out holds something else.
    """
    gpu = this_cpu() if options.on_cpu else local_card()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(options.out)
    _say(f"{gpu.name}: {gpu.resolved_from or gpu.usable_source}; {len(rows)} rows in {options.out} already")
    launcher = Launcher(options.device)
    if options.times:
        _write_ceilings(options)
    done = {row.stated.get("run") for row in rows}
    left = 0
    for each in _runs(options, gpu):
        if each.id in done:
            continue
        if options.left_s < LAST_START_S:
            left += 1
            continue
        began = time.monotonic()
        limit_s = min(RUN_LIMIT_S, options.left_s)
        ended = launcher.run(each, LONG_TIMED_S if options.times else TIMED_S, limit_s)
        if ended.ending is Ending.TIME_LIMIT and limit_s < RUN_LIMIT_S:
            left += 1  # the end of the time that was given, and no result of the run
            continue
        row = row_of(each, ended, gpu, on_cpu=options.on_cpu)
        write_history(options.out, each, ended, row, on_cpu=options.on_cpu)
        rows.append(row)
        write_rows(options.out, rows)
        _say(f"{each.id}: {_told(row, ended.ending, ended.phase, ended.message)} ({time.monotonic() - began:.0f} s)")
    if options.times:
        _write_times(options, rows)
    _say(f"{len(rows)} rows in {options.out}{f'; {left} runs are left: the same command goes on' if left else ''}")
    return 3 if left else 0


def _runs(options: Options, gpu: GpuSpec) -> Iterator[Run]:
    """In their order; what cannot be run here is skipped with a line."""
    if options.times:
        yield from _made(grid.SIDE_BY_SIDE, options, gpu)
        return
    first = len(grid.WITH_HISTORY)
    yield from _made(grid.ROWS[:first], options, gpu)
    if not options.on_cpu:
        yield from (each for each in boundaries.runs(gpu) if options.wants(each.id))
    yield from _made(grid.ROWS[first:], options, gpu)


def _made(rows: tuple[Row, ...], options: Options, gpu: GpuSpec) -> Iterator[Run]:
    for row in rows:
        if not options.wants(row.id):
            continue
        missing = [name for name in row.needs if find_spec(name) is None]
        if missing:
            _say(f"{row.id}: skipped: {', '.join(missing)} is not installed")
            continue
        try:
            yield run_of(row, None if options.on_cpu else gpu, small=options.on_cpu)
        except AdvisorError as error:
            _say(f"{row.id}: skipped: {error}")


def _told(row: Measurement, ending: Ending, phase: str, message: str) -> str:
    sizes = ", ".join(f"{reading.metric.value} {reading.bytes / 2**30:.2f} GiB" for reading in row.readings)
    step = row.stated.get("timing", {}).get("step_s")
    timed = f", {1000 * step:.0f} ms a step" if step else ""
    if ending is Ending.DONE:
        return f"{sizes}{timed}"
    return f"{ending.value.replace('_', ' ')} in {phase.replace('_', ' ')}: {message[:160]}"


def _write_ceilings(options: Options) -> None:
    """In a process of its own: the parent leaves the card alone."""
    target = options.out / TIMES_FILE
    if target.exists():
        return
    process = multiprocessing.get_context("spawn").Process(target=ceilings.main, args=(options.device, target))
    process.start()
    process.join(min(CEILINGS_LIMIT_S, max(options.left_s, 1.0)))
    if process.exitcode is None:
        process.kill()
        process.join()
    if not target.exists():
        raise InvalidInputError(f"the ceilings were not measured (the process ended with code {process.exitcode}); give more --minutes")
    for name, value in json.loads(target.read_text(encoding="utf-8")).items():
        _say(f"{name.replace('_', ' ')}: {value:.4g}")


def _write_times(options: Options, rows: list[Measurement]) -> None:
    """Ceilings, and every run that was timed, into one file."""
    target = options.out / TIMES_FILE
    held: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    held["steps"] = [
        {
            "run": row.stated["run"],
            "tokens": (row.settings.micro_batch_size or 0) * (row.settings.seq_len_tokens or 0),
            **row.stated["timing"],
        }
        for row in rows
        if "timing" in row.stated
    ]
    target.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
