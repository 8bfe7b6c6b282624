"""Dry-run every measured run under the library versions that it ran with, and keep what was found.

    python benchmarks/trace_measured.py                      all rows of profiles/measurements/, into profiles/measurements/traced/
    python benchmarks/trace_measured.py --rows FILE          the rows of that file, into FILE's folder, traced/
    python benchmarks/trace_measured.py --only TEXT          rows with TEXT in their id
    python benchmarks/trace_measured.py --environments DIR   where the environments are made and found again (default: build/environments)

For each set of versions a virtual environment is made with pip and a child traces there. Rows that state no versions are traced under those
that run this script, and so is torch itself: what is pinned is what writes the step (transformers, peft, bitsandbytes, accelerate).
`python -m advisor.accuracy` then writes the residuals, and `advise accuracy` shows the errors.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from advisor.accuracy import MeasuredPlan, Measurement, Traced, accuracy, dry_run, measurements, read_measurements
from advisor.accuracy.tiers import DRY_RUN
from advisor.errors import AdvisorError
from advisor.values import MemoryBreakdown

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "profiles" / "measurements" / "traced"
ENVIRONMENTS = ROOT / "build" / "environments"
PINNED = ("transformers", "peft", "bitsandbytes", "accelerate")
OLDEST = {"bitsandbytes": "0.46.0"}
"""Older ones know no meta device."""
Pins = tuple[tuple[str, str], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = measurements() if arguments.rows is None else read_measurements(arguments.rows)
    rows = tuple(row for row in rows if row.scored and arguments.only in row.id)
    if arguments.here is not None:
        wanted = set(json.loads(arguments.here.read_text()))
        write(arguments.here, trace_here([row for row in rows if row.id in wanted]))
        return
    target = TARGET if arguments.rows is None else arguments.rows.parent / "traced"
    target.mkdir(parents=True, exist_ok=True)
    for pins, ids in by_versions(rows).items():
        python = environment(pins, arguments.environments) if pins else Path(sys.executable)
        found = trace_there(python, ids, arguments.rows)
        name = "_".join(f"{library}-{number}" for library, number in pins) or "installed"
        kept = [row for row in read(target / f"{name}.json") if row.id not in ids]
        write(target / f"{name}.json", sorted([*kept, *found], key=lambda row: (row.id, row.seq_len_tokens)))


def by_versions(rows: tuple[Measurement, ...]) -> dict[Pins, list[str]]:
    groups: dict[Pins, list[str]] = {}
    for row in rows:
        groups.setdefault(pins_of(row.versions), []).append(row.id)
    return groups


def pins_of(versions: Mapping[str, str]) -> Pins:
    """Nothing where the row does not say which transformers it ran: the rest alone would be no environment of its own."""
    if "transformers" not in versions:
        return ()
    return tuple((library, at_least(library, versions[library])) for library in PINNED if library in versions)


def at_least(library: str, stated: str) -> str:
    oldest = OLDEST.get(library, stated)
    return max(stated, oldest, key=lambda text: [int(part) for part in re.findall(r"\d+", text)])


def environment(pins: Pins, folder: Path) -> Path:
    """The python of an environment with those versions; made where it is missing."""
    home = folder / "_".join(f"{library}-{number}" for library, number in pins)
    python = home / "bin" / "python"
    done = home / "complete"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        fixed = [
            f"torch=={version('torch').partition('+')[0]}",
            *(f"{library}=={number}" for library, number in pins if ".dev" not in number),
        ]
        development = [(library, number) for library, number in pins if ".dev" in number]
        install(python, fixed, development)
        done.touch()
    return python


def install(python: Path, fixed: list[str], development: list[tuple[str, str]]) -> None:
    """A development version stands for the release that it became, or, where that number never came out, the one before."""
    attempts = [[*fixed, *(f"{library}=={release}" for library, release in choice)] for choice in releases(development)]
    for number, attempt in enumerate(attempts, start=1):
        command = [str(python), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[torch]", *attempt]
        sys.stderr.write(f"pip install {' '.join(attempt)}\n")
        if subprocess.run(command, check=number == len(attempts)).returncode == 0:
            return


def releases(development: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    bases = [(library, number.partition(".dev")[0]) for library, number in development]
    yield bases
    if bases:
        yield [(library, before(number)) for library, number in bases]


def before(release: str) -> str:
    head, _, last = release.rpartition(".")
    return f"{head}.{max(int(last) - 1, 0)}"


def trace_there(python: Path, ids: list[str], rows: Path | None) -> list[Traced]:
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder) / "rows.json"
        exchange.write_text(json.dumps(ids))
        command = [str(python), __file__, "--here", str(exchange), *(["--rows", str(rows)] if rows else [])]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        return read(exchange)


def trace_here(rows: list[Measurement]) -> list[Traced]:
    """Each row at each of its lengths, under the installed libraries."""
    done: dict[tuple[str, int], MemoryBreakdown] = {}

    def once(ran: MeasuredPlan) -> MemoryBreakdown:
        key = ran.row.id, ran.plan.seq_len_tokens
        if key not in done:
            done[key] = dry_run(ran)
        return done[key]

    for row in rows:
        report = accuracy(once, DRY_RUN, rows=[row])
        for refused in report.not_scored:
            sys.stderr.write(f"{refused.id}: {refused.reason}\n")
        for item in report.comparisons:
            sys.stderr.write(f"{item.id} {item.seq_len_tokens} {item.metric.value} {item.relative_error:+.2%}\n")
    return [
        Traced(id=row, seq_len_tokens=length, versions=found.versions, phases=found.phases, reserved_slack_bytes=found.reserved_slack_bytes)
        for (row, length), found in done.items()
    ]


def read(path: Path) -> list[Traced]:
    return [Traced.model_validate(row) for row in json.loads(path.read_text())] if path.exists() else []


def write(path: Path, rows: list[Traced]) -> None:
    """One line a row, so that a change is seen as one; the file is whole or as it was."""
    lines = ",\n".join(f" {json.dumps(row.model_dump(mode='json'))}" for row in rows)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f"[\n{lines}\n]\n")
    unfinished.replace(path)


if __name__ == "__main__":
    try:
        main()
    except AdvisorError as error:
        sys.exit(f"error: {error}")
