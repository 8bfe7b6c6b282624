"""Storing runs and reading them back: the calls behind `advise record` and `advise runs`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advisor.bounded import exists, place
from advisor.errors import InvalidInputError
from advisor.ledger import book as files
from advisor.ledger.build import completed, preferring, run_from
from advisor.ledger.items import read_items
from advisor.ledger.sources import runs_from
from advisor.values.run import RunRecord

_CURVE_POINTS = 2
"""So many equal losses are no chance; a single one, rounded by hand, may be. Judgement."""
_AGAIN = "recorded more than once: its training losses are the same to the last digit"


def record(source: str | Path | None = None, *, run: int | None = None, ledger: str | Path | None = None, **fields: Any) -> RunRecord:
    """Stores one run in the ledger and returns it with its number.

    `source` is a JSON file, a trainer_state.json or a trainer's output folder; the fields of `advisor.RunRecord` and of one
    `advisor.Evaluation`, given by name, are right where it says otherwise: `record("out", method="qlora", score=0.482, n=1319)`.
    `items` may be the path of a file. `run` is the number of a run that is there already and gets what was not known of it; a source
    with the training losses of a run that is there already is that run.

    Raises an AdvisorError, one clear line, for what it cannot use; then nothing has been stored.
    """
    stored = record_all(source, run=run, ledger=ledger, **fields)
    return stored[-1]


def record_all(
    source: str | Path | None = None, *, run: int | None = None, ledger: str | Path | None = None, **fields: Any
) -> tuple[RunRecord, ...]:
    """As `record`, for a source that may be a list of several runs: all of them are stored or none."""
    given = run_from(_with_item_file(fields))
    found = runs_from(source, given.method) if source is not None else ()
    if not found and given == RunRecord():
        raise InvalidInputError("there is nothing to record: give a file, a folder, or fields such as --method lora --score 0.48 --n 1319")
    if len(found) > 1 and given != RunRecord():
        raise InvalidInputError(f"{source} holds {len(found)} runs: fields beside it would be laid on all of them; give them in the file")
    told = tuple(preferring(given, entry, str(source)) for entry in found) or (given,)
    path = files.ledger_path(ledger)
    if run is None and source is not None and len(told) == 1:
        run = _already(told[0], files.load(path).runs)
        if run is not None:
            told = (told[0].model_copy(update={"source": "", "notes": (*told[0].notes, _AGAIN)}),)
    if run is None:
        return files.add(path, told)
    if len(told) > 1:
        raise InvalidInputError(f"{source} holds {len(told)} runs, and --run names one")
    return (files.amend(path, run, lambda known: completed(known, told[0], f"run {run}")),)


def _already(told: RunRecord, known: Iterable[RunRecord]) -> int | None:
    """Number of the run with the very same training losses: the same training, recorded once more."""
    if len(told.train_losses) < _CURVE_POINTS:
        return None
    curve = repr(told.train_losses)  # NaN equals itself in print only
    return next((entry.id for entry in known if repr(entry.train_losses) == curve), None)


def _with_item_file(fields: dict[str, Any]) -> dict[str, Any]:
    items = fields.get("items")
    if not isinstance(items, (str, Path)):
        return fields
    results, ids = read_items(place(items), str(fields.get("metric") or ""))
    return {**fields, "items": results, "item_ids": fields.get("item_ids") or ids}


def runs(ledger: str | Path | None = None) -> tuple[RunRecord, ...]:
    """Every run of the ledger, oldest first; none where there is no ledger yet. A warning names those that are damaged.

    Raises InvalidInputError for a file that is no ledger, and for one of which nothing can be read.
    """
    found = held(ledger)
    if found.problem:
        warnings.warn(found.problem, UserWarning, stacklevel=2)
    return found.runs


def held(ledger: str | Path | None = None) -> files.Held:
    """The same, with what is damaged as a value."""
    path = files.ledger_path(ledger)
    if ledger is not None and not exists(path):
        raise InvalidInputError(f"{path}: there is no ledger here; advise record makes one")
    return files.load(path)
