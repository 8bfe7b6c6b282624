"""The callback behind `record_callback`; the only module of this room that needs transformers."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from advisor.guard import guarded, say
from advisor.ledger import book as files
from advisor.ledger.build import preferring, run_from
from advisor.ledger.observed import from_trainer, peak_memory
from advisor.ledger.trainer_state import from_trainer_state
from advisor.user_files import write_whole
from advisor.values.run import RunRecord

UPDATE_EVERY_S = 30.0
"""Logs come faster than that; a killed run loses this much of its curve at most. Judgement."""
UPDATE_PATIENCE_S = 2.0
"""How long a training waits for other writers before its end; what could not be stored then is stored with the next log. Judgement."""


class RecordingCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to the type check
    """One run of one Trainer, from its beginning to its end. Nothing that goes wrong here ends the training."""

    def __init__(self, ledger: str | Path | None, fields: Mapping[str, Any]) -> None:
        self.run_id: int | None = None
        self._path = files.fixed_path(ledger)
        self._given = run_from(fields)
        self._setup = self._last = self._stored = RunRecord()
        self._began_s = self._updated_s = 0.0
        self._state: Any = None
        """The trainer's, once a training has begun whose process is the one that writes."""
        self._beside: Path | None = None
        """Where the run is kept while the ledger cannot be written."""

    def know(self, **fields: Any) -> None:
        """Fields of `advisor.record` that are right where the trainer says otherwise, told before training begins. Raises as `run_from`."""
        self._given = run_from(fields)

    def note(self, line: str) -> None:
        """A line that stands in the record from the next time that it is stored."""
        self._setup = self._setup.model_copy(update={"notes": (*self._setup.notes, line)})

    @guarded("record of this run")
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._state, self._setup, self._began_s = state, self._given, time.monotonic()
        atexit.register(_close_at_exit, weakref.ref(self))
        self._read_setup(args, kwargs.get("model"), kwargs.get("train_dataloader"))
        self._last = self._setup.model_copy(update={"unfinished": True})
        self._keep(UPDATE_PATIENCE_S)

    @guarded("set-up in the record of this run")
    def _read_setup(self, args: Any, model: Any, dataloader: Any) -> None:
        self._setup = preferring(self._given, from_trainer(args, model, dataloader), "callback")

    @guarded("record of this run")
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._updated_s >= UPDATE_EVERY_S:
            self._store(state, unfinished=True)

    @guarded("record of this run")
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._store(state, unfinished=self._last.unfinished)

    @guarded("record of this run")
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._store(state, unfinished=False)

    @guarded("record of this run")
    def close_as_failed(self) -> None:
        """What an exception that ended the process says of the run."""
        error = getattr(sys, "last_value", None)
        if self._last.unfinished and error is not None:
            self._store(self._state, unfinished=True, oom=_is_out_of_memory(error), note=f"ended by {type(error).__name__}")

    def _store(self, state: Any, unfinished: bool, oom: bool = False, note: str = "") -> None:
        """Bring the ledger up to date with the trainer's state."""
        if self._state is None:
            return
        self._last = self._last.model_copy(update={"unfinished": unfinished})
        try:
            self._last = self._observed(state, unfinished, oom, note)
        finally:  # where this look fails, what was seen before is kept
            self._keep(UPDATE_PATIENCE_S if unfinished and not note else files.BUSY_TIMEOUT_S)

    def _keep(self, patience_s: float) -> None:
        """Store the run as it is known now; in a file beside the ledger where that cannot be written."""
        try:
            if self.run_id is None:
                self.run_id = files.add(self._path, [self._last], patience_s)[0].id
            else:
                files.amend(self._path, self.run_id, lambda stored: _with_foreign(self._last, stored, self._stored), patience_s)
        except Exception as error:  # whatever it is, the training goes on
            self._keep_beside(str(error) or type(error).__name__)
        else:
            self._stored = self._last
            self._drop_beside()
        self._updated_s = time.monotonic()

    def _keep_beside(self, why: str) -> None:
        number = f"of-process-{os.getpid()}" if self.run_id is None else self.run_id
        beside = self._path.with_name(f"{self._path.stem}-run-{number}.json")
        try:
            write_whole(beside, f"{self._last.model_dump_json(exclude_defaults=True, indent=2)}\n".encode())
        except Exception as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            say(f"advisor: {why}; {beside} cannot be written either ({reason}): the run is not kept, unless a later try succeeds")
        else:
            self._beside = beside
            say(f"advisor: {why}; the run is kept in {beside}: advise record {beside}")

    def _drop_beside(self) -> None:
        """The ledger holds the run again; recorded from the file as well it would count twice."""
        if self._beside is not None:
            with suppress(OSError):
                self._beside.unlink()
            self._beside = None

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
