"""Hold tapes against fresh dry runs at shapes that were never recorded: every type with tables, by method and checkpointing.

    python benchmarks/tapes.py FILE                  goes on with FILE, one line of JSON a case (hours on one free core), and sums it up
    python benchmarks/tapes.py FILE --report         sums up what is there
    python benchmarks/tapes.py FILE --types llama    these types alone

A case records the tape of a plan at one shape and asks it for another, which lies inside its regime or, where the recorded regime ends
before, is recorded for itself. Allocated and reserved bytes of both are kept, with what the recording took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.architectures import spec_from_config
from advisor.errors import AdvisorError
from advisor.memory.runtime import HANDLES, workspace_bytes
from advisor.tape import store
from advisor.tape.sizes import Shape
from advisor.values import Method, ModelSpec, Plan

GRID = Path(__file__).parent.parent / "tests" / "data" / "type_grid.json"
"""Small configs of every type with tables (benchmarks/type_grid.py)."""
RECORDED, ASKED = ((1, 1024), (4, 1024)), ((1, 1664), (3, 1792))
"""Rows and tokens: the first of each for plans with checkpointing, the second for those without."""


def cases(types: list[str]) -> Iterator[tuple[str, ModelSpec, Plan]]:
    """Method by method, so that a run that is stopped has seen every type."""
    grid = json.loads(GRID.read_text(encoding="utf-8"))["types"]
    specs = {name: spec_from_config(row["config"], id=name, source="type grid") for name, row in grid.items() if not types or name in types}
    for method in Method:
        for checkpointing in (True, False):
            for name, spec in specs.items():
                quantization = {"quantization": "nf4"} if method.is_quantized else {}
                plan = Plan(method=method, **quantization, gradient_checkpointing=checkpointing)
                yield f"{name} {method.value} {'checkpointed' if checkpointing else 'kept'}", spec, plan


def measured(spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    """One case: bytes of the tape and of a fresh dry run."""
    from advisor.dryrun import dry_run, tapes, trace

    which = 0 if plan.gradient_checkpointing else 1
    first, asked = (_at(plan, *shapes[which]) for shapes in (RECORDED, ASKED))
    started = time.process_time()
    with dry_run.library_errors(spec):
        tape = tapes.tape_of(spec, first)
    recorded_s = time.process_time() - started
    shape = Shape(asked.micro_batch_size, asked.seq_len_tokens)
    covered = tape.regime.covers(shape)
    if not covered:
        tape = tapes.tape_of(spec, asked)
    started = time.process_time()
    layout = tape.lay_out(shape, workspace_bytes(None) // HANDLES)
    replayed_s = time.process_time() - started
    fresh = trace(spec, asked).breakdown
    return {
        "covered": covered,
        "allocated": [layout.top.allocated_bytes, fresh.peak_allocated_bytes],
        "reserved": [layout.peak_reserved_bytes, fresh.peak_reserved_bytes],
        "recorded_s": round(recorded_s, 2),
        "replayed_s": round(replayed_s, 4),
        "file_bytes": len(store.packed_tapes((tape,))),
    }


def _at(plan: Plan, rows: int, tokens: int) -> Plan:
    return plan.model_copy(update={"micro_batch_size": rows, "seq_len_tokens": tokens})


def go_on(target: Path, types: list[str]) -> None:
    """Measure the cases that `target` lacks."""
    done = {row["case"] for row in read(target)}
    for case, spec, plan in cases(types):
        if case in done:
            continue
        try:
            row = measured(spec, plan)
        except AdvisorError as error:
            row = {"refused": str(error)}
        with target.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"case": case, **row}) + "\n")


def read(target: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()] if target.exists() else []


def report(rows: list[dict[str, Any]]) -> str:
    """How many cases were equal to the byte, and which were not."""
    known = [row for row in rows if "refused" not in row]
    wrong = [row for row in known if len(set(row["allocated"])) > 1 or len(set(row["reserved"])) > 1]
    types = {row["case"].split()[0] for row in known}
    lines = [
        f"{len(known)} cases of {len(types)} types, {len(rows) - len(known)} refused by the libraries",
        f"{sum(row['covered'] for row in known)} asked inside the recorded regime, the others recorded for themselves",
        f"{len(known) - len(wrong)} equal to a fresh dry run to the byte, allocated and reserved",
        *(f"  {row['case']}: allocated {_error(row['allocated'])}, reserved {_error(row['reserved'])}" for row in wrong),
    ]
    return "\n".join(lines)


def _error(pair: list[int]) -> str:
    return f"{pair[0] / pair[1] - 1:+.4%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        warnings.simplefilter("ignore")
        go_on(arguments.file, arguments.types)
    print(report(read(arguments.file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
