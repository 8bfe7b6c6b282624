"""Commands that write, killed in the middle, line by line. A program of its own: it forks, which a process with threads must not.

python tests/killing.py SCENARIO SIGNAL MOMENTS, in an empty folder
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from advisor import cli, user_files
from advisor.calibration import store
from advisor.cli.run import run
from advisor.ledger import book

PACKAGE = Path(__file__).parent.parent / "advisor"
_WRITE = (
    *("user_files.py", "cli/check_commands.py", "adapters/truncate.py", "ledger/book.py", "ledger/rows.py", "ledger/store.py"),
    *("sweeps/sweep.py", "sweeps/table.py", "cli/files.py", "tape/store.py"),
)
WRITERS = tuple(str(PACKAGE / name) for name in _WRITE)
"""Where what is written lies half done; a kill anywhere else is before or after."""
NOT_KILLED = -1


class _Killer:
    """Sends the process a signal at the Nth line that it runs in the writers."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number, self.lines = at, number, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        return self.line if frame.f_code.co_filename.startswith(WRITERS) else None

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                os.kill(os.getpid(), self.number)
        return self.line


def killed(action: Callable[[], int], at: int, number: int) -> int:
    """Exit code of a child that did this and was sent that signal at the Nth line; the signal's number, negative, where it ended so."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            for name in ("SIGTERM", "SIGHUP"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            cli._ended_by.clear()
            cli._end_cleanly()
            sys.settrace(_Killer(at, number))
            code = action()
        except KeyboardInterrupt:
            code = cli.EXIT_INTERRUPTED
        finally:
            sys.settrace(None)
            os._exit(128 + cli._ended_by[0] if cli._ended_by else code)
    for _ in range(6000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise AssertionError(f"a child that was sent {number} at line {at} did not end")


def lines_of(action: Callable[[], int]) -> int:
    """How many lines the writers run in it, told by a child."""
    reader, writer = os.pipe()

    def told() -> int:
        counter = _Killer(NOT_KILLED, 0)
        sys.settrace(counter)
        code = action()
        os.write(writer, str(counter.lines).encode())
        return code

    code = killed(told, NOT_KILLED, 0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        count = int(stream.read() or 0)
    assert code == 0
    return count


def moments(count: int, most: int) -> list[int]:
    """Numbers of lines, from the first to the last."""
    assert count > 15
    return sorted({1 + round(number * (count - 1) / (most - 1)) for number in range(most)})


def adapter(folder: Path) -> Path:
    """One layer of rank 8, laid down as the format's own description has it (huggingface.co/docs/safetensors)."""
    folder.mkdir()
    values = [((17 * number) % 13 - 6) / 7 for number in range(8 * 16)]
    names = ("base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight")
    size = 4 * len(values)
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [index * size, (index + 1) * size]}
        for index, (name, shape) in enumerate(zip(names, ([8, 16], [16, 8]), strict=True))
    }
    head = json.dumps(header).encode()
    body = struct.pack(f"<{len(values)}f", *values) * 2
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "init_lora_weights": True}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


JOURNAL = Path(f"{book.FILE_NAME}-journal")


def journal(number: int) -> set[str]:
    """SQLite leaves one behind that was not begun yet, and uses it no more (sqlite.org/tempfiles.html, "cold" journals)."""
    return {JOURNAL.name} if number == signal.SIGKILL else set()


# ------------------------------------------------------------------------------------------------------------------- commands


def a_run_is_stored_or_not_and_what_was_acknowledged_is(number: int, most: int, project: Path) -> None:
    arguments = ["record", "--method", "lora", "--rank", "8"]
    assert run(arguments) == 0
    before = (project / book.FILE_NAME).read_bytes()
    count = lines_of(lambda: run(arguments))
    stored = 0
    for at in moments(count, most):
        (project / book.FILE_NAME).write_bytes(before)
        code = killed(lambda: run(arguments), at, number)
        held = book.load(project / book.FILE_NAME)
        assert len(held.runs) in (1, 2)
        assert held.problem == ""
        assert code != 0 or len(held.runs) == 2
        assert code in ((-number,) if number == signal.SIGKILL else (128 + number,))
        stored += len(held.runs) - 1
        assert names(project) <= {book.FILE_NAME} | journal(number)
        JOURNAL.unlink(missing_ok=True)
    assert stored < len(moments(count, most))


def a_ledger_is_begun_or_not(number: int, most: int, project: Path) -> None:
    arguments = ["record", "--method", "lora", "--rank", "8"]
    count = lines_of(lambda: run(arguments))
    for at in moments(count, most):
        (project / book.FILE_NAME).unlink(missing_ok=True)
        killed(lambda: run(arguments), at, number)
        held = book.load(project / book.FILE_NAME)
        assert (len(held.runs), held.problem) in ((0, ""), (1, ""))
        assert names(project) <= {book.FILE_NAME} | journal(number)
        JOURNAL.unlink(missing_ok=True)


def a_configuration_is_whole_or_not_there(number: int, most: int, project: Path) -> None:
    from advisor.configs import emit

    arguments = ["config", "--stack", "axolotl", "--model", "llama-3.1-8b", "--gpu", "24GB", "--out", "q.yml"]
    assert run(arguments) == 0
    text = (project / "q.yml").read_bytes()
    written = emit.emitted("llama-3.1-8b", "24GB", "axolotl", {})
    emit.emitted = lambda *given: written  # what it is made of takes its time; the writing is what is killed
    (project / "q.yml").unlink()
    count = lines_of(lambda: run(arguments))
    for at in moments(count, most):
        for path in project.iterdir():
            path.unlink()
        code = killed(lambda: run(arguments), at, number)
        assert code in ((-number,) if number == signal.SIGKILL else (128 + number,))
        if (project / "q.yml").exists():
            assert (project / "q.yml").read_bytes() == text
        if number != signal.SIGKILL:
            assert names(project) <= {"q.yml"}


def a_truncated_adapter_is_whole_or_not_there(number: int, most: int, project: Path) -> None:
    adapter(project / "a")
    arguments = ["inspect", "a", "--truncate", "4", "--out", "b"]
    assert run(arguments) == 0
    whole = {path.name: path.read_bytes() for path in (project / "b").iterdir()}
    assert len(whole) == 2
    removed(project / "b")
    count = lines_of(lambda: run(arguments))
    removed(project / "b")
    for at in moments(count, most):
        code = killed(lambda: run(arguments), at, number)
        assert code in ((-number,) if number == signal.SIGKILL else (128 + number,))
        if (project / "b").exists():
            assert {path.name: path.read_bytes() for path in (project / "b").iterdir()} == whole
        if number != signal.SIGKILL:
            assert names(project) <= {"a", "b"}
        for path in project.iterdir():
            if path.name != "a":
                removed(path)


def removed(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def a_page_is_the_one_before_or_the_new_one(number: int, most: int, project: Path) -> None:
    from advisor.cli.answer import Answer
    from advisor.cli.pages import with_page

    def asked() -> int:
        return with_page("p.html", "What a plan takes", lambda: iter(()), Answer("")).exit_code

    before, page = "<p>of yesterday", project / "p.html"
    assert asked() == 0
    text = page.read_text(encoding="utf-8")
    assert len(text) > len(before)
    count = lines_of(asked)
    for at in moments(count, most):
        page.write_text(before, encoding="utf-8")
        code = killed(asked, at, number)
        assert code in ((-number,) if number == signal.SIGKILL else (128 + number,))
        assert page.read_text(encoding="utf-8") in (before, text)
        if number != signal.SIGKILL:
            assert names(project) == {"p.html"}
        for path in project.glob(".advise-*"):
            path.unlink()


def a_kept_tape_is_whole_or_not_there(number: int, most: int, project: Path) -> None:
    """A recording that was made on the way to an answer, of which the user's cache keeps a copy."""
    from advisor.tape import shipped, store

    path = next(shipped.shipped_files())
    head = shipped.head_of(path)
    assert head is not None
    alike = head.ways[0]
    tape = shipped.family_at(path, 0).of(alike.scales, alike.order)
    kind: Any = SimpleNamespace(path=project / "x.tape")

    def keep() -> int:
        store.keep(kind, tape)
        return 0

    assert keep() == 0
    whole = kind.path.read_bytes()
    store._read.clear()
    kind.path.unlink()
    packed = store.packed_tapes
    store.packed_tapes = lambda tapes: whole  # what it is made of takes its time; the writing is what is killed
    count = lines_of(keep)
    for at in moments(count, most):
        kind.path.unlink(missing_ok=True)
        killed(keep, at, number)
        assert not kind.path.exists() or kind.path.read_bytes() == whole
        if number != signal.SIGKILL:
            assert names(project) <= {"x.tape"}
        for path in project.glob(".advise-*"):
            path.unlink()
    assert packed((tape,)) == whole


def a_calibration_is_whole_or_not_there(number: int, most: int, project: Path) -> None:
    from test_calibrate import a_record

    os.environ[user_files.DATA.variable] = str(project)
    folder = project / "calibrations"
    record = a_record()
    text = store.save(record).read_bytes()

    def save() -> int:
        store.save(record)
        return 0

    count = lines_of(save)
    for at in moments(count, most):
        for path in folder.iterdir():
            path.unlink()
        killed(save, at, number)
        for path in folder.glob("*.json"):
            assert path.read_bytes() == text
        if number != signal.SIGKILL:
            assert all(path.suffix == ".json" for path in folder.iterdir())


def a_sweep_goes_on_to_the_same_bytes(number: int, most: int, project: Path) -> None:
    """Everything in children: pyarrow starts its threads at first use, and they do not outlive a fork."""
    from advisor.sweeps import kinds, sweep

    grid = "{model: llama-3.2-1b, gpu: [24GB, h100], method: [lora, full], rank: [8, 16], seq_len: [512, 1024]}"
    (project / "s.yaml").write_text(grid, encoding="utf-8")
    read = sweep.read_sweep(project / "s.yaml")
    rows = {(kind.model.id, kind.gpu.name, kind.request): kinds.rows_of(kind, 0, kind.rows) for kind in read}
    sweep.read_sweep = lambda path: read  # what it is made of takes its time; the writing is what is killed
    sweep.rows_of = lambda kind, first, last: rows[kind.model.id, kind.gpu.name, kind.request]
    arguments = ["sweep", "s.yaml", "--out", "s.parquet"]
    out, parts = project / "s.parquet", project / "s.parquet.parts"
    count = lines_of(lambda: run(arguments))
    whole = out.read_bytes()
    goes_on, chosen = 0, moments(count, -(-most // 2))  # each takes two sweeps
    for at in chosen:
        out.unlink(missing_ok=True)
        code = killed(lambda: run(arguments), at, number)
        assert code in ((-number,) if number == signal.SIGKILL else (128 + number,))
        if number != signal.SIGKILL:
            assert all(name.endswith(".arrow") or name == "sweep.json" for name in (names(parts) if parts.exists() else ()))
        done = out.exists()
        goes_on += parts.exists() and not done
        assert killed(lambda: run(arguments), NOT_KILLED, 0) == (2 if done else 0)
        assert out.read_bytes() == whole
        assert names(project) <= {"s.yaml", "s.parquet"} | {name for name in names(project) if name.startswith(".advise-")}
    assert goes_on > len(chosen) // 2


SCENARIOS = (
    a_run_is_stored_or_not_and_what_was_acknowledged_is,
    a_ledger_is_begun_or_not,
    a_configuration_is_whole_or_not_there,
    a_truncated_adapter_is_whole_or_not_there,
    a_page_is_the_one_before_or_the_new_one,
    a_kept_tape_is_whole_or_not_there,
    a_calibration_is_whole_or_not_there,
    a_sweep_goes_on_to_the_same_bytes,
)

if __name__ == "__main__":
    named = {scenario.__name__: scenario for scenario in SCENARIOS}
    named[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), Path.cwd())
