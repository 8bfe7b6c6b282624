"""Callbacks end no training: whatever fails inside them, the training goes on, and the run is kept wherever it can be."""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from advisor import record, runs
from advisor.errors import DoesNotFitError, InvalidInputError
from advisor.guard import guarded, say
from advisor.ledger import book

PACKAGE = Path(__file__).parent.parent / "advisor"
HOOKS_OF = ("TrainerCallback", "BasePlugin", "AdvisorCallback")
"""Classes whose methods a framework calls in the middle of a training (transformers, axolotl; ms-swift takes transformers' own)."""
NOT_CALLED_BY_TRAINING = {"get_input_args", "know", "note"}
"""axolotl asks for the first while it reads the configuration, and it returns a constant; the others are told by a guarded callback."""

LOG = [{"loss": 2.0 - number / 10, "learning_rate": 1e-4, "step": number + 1} for number in range(5)]


def state(steps: int = 5) -> Any:
    shown = {"log_history": LOG[:steps], "global_step": steps, "epoch": 1.0, "train_batch_size": 2, "num_input_tokens_seen": 0}
    return SimpleNamespace(is_world_process_zero=True, **shown)


@pytest.fixture
def arguments() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.TrainingArguments("out", report_to=[], use_cpu=True)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ADVISE_LEDGER", raising=False)
    return folder


@pytest.fixture
def warned() -> Iterator[Callable[[], list[str]]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield lambda: [str(warning.message) for warning in found]


def recording(at: Path | None = None, **fields: Any) -> Any:
    from advisor import record_callback

    return record_callback(ledger=at, method="lora", **fields)


def whole_training(callback: Any, args: Any) -> None:
    """What a Trainer calls."""
    callback.on_train_begin(args, state(0), None)
    callback._updated_s = 0.0  # half a minute has gone
    callback.on_log(args, state(2), None)
    callback.on_evaluate(args, state(3), None)
    callback.on_train_end(args, state(5), None)


# ------------------------------------------------------------------------------------------------------ every hook is guarded


def hook_methods() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & {*HOOKS_OF}:
                methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")]
                yield from ((f"{path.name}: {node.name}.{method.name}", method) for method in methods)


def test_every_method_that_a_framework_calls_is_guarded() -> None:
    found = dict(hook_methods())
    assert len(found) >= 11
    bare = [
        name
        for name, method in found.items()
        if method.name not in NOT_CALLED_BY_TRAINING and not any("guarded(" in ast.unparse(one) for one in method.decorator_list)
    ]
    assert bare == []


ERRORS = (OSError(28, "No space left on device"), RuntimeError("x"), KeyError("x"), RecursionError("x"), MemoryError(), ValueError("x"))


class _Fault:
    """Raises inside the Nth call of a function of the package; counts them where N is none."""

    def __init__(self, at: int | None) -> None:
        self.at, self.calls = at, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return
        if frame.f_code.co_name == "run" and frame.f_code.co_filename.endswith("guard.py"):
            return  # the guard's own frame is entered by the trainer
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # a generator is entered again on its way out, where no caller of it can clean up
        self.calls += 1
        if self.calls == self.at:
            raise ERRORS[self.calls % len(ERRORS)]


def injected(at: int | None, call: Callable[[], None]) -> int:
    fault = _Fault(at)
    before = sys.gettrace()
    sys.settrace(fault)
    try:
        call()
    finally:
        sys.settrace(before)
    return fault.calls


def sample(count: int) -> list[int]:
    """The first hundred calls, and a hundred of the others; wherever it is raised, the guard above is the same."""
    return [*range(1, 100), *range(100, count, max(count // 100, 1))]


def test_an_error_in_any_call_inside_the_recording_ends_nothing(arguments: Any, warned: Callable[[], list[str]], project: Path) -> None:
    first = recording(project / "0.sqlite")
    count = injected(None, lambda: whole_training(first, arguments))
    assert count > 100
    for at in sample(count):
        callback = recording(project / f"{at}.sqlite")
        injected(at, lambda made=callback: whole_training(made, arguments))  # type: ignore[misc]
    assert any("No space left" in text for text in warned())


def test_an_error_in_any_call_inside_the_pre_flight_ends_nothing(arguments: Any, warned: Callable[[], list[str]], project: Path) -> None:
    pytest.importorskip("torch")
    from test_hooks import LARGE, model

    from advisor import AdvisorCallback

    made = model()

    def flight(callback: Any) -> None:
        callback.on_init_end(arguments, state(0), None, model=made)
        callback.on_train_begin(arguments, state(0), None, model=made)
        callback.on_train_end(arguments, state(5), None)

    def callback(number: int) -> Any:
        return AdvisorCallback(gpu=LARGE, seq_len=16, ledger=project / f"{number}.sqlite", on_misfit="raise")

    first = callback(0)
    flight(first)
    assert first.report is not None
    assert len(runs(project / "0.sqlite")) == 1
    again = callback(0)
    count = injected(None, lambda: flight(again))
    assert count > 100
    for at in sample(count):
        one = callback(at)
        injected(at, lambda one=one: flight(one))  # type: ignore[misc]
    assert any("a bug of finetune-advisor" in text for text in warned())


# --------------------------------------------------------------------------------------------------- disks, folders, neighbours


def long_training(callback: Any, args: Any, begun: Callable[[], None] = lambda: None, late: Callable[[], None] = lambda: None) -> None:
    """2,000 logged steps; every hundredth is stored."""
    told = state(0)
    callback.on_train_begin(args, told, None)
    begun()
    for step in range(1, 2001):
        told.log_history = [*told.log_history, {"loss": 1.0 + step / 7, "learning_rate": 1e-4, "step": step}]
        told.global_step = step
        if step % 100 == 0:
            callback._updated_s = 0.0
            callback.on_log(args, told, None)
    late()
    callback.on_train_end(args, told, None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_nothing_and_leaves_nothing_half_written(
    small_disk: Path, arguments: Any, warned: Callable[[], list[str]]
) -> None:
    long_training(recording(small_disk / "l.sqlite"), arguments)
    assert any("cannot be written either" in text for text in warned())
    assert {path.name for path in small_disk.iterdir()} <= {"l.sqlite", "l-run-1.json"}
    (stored,) = runs(small_disk / "l.sqlite")
    assert stored.unfinished  # what it held before the disk was full
    assert len(stored.train_losses) > 100


def test_a_disk_that_has_room_again_holds_the_whole_run(small_disk: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    other = small_disk / "other"
    other.write_bytes(bytes(80_000))
    callback = recording(small_disk / "l.sqlite")
    callback.on_train_begin(arguments, state(0), None)
    long_training(callback, arguments)
    assert warned()
    other.unlink()
    callback.on_train_end(arguments, state(5), None)
    (stored,) = runs(small_disk / "l.sqlite")
    assert (stored.unfinished, len(stored.train_losses)) == (False, 5)
    assert [path.name for path in small_disk.iterdir()] == ["l.sqlite"]


def test_a_limit_on_the_size_of_files_ends_nothing(project: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        long_training(recording(project / "l.sqlite"), arguments, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any("File too large" in text for text in warned())
    assert len(runs(project / "l.sqlite")) == 1
    assert {path.name for path in project.iterdir()} <= {"l.sqlite", "l-run-1.json"}


def test_a_folder_that_vanishes_is_made_again_for_the_run(project: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    place = project / "gone"
    place.mkdir()
    long_training(recording(place / "l.sqlite"), arguments, lambda: shutil.rmtree(place))
    (kept,) = place.iterdir()
    assert kept.name == "l-run-1.json"
    assert len(record(kept, ledger=project / "new.sqlite").train_losses) == 2000
    assert any("there is no ledger here" in text for text in warned())


def test_a_folder_that_may_not_be_written_ends_nothing(project: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    if not hasattr(os, "geteuid"):
        pytest.skip("POSIX permissions")
    callback, user = recording(project / "l.sqlite"), os.geteuid()
    project.chmod(0o555)
    try:
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        long_training(callback, arguments)
    finally:
        os.seteuid(user)
        project.chmod(0o755)
    assert any("cannot be written either" in text for text in warned())
    assert [*project.iterdir()] == []


def test_a_ledger_that_is_locked_delays_a_training_by_little(project: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    callback = recording(project / "l.sqlite")
    callback.on_train_begin(arguments, state(0), None)
    holder = sqlite3.connect(project / "l.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    callback._updated_s, began = 0.0, time.monotonic()
    for steps in range(1, 5):
        callback.on_log(arguments, state(steps), None)  # the first one alone tries
    assert time.monotonic() - began < 10
    holder.close()
    callback.on_train_end(arguments, state(5), None)
    (stored,) = runs(project / "l.sqlite")
    assert len(stored.train_losses) == 5
    assert sorted(path.name for path in project.iterdir()) == ["l.sqlite"]  # the file beside it is gone again
    (text,) = warned()
    assert "locked by another process" in text


def test_a_run_that_could_not_be_begun_is_stored_at_its_end(project: Path, arguments: Any, warned: Callable[[], list[str]]) -> None:
    path = project / "l.sqlite"
    path.write_bytes(b"no ledger yet, and longer than the magic")
    callback = recording(path)
    callback.on_train_begin(arguments, state(0), None)
    assert callback.run_id is None
    assert [item.name for item in sorted(project.iterdir())] == [f"l-run-of-process-{os.getpid()}.json", "l.sqlite"]
    path.unlink()
    callback.on_train_end(arguments, state(5), None)
    assert [item.name for item in project.iterdir()] == ["l.sqlite"]
    (stored,) = runs(path)
    assert (stored.id, stored.unfinished, len(stored.train_losses)) == (1, False, 5)
    assert len(warned()) == 1


def test_a_set_up_that_cannot_be_read_is_recorded_without_it(project: Path, warned: Callable[[], list[str]]) -> None:
    callback = recording(project / "l.sqlite", rank=8)
    whole_training(callback, SimpleNamespace())
    (stored,) = runs(project / "l.sqlite")
    assert (stored.rank, stored.learning_rate, len(stored.train_losses)) == (8, 1e-4, 5)
    assert any("no set-up in the record of this run" in text for text in warned())


def test_a_ledger_that_can_be_nowhere_is_refused_where_it_is_named() -> None:
    pytest.importorskip("transformers")
    from advisor import AdvisorCallback

    name = "~no-such-user-here/l.sqlite"
    with pytest.raises(InvalidInputError):
        recording(Path(name))
    with pytest.raises(InvalidInputError):
        AdvisorCallback(ledger=name)


def test_the_ledger_is_the_one_of_where_the_callback_was_made(
    project: Path, arguments: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from advisor import AdvisorCallback

    recorder, advisor = recording(), AdvisorCallback(ledger=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVISE_LEDGER", "~no-such-user-here/l.sqlite")
    whole_training(recorder, arguments)
    assert len(runs(project / book.FILE_NAME)) == 1
    assert advisor._recording._path == project / book.FILE_NAME


# ---------------------------------------------------------------------------------------------------------------- warnings


def test_warnings_that_are_errors_end_nothing(project: Path, arguments: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "l.sqlite"
    callback = recording(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_train_begin(arguments, state(0), None)
        path.write_bytes(b"broken, and longer than the magic")
        callback.on_train_end(arguments, state(5), None)
    assert "the run is kept in" in capsys.readouterr().err
    assert json.loads((project / "l-run-1.json").read_text(encoding="utf-8"))["steps"] == 5


class Hooked:
    @guarded("look")
    def hook(self, args: Any) -> None:
        say("one word")
        warnings.warn("another", UserWarning, stacklevel=1)

    @guarded("look")
    def misfit(self, args: Any) -> None:
        raise DoesNotFitError("too large")


def test_what_would_be_warned_of_is_printed_then(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Hooked().hook(None)
        with pytest.raises(DoesNotFitError):
            Hooked().misfit(None)
    assert capsys.readouterr().err == "one word\nanother\n"


def test_without_a_stderr_nothing_is_said_and_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Hooked().hook(None)
