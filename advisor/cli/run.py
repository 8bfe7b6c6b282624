"""Runs one command line: the only place that prints, and the only one that turns an error into a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from shutil import get_terminal_size
from typing import Any, TextIO

import typer
from typer.main import get_command

from advisor.bounded import named
from advisor.cli import EXIT_INTERRUPTED, was_interrupted
from advisor.cli.answer import Answer
from advisor.cli.app import app
from advisor.cli.progress import end_progress, progress
from advisor.errors import AdvisorError
from advisor.on_demand import answered
from advisor.refusals import did_you_mean
from advisor.shown import capped, shown

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: apart from 1, which says that nothing fits."""

EXIT_PRINTING = 74
"""EX_IOERR of sysexits.h: there is an answer, and whether something fits is not told by this code."""
LONGEST_ERROR = 600
"""Characters of an error. Judgement: five lines of a terminal; the longest of the tool's own words has some 400."""
_PRINTING = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG})

# Base of every usage error: typer 0.29 carries its own copy of click, older releases use click's, and neither exports it.
_UsageProblem = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Exit code of `advise ARGUMENTS`, after printing its answer or its one line of error."""
    _stand_in_for_closed_streams()
    try:
        answer = _asked(list(arguments))
    except AdvisorError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        return _fail("interrupted", EXIT_INTERRUPTED) if was_interrupted() else _failed(error)
    if answer == EXIT_INTERRUPTED:  # typer turns an interrupt into its exit code
        return _fail("interrupted", EXIT_INTERRUPTED)
    if not isinstance(answer, Answer):  # --help has printed itself
        return int(answer or 0)
    problem = _paged(answer.text) if answer.long else _write(answer.text, sys.stdout)
    if problem is not None:
        done = f"; {answer.done}" if answer.done else ""
        return _fail(f"the answer could not be printed ({problem}){done}", EXIT_PRINTING)
    return _fail(answer.problem, AdvisorError.exit_code) if answer.problem else answer.exit_code


def _asked(arguments: list[str]) -> Any:
    """What the command hands back; the line that told of its progress is gone however it ends."""
    try:
        return answered(lambda: get_command(app).main(args=arguments, prog_name="advise", standalone_mode=False), progress())
    finally:
        end_progress()


def _stand_in_for_closed_streams() -> None:
    """Python has no stream where a daemon closed its descriptor (`>&-`); what is printed then goes nowhere, which is no error."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _failed(error: Exception) -> int:
    """What stopped a command beside its own refusals."""
    if isinstance(error, _UsageProblem):
        return _fail(_misused(error), AdvisorError.exit_code)
    if isinstance(error, MemoryError):
        return _fail("this machine's memory does not hold what that takes; give a smaller input", AdvisorError.exit_code)
    if isinstance(error, OSError) and error.filename is not None:  # no rights, no room, a name that is too long: of that file
        return _fail(f"{named(str(error.filename))} cannot be used: {error.strerror or type(error).__name__}", AdvisorError.exit_code)
    if isinstance(error, OSError) and error.errno in _PRINTING:  # --help prints itself
        return _fail(f"the answer could not be printed ({error.strerror})", EXIT_PRINTING)
    return _bug()


def _misused(error: Any) -> str:
    """A usage error in its own words, and the option that was nearly written."""
    near: Sequence[str] = getattr(error, "possibilities", None) or ()
    if not near:
        return str(getattr(error, "format_message", error.__str__)())
    return f"{error.message}{did_you_mean(error.option_name, near)}"


def _fail(message: str, exit_code: int) -> int:
    _write(f"error: {capped(shown(' '.join(message.split())), LONGEST_ERROR)}\n", sys.stderr)
    return exit_code


def _bug() -> int:
    import traceback

    _write(shown(traceback.format_exc(), also="\n"), sys.stderr)
    return _fail("this is a bug of finetune-advisor, not of your input; please report the lines above", EXIT_BUG)


def _paged(text: str) -> str | None:
    """As `_write`; through the user's pager where stdin and stdout are a terminal that cannot show all of it."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()) or text.count("\n") < get_terminal_size().lines:
        return _write(text, sys.stdout)
    from rich.pager import SystemPager

    os.environ.setdefault("LESS", "FRX")  # colours pass, and the text stays on the screen: git's own setting
    SystemPager().show(text)
    return None


def _write(text: str, stream: TextIO) -> str | None:
    """Prints the text, with escapes for what the stream's encoding lacks; why that failed, or None.

    A reader that stops early (`advise … | head -3`) is no error.
    """
    encoding = stream.encoding or "ascii"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _let_go(stream)
    except (OSError, ValueError) as error:  # ValueError: closed by someone else in this process
        _let_go(stream)
        return getattr(error, "strerror", None) or type(error).__name__
    return None


def _let_go(stream: TextIO) -> None:
    """Python flushes its streams once more at exit; let that go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
