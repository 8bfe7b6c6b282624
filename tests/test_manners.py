"""What a new user types first: names without flags, nothing at all, half a word and a tab, a slip of the finger."""

from __future__ import annotations

import os
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from advisor import __version__, api
from advisor.cli.app import SUBCOMMANDS
from advisor.cli.run import run
from advisor.values import Method

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "flagged"),
    [
        (["llama-70b", "80GB"], ["--model", "llama-70b", "--gpu", "80GB"]),
        (["llama-70b", "80GB", "--rank", "8"], ["--model", "llama-70b", "--gpu", "80GB", "--rank", "8"]),
        (["--rank", "8", "llama-70b", "80GB"], ["--model", "llama-70b", "--gpu", "80GB", "--rank", "8"]),
        (["llama-70b", "--rank", "8", "80GB"], ["--model", "llama-70b", "--gpu", "80GB", "--rank", "8"]),
        (["--gpu", "80GB", "llama-70b"], ["--model", "llama-70b", "--gpu", "80GB"]),
        (["--model", "llama-70b", "80GB"], ["--model", "llama-70b", "--gpu", "80GB"]),
        (["meta-llama/Llama-3.1-8B", "rtx 4090"], ["--model", "meta-llama/Llama-3.1-8B", "--gpu", "rtx 4090"]),
        (
            ["estimate", "llama-70b", "80GB", "--method", "qlora"],
            ["estimate", "--model", "llama-70b", "--gpu", "80GB", "--method", "qlora"],
        ),
        (
            ["estimate", "--method", "qlora", "llama-70b", "80GB"],
            ["estimate", "--model", "llama-70b", "--gpu", "80GB", "--method", "qlora"],
        ),
        (["fit", "llama-3.2-1b", "t4", "--seq-len", "max"], ["fit", "--model", "llama-3.2-1b", "--gpu", "t4", "--seq-len", "max"]),
        (["llama-70b", "80GB", "--method", "QLoRA"], ["--model", "llama-70b", "--gpu", "80GB", "--method", "qlora"]),
    ],
)
def test_model_and_card_need_no_flags(arguments: list[str], flagged: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ends = []
    for given in (arguments, flagged):
        code = run([*given, "--json"])
        ends.append((code, capsys.readouterr()))
    assert ends[0] == ends[1]
    assert ends[0][0] == 0


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"]])
def test_nothing_and_help_print_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert {name for name in SUBCOMMANDS if not re.search(rf"^  {name}  ", shown.out, re.MULTILINE)} == set()


@pytest.mark.parametrize("command", SUBCOMMANDS)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_of_every_command_keeps_to_the_screen(
    command: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: advise {command} ")
    assert "--no-color" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("  advise ")) <= int(columns)


def test_help_says_the_defaults_that_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    plan = api.price("llama-3.1-8b", method="qlora").plan
    run(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for said in (f"[{plan.rank}]", f"[{plan.seq_len_tokens:,}]", f"[{plan.micro_batch_size}]", f"[{plan.optimizer.value}]", "[nf4]"):
        assert said in text
    assert ", ".join(method.value for method in Method) in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--modle", "llama-70b"], "No such option: --modle; did you mean --model?"),
        (["llama-70b", "80GB", "--methd", "lora"], "No such option: --methd; did you mean --method?"),
        (["estimat", "--model", "llama-70b"], "No such command 'estimat'. Did you mean 'estimate'?"),
        (["llama-70b", "80GB", "--method", "qlorra"], "did you mean qlora?"),
        (["llama-70b", "80GB", "--head", "classificaton"], "did you mean classification?"),
        (["lama-70b", "80GB"], "did you mean llama-70b"),
        (["llama-70b", "rtx 4091"], "RTX 4090"),
    ],
)
def test_a_slip_is_offered_what_was_nearly_written(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert line in capsys.readouterr().err


def test_choices_are_read_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", "--model", "modernbert-base", "--json"]
    assert run([*arguments, "--head", "TOKENS", "--method", "LoRA", "--loss", "Full", "--stack", "HF"]) == 0
    loud = capsys.readouterr().out
    assert run([*arguments, "--head", "tokens", "--method", "lora", "--loss", "full", "--stack", "hf"]) == 0
    assert capsys.readouterr().out == loud


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with `advise` on the path."""
    program = tmp_path / "bin" / "advise"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m advisor "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


BASH = """
eval "$(_ADVISE_COMPLETE=source_bash advise)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_advise_completion advise "${COMP_WORDS[$COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """PROMPT= ; autoload -Uz compinit; compinit -u; eval "$(_ADVISE_COMPLETE=source_zsh advise)"
said() { print -r -- "LINE<$BUFFER>" }; zle -N said; bindkey '^X' said; print it-is"-"ready
"""
"""Ctrl-X says what stands on the line."""
COMPLETED = [
    (["advise", "esti"], "estimate"),
    (["advise", "--model", "llama-3.1-8"], "llama-3.1-8b"),
    (["advise", "--model", "meta-llama/Llama-3.1-7"], "meta-llama/Llama-3.1-70B"),
    (["advise", "--gpu", "tesla-t"], "tesla-t4"),
    (["advise", "--method", "q"], "qdora"),
    (["advise", "estimate", "--optim"], "--optimizer"),
    (["advise", "estimate", "--stack", "a"], "axolotl"),
    (["advise", "explain", "kbit-u"], "kbit-upcast"),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(("typed", "offered"), COMPLETED, ids=lambda value: " ".join(value) if isinstance(value, list) else value)
def test_bash_completes(typed: list[str], offered: str, on_path: Path) -> None:
    done = subprocess.run(["bash", "--norc", "-c", BASH, "bash", *typed], capture_output=True, text=True, check=True)
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
@pytest.mark.parametrize(("typed", "offered"), COMPLETED, ids=lambda value: " ".join(value) if isinstance(value, list) else value)
def test_zsh_completes(typed: list[str], offered: str, on_path: Path) -> None:
    """Typed in a shell of its own on a terminal: completion works nowhere else. Tab completes the line, or lists what it may become."""
    environment = {"HOME": str(on_path), "PATH": os.environ["PATH"], "TERM": "dumb", "COLUMNS": "200"}
    primary, secondary = os.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=secondary, stdout=secondary, stderr=secondary, env=environment, start_new_session=True
    )
    os.close(secondary)
    try:
        os.write(primary, ZSH.encode())
        _read_to(primary, "it-is-ready")
        os.write(primary, f"{' '.join(typed)}\t\x18".encode())
        shown = _read_to(primary, ">\r\n")
    finally:
        shell.kill()
        shell.wait()
        os.close(primary)
    assert offered in re.split(r"[\s<>]", shown), shown


def _read_to(terminal: int, mark: str) -> str:
    """What a terminal shows until the mark is there; two minutes are for machines that are busy."""
    shown = ""
    end_s = time.monotonic() + 120
    while mark not in shown and time.monotonic() < end_s:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_the_version_loads_nothing() -> None:
    code = "import sys; sys.argv = ['advise', '--version']\nfrom advisor.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, loaded = done.stdout.splitlines()
    assert version == f"finetune-advisor {__version__}"
    assert {"typer", "pydantic", "rich"} & set(loaded.split()) == set()


@pytest.mark.parametrize("how", [{"NO_COLOR": "1"}, {}], ids=["NO_COLOR", "--no-color"])
def test_colour_and_links_can_be_left_out_on_a_terminal(how: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of the kernel's own, so that the command finds one."""
    pty = pytest.importorskip("pty")
    flag = [] if how else ["--no-color"]
    assert "\x1b[" in _on_a_terminal(pty, ["llama-70b", "80GB"], {})
    assert "\x1b" not in _on_a_terminal(pty, ["llama-70b", "80GB", *flag], how).replace("\r\x1b[K", "")
    assert "\x1b" not in _on_a_terminal(pty, ["gpus", "t4", *flag], how).replace("\r\x1b[K", "")


def _on_a_terminal(pty: object, arguments: list[str], env: dict[str, str]) -> str:
    import os

    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100", "PYTHONPATH": str(ROOT), **env}
    primary, secondary = os.openpty()
    process = subprocess.Popen([sys.executable, "-m", "advisor", *arguments], stdout=secondary, stderr=subprocess.DEVNULL, env=environment)
    os.close(secondary)
    text = b""
    try:
        while chunk := os.read(primary, 65536):
            text += chunk
    except OSError:  # Linux says so that the other end is closed
        pass
    os.close(primary)
    assert process.wait(timeout=60) == 0
    return text.decode()


# ------------------------------------------------------------------------------------------------------------------- progress

CURSOR_HIDDEN, CURSOR_SHOWN = b"\x1b[?25l", b"\x1b[?25h"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("arguments", "code", "told", "last"),
    [
        (["compare", "llama-3.1-8b", "qwen3-8b", "--gpu", "l4"], 0, b"Qwen3-8B on L4", b"10.0 M tokens."),
        (["compare", "llama-3.1-8b", "/nowhere/config.json", "--gpu", "l4"], 2, b"Llama-3.1-8B on L4", b"config.json"),
    ],
    ids=["an answer", "an error"],
)
def test_progress_is_a_line_that_goes(arguments: list[str], code: int, told: bytes, last: bytes) -> None:
    """On a terminal; what comes after it stands on a clean line, and the cursor is back."""
    import pty

    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "advisor", *arguments]
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TERM": "xterm"}, stdout=inside, stderr=inside, stdin=inside)
    os.close(inside)
    screen = b""
    with suppress(OSError):  # Linux says so at the end of a pseudo-terminal
        while read := os.read(terminal, 65536):
            screen += read
    os.close(terminal)
    assert child.wait() == code
    assert screen.count(CURSOR_HIDDEN) == screen.count(CURSOR_SHOWN) == 1
    moving, _, after = screen.partition(CURSOR_SHOWN)
    assert told in moving
    assert last in after
    assert told not in after
