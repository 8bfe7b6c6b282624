"""What a run measured, as a row of `profiles/measurements/` and as a history for `advise accuracy --snapshots`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from advisor import __version__
from advisor.accuracy import Measurement
from advisor.accuracy.history import SUFFIX, History, write
from advisor.calibration.export import settings_of
from advisor.errors import InvalidInputError
from advisor.json_files import read_json
from advisor.tape import store
from advisor.values import GpuSpec, Stack
from advisor.values.calibration import Ending
from benchmarks.card.child import MEASURED_STEPS
from benchmarks.card.grid import Run
from benchmarks.card.launcher import Ended

SOURCE = "a contributor's own card"
COMMAND = "python benchmarks/on_card.py"
ROWS_FILE = "rows.json"


def row_of(run: Run, ended: Ended, gpu: GpuSpec, *, on_cpu: bool) -> Measurement:
    """The row of a run that ended in any way; what did not measure a card, or did not run, is kept and not scored."""
    result = ended.result or {}
    out_of_memory = ended.ending is Ending.OUT_OF_MEMORY
    reason = _unscored(ended, on_cpu)
    now = datetime.now(timezone.utc)
    return Measurement.model_validate(
        {
            "id": f"{slug(gpu.name)}-{now:%Y%m%d}-{run.id}",
            "kind": "boundary" if out_of_memory else "run",
            "source": SOURCE,
            "place": f"{COMMAND} --only {run.id}",
            "revision": f"finetune-advisor {__version__}, {now:%Y-%m-%d}",
            "grade": "A",
            "model": run.model.id,
            "layers": run.layers,
            "gpu": result.get("card") or gpu.name,
            "card": None if on_cpu else gpu.name,
            "usable_bytes": None if on_cpu else gpu.usable_bytes,
            "n_gpus": 1,
            "versions": versions(),
            "scored": not reason,
            "reason": reason,
            "fits": False if out_of_memory else None,
            "loop": {"steps": MEASURED_STEPS, **({"clips": False} if run.plan.stack is Stack.PLAIN else {})},
            "settings": settings_of(run.plan),
            "readings": [] if out_of_memory else [*_readings(result)],
            "stages": [
                {"name": name, "max_allocated_bytes": size, "reserved_bytes": result["reserved"].get(name)}
                for name, size in result.get("phases", {}).items()
            ],
            "context_bytes": result.get("context_bytes"),
            "stated": _stated(run, ended, result, now),
            "tags": (run.group,),
        }
    )


def versions() -> dict[str, str]:
    """Of the installed libraries that a run may run."""
    found = dict(store.installed())
    try:
        return {**found, "liger-kernel": version("liger-kernel")}
    except PackageNotFoundError:
        return found


def _unscored(ended: Ended, on_cpu: bool) -> str:
    if on_cpu:
        return "live storages were counted, not a card's memory"
    if ended.ending is Ending.OUT_OF_MEMORY or ended.result is not None:
        return ""
    return f"it did not run: {ended.message}"[:300]


def _readings(result: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for metric, sizes in (("allocated", result.get("phases")), ("reserved", result.get("reserved"))):
        if sizes:
            yield {"metric": metric, "bytes": max(sizes.values()), "what": f"peak of loading and {MEASURED_STEPS} steps"}
    if result.get("process_bytes"):
        yield {"metric": "process", "bytes": result["process_bytes"], "what": "NVML, after the last of these steps"}


def _stated(run: Run, ended: Ended, result: dict[str, Any], now: datetime) -> dict[str, Any]:
    names = ("driver", "compute_capability", "torch_cuda", "later_reserved_bytes", "timing")
    found = {name: result[name] for name in names if result.get(name) not in (None, "")}
    if ended.ending is not Ending.DONE:
        found |= {"ending": ended.ending.value, "ended_in": ended.phase, "message": ended.message}
    return {"run": run.id, "created_at": now.isoformat(timespec="seconds"), **found, **({"notes": [*ended.notes]} if ended.notes else {})}


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def read_rows(folder: Path) -> list[Measurement]:
    """The rows that are there already. Raises InvalidInputError where the file holds something else."""
    path = folder / ROWS_FILE
    if not path.exists():
        return []
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InvalidInputError(f"{path}: holds no list of rows; name another --out")
    return [Measurement.model_validate(row) for row in rows]


def text_of(rows: Iterable[Measurement]) -> str:
    """A file of rows, one a line."""
    lines = ",\n".join(f"  {json.dumps(row.model_dump(mode='json', exclude_defaults=True), ensure_ascii=False)}" for row in rows)
    return f"[\n{lines}\n]\n"


def write_rows(folder: Path, rows: Iterable[Measurement]) -> None:
    """The file is whole or as it was."""
    unfinished = folder / f"{ROWS_FILE}.unfinished"
    unfinished.write_text(text_of(rows), encoding="utf-8")
    unfinished.replace(folder / ROWS_FILE)


def write_history(folder: Path, run: Run, ended: Ended, row: Measurement, *, on_cpu: bool) -> None:
    """The history's file, where the run kept one."""
    if ended.events is None or ended.result is None:
        return
    peaks = [] if on_cpu else [{"phase": name, "allocated_bytes": size} for name, size in ended.result["phases"].items()]
    held = {"row": row, "config": run.config, "steps": MEASURED_STEPS, "peaks": peaks, "made_by": "recorder" if on_cpu else "allocator"}
    write(History.model_validate({**held, **ended.events}), folder / f"{run.id}{SUFFIX}")
