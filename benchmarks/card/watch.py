"""What keeps the events of a run: the card's own allocator, or the recorder where nothing else counts. Loaded in a child process only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from advisor.accuracy import history
from advisor.calibration import live
from advisor.tape.stream import STEP
from advisor.values import Phase


def of(job: Any, counters: Any) -> Any:
    """What watches this run."""
    if job.device == "cpu":
        return _Recorded(job.run.history)
    return _Allocator(counters, job.run.history)


class _Recorded:
    """The recorder, which a processor's run keeps on through its steps."""

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self.stream: Any = None
        self.layer_path = ""

    @contextmanager
    def steps(self, trainee: Any) -> Iterator[None]:
        recorder, trainee.recorder = trainee.recorder, _Marking(trainee.recorder)
        with recorder:
            yield
        self.stream, self.layer_path = recorder.close(), trainee.built.layer_path
        trainee.recorder = None

    def live_bytes(self) -> dict[Phase, int]:
        """Largest sum of live storages of each phase."""
        found = live.peaks(self.stream, self.layer_path, live.AS_RECORDED)
        return {phase: sum(entry.bytes for entry in terms) for phase, terms in found.items()}

    def write(self, trainee: Any, path: Path) -> None:
        if self.keeps:
            path.write_text(json.dumps(history.from_stream(self.stream)), encoding="utf-8")


class _Marking:
    """A recorder that is told where each optimizer step begins: at the first forward, and at each one after an update."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self._phase: Phase | None = None

    def begin(self, phase: Phase) -> None:
        if phase is Phase.FORWARD and self._phase is not Phase.BACKWARD:
            self._recorder.mark(STEP)
        self._phase = phase
        self._recorder.begin(phase)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)


class _Allocator:
    """torch's history of the caching allocator; each allocation is told step, phase and module by its user metadata."""

    def __init__(self, counters: Any, keeps: bool) -> None:
        self.tell = getattr(torch.cuda.memory, "_set_memory_metadata", lambda told: None)
        """Older releases of torch have none: there the time tells step and phase."""
        self.counters, self.keeps = counters, keeps
        self.beginnings: list[history.Beginning] = []
        self.modules = [""]
        if keeps:
            torch.cuda.memory._record_memory_history("all", context="alloc", stacks="python", max_entries=MOST_EVENTS)

    @contextmanager
    def steps(self, trainee: Any) -> Iterator[None]:
        trainee.recorder.close()
        trainee.recorder = None
        if not self.keeps:
            yield
            return
        names = {id(module): name for name, module in trainee.built.model.named_modules()}

        def enter(module: Any, inputs: Any) -> None:
            self.modules.append(names.get(id(module), self.modules[-1]))
            self._say()

        def leave(module: Any, inputs: Any, output: Any) -> None:
            if len(self.modules) > 1:
                self.modules.pop()
            self._say()

        begin, trainee.at = trainee.at, self._at(trainee.at)
        register = torch.nn.modules.module
        hooks = (register.register_module_forward_pre_hook(enter), register.register_module_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self.tell("")
            trainee.at = begin

    def _at(self, begin: Callable[[Phase], None]) -> Callable[[Phase], None]:
        def at(phase: Phase) -> None:
            begin(phase)
            self.beginnings.append(history.Beginning(time.time_ns() // 1000, self.counters.step, phase))
            self._say()

        return at

    def _say(self) -> None:
        self.tell(history.metadata_of(self.counters.step, self.counters.phase, self.modules[-1]))

    def live_bytes(self) -> dict[Phase, int]:
        return {}

    def write(self, trainee: Any, path: Path) -> None:
        if not self.keeps:
            return
        device = trainee.backend.device.index or torch.cuda.current_device()
        entries = torch.cuda.memory._snapshot()["device_traces"][device]
        torch.cuda.memory._record_memory_history(None)
        if len(entries) < MOST_EVENTS:
            path.write_text(json.dumps(history.from_snapshot(entries, self.beginnings)), encoding="utf-8")


MOST_EVENTS = 2_000_000
"""Of a history: a run that makes more overwrites its first ones, and keeps none."""
