"""The callback behind `record_callback`; the only module of this room that needs transformers."""

from __future__ import annotations

import atexit
import sys
import time
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from advisor.runs import ledger as files
from advisor.runs.build import preferring, run_from
from advisor.runs.observed import from_trainer, peak_memory
from advisor.runs.trainer_state import from_trainer_state
from advisor.values.run import RunRecord

UPDATE_EVERY_S = 30.0
"""Logs come faster than that; a killed run loses this much of its curve at most. Judgement."""


class RecordingCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to the type check
    """One run of one Trainer, from its beginning to its end."""

    def __init__(self, ledger: str | Path | None, fields: Mapping[str, Any]) -> None:
        self.run_id: int | None = None
        self._path = files.ledger_path(ledger).absolute()  # now: a script may change its directory
        self._given = run_from(fields)
        self._setup = RunRecord()
        self._began_s = self._updated_s = 0.0
        self._last = RunRecord()
        self._state: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._setup = preferring(self._given, from_trainer(args, kwargs.get("model"), kwargs.get("train_dataloader")), "callback")
        self._began_s = self._updated_s = time.monotonic()
        begun = self._setup.model_copy(update={"unfinished": True})
        self.run_id = files.add(self._path, [begun])[0].id
        self._last, self._state = begun, state
        atexit.register(_close_at_exit, weakref.ref(self))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run_id is not None and time.monotonic() - self._updated_s >= UPDATE_EVERY_S:
            self._store(state, unfinished=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run_id is not None:
            self._store(state, unfinished=self._last.unfinished)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run_id is not None:
            self._store(state, unfinished=False)

    def close_as_failed(self) -> None:
        """What an exception that ended the process says of the run."""
        error = getattr(sys, "last_value", None)
        if self.run_id is None or not self._last.unfinished or error is None:
            return
        self._store(self._state, unfinished=True, oom=_is_out_of_memory(error), note=f"ended by {type(error).__name__}")

    def _store(self, state: Any, unfinished: bool, oom: bool = False, note: str = "") -> None:
        """Brings the ledger up to date. One that fails now must not end a training of days: the run then goes into a file beside it."""
        before, self._updated_s = self._last, time.monotonic()
        try:
            self._last = self._observed(state, unfinished, oom, note)
            files.amend(self._path, self.run_id or 0, lambda stored: _with_foreign(self._last, stored, before))
        except Exception as error:  # whatever it is, the training goes on
            beside = self._path.with_name(f"{self._path.stem}-run-{self.run_id}.json")
            beside.write_text(self._last.model_dump_json(exclude_defaults=True, indent=2) + "\n", encoding="utf-8")
            warnings.warn(f"{str(error) or type(error).__name__}; the run is kept in {beside}: advise record {beside}", stacklevel=2)

    def _observed(self, state: Any, unfinished: bool, oom: bool, note: str) -> RunRecord:
        seen = from_trainer_state(_state_fields(state), Path("Trainer"))
        update: dict[str, Any] = {"source": "", "notes": () if self._setup.learning_rate else seen.notes, **peak_memory()}
        if unfinished:  # then no score is the last one
            update["evaluations"] = tuple(entry.model_copy(update={"epoch": entry.epoch or seen.epochs}) for entry in seen.evaluations)
        else:
            update["seconds"] = seen.seconds or time.monotonic() - self._began_s
        if oom:
            update["oom"] = True
        known = preferring(self._setup, seen.model_copy(update=update), "callback")
        notes = (*known.notes, note) if note else known.notes
        return known.model_copy(update={"unfinished": unfinished, "notes": notes})


def _with_foreign(record: RunRecord, stored: RunRecord, before: RunRecord) -> RunRecord:
    """The record with the evaluations that somebody added by hand in the meantime."""
    own = {entry.model_dump_json() for entry in (*before.evaluations, *record.evaluations)}
    foreign = tuple(entry for entry in stored.evaluations if entry.model_dump_json() not in own)
    return record.model_copy(update={"evaluations": (*record.evaluations, *foreign)})


def _state_fields(state: Any) -> dict[str, Any]:
    names = ("log_history", "global_step", "epoch", "train_batch_size", "num_input_tokens_seen")
    return {name: getattr(state, name, None) for name in names}


def _is_out_of_memory(error: BaseException) -> bool:
    """torch.OutOfMemoryError, by name so that torch need not be loaded for it; or what the driver and the allocators say."""
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


def _close_at_exit(reference: weakref.ref[RecordingCallback]) -> None:
    callback = reference()
    if callback is not None:
        callback.close_as_failed()
