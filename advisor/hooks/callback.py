"""`AdvisorCallback` for transformers' Trainer and everything built on it; one of the modules of this room that need transformers.

It looks when the trainer is built, or, where the length of the sequences shows only in the data, when training begins; both before the
first step. At the end it lays what was measured beside what was predicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from advisor.configs.files import card_of
from advisor.guard import guarded, say, speaks
from advisor.hooks import live
from advisor.hooks.flight import Flight, PreflightOptions, act, report_of
from advisor.hooks.measured import compare, note_of, predicted
from advisor.ladder.request import options_as
from advisor.ledger.trainer_callback import RecordingCallback
from advisor.stacks import hf_arguments
from advisor.values.check import CheckReport, Comparison


class AdvisorCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to the type check
    """`Trainer(..., callbacks=[AdvisorCallback(gpu="rtx 4090", on_misfit="raise")])`.

    Options are those of `advisor.preflight`. With `ledger=True`, or a path, the run is recorded as `advisor.record_callback` does: from its
    beginning, with its losses, scores and end, and what was predicted and measured.
    `report` is the check, `comparison` what became of it; both None until then. It changes no setting, of model or trainer.
    """

    def __init__(self, *, ledger: bool | str | Path = False, **options: Any) -> None:
        self.report: CheckReport | None = None
        self.comparison: Comparison | None = None
        self._options = options_as(PreflightOptions, options, flags=False)
        if self._options.gpu is not None:  # a name that means no card is refused here, not in the middle of a start
            self._options = self._options.model_copy(update={"gpu": card_of(self._options.gpu)})
        self._recording = RecordingCallback(None if ledger is True else ledger, {}) if ledger else None
        self._looked = False
        self._trainer: Any = None
        """The trainer itself, where the framework hands it over."""

    @guarded("pre-flight")
    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        bounded = any(isinstance(getattr(args, name, None), int) for name in hf_arguments.LENGTHS)
        if kwargs.get("model") is not None and (bounded or self._options.seq_len is not None):
            self._check(args, kwargs["model"], None)

    @guarded("pre-flight")
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.report is None and kwargs.get("model") is not None:
            self._check(args, kwargs["model"], getattr(kwargs.get("train_dataloader"), "dataset", None), kwargs.get("optimizer"))
        if self._recording is not None:
            self._tell(self._recording)
            self._recording.on_train_begin(args, state, control, **kwargs)

    @guarded("record of this run")
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._recording is not None:
            self._recording.on_log(args, state, control, **kwargs)

    @guarded("record of this run")
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._recording is not None:
            self._recording.on_evaluate(args, state, control, **kwargs)

    @guarded("record of this run")
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.report is not None:
            self._compare(args, self.report)
        if self._recording is not None:
            self._recording.on_train_end(args, state, control, **kwargs)

    @guarded("comparison with what was measured")
    def _compare(self, args: Any, report: CheckReport) -> None:
        self.comparison = compare(report)
        if self.comparison is not None and not self.comparison.inside and speaks(args):
            say(f"advisor: {note_of(report, self.comparison)}")
        if self.comparison is not None and self._recording is not None:
            self._recording.note(note_of(report, self.comparison))

    @guarded("prediction in the record of this run")
    def _tell(self, recording: RecordingCallback) -> None:
        if self.report is not None:
            recording.know(**predicted(self.report))

    def _check(self, args: Any, model: Any, dataset: Any, optimizer: Any = None) -> None:
        """Look once. A model that cannot be read or priced is no reason to stop a training: then one line says so."""
        if self._looked:
            return
        self._looked = True
        spec = live.spec_of(live.inner_of(model))
        found = live.live_of(model, args, spec, self._trainer, optimizer)
        self.report = report_of(Flight(spec, found, self._options, dataset))
        on_misfit = self._options.on_misfit
        if on_misfit != "raise" and not speaks(args):
            return
        act(self.report, on_misfit, stacklevel=5)
