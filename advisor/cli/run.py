"""Runs one command line: the only place that prints, and the only one that turns an error into a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from advisor.cli import EXIT_INTERRUPTED
from advisor.cli.answer import Answer
from advisor.cli.app import app
from advisor.cli.progress import progress
from advisor.errors import AdvisorError
from advisor.on_demand import answered

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: apart from 1, which says that nothing fits."""

# Base of every usage error: typer 0.29 carries its own copy of click, older releases use click's, and neither exports it.
_UsageProblem = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Exit code of `advise ARGUMENTS`, after printing its answer or its one line of error."""
    try:
        answer = answered(lambda: get_command(app).main(args=list(arguments), prog_name="advise", standalone_mode=False), progress())
    except AdvisorError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, _UsageProblem):
            return _fail(str(getattr(error, "format_message", error.__str__)()), AdvisorError.exit_code)
        return _bug()
    if answer == EXIT_INTERRUPTED:  # typer turns an interrupt into its exit code
        return _fail("interrupted", EXIT_INTERRUPTED)
    if not isinstance(answer, Answer):  # --help has printed itself
        return int(answer or 0)
    _write(answer.text)
    return answer.exit_code


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return exit_code


def _bug() -> int:
    import traceback

    traceback.print_exc()
    return _fail("this is a bug of finetune-advisor, not of your input; please report the lines above", EXIT_BUG)


def _write(text: str) -> None:
    """A reader that stops early (`advise … | head -3`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
