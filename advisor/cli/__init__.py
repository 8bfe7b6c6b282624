"""The command `advise`. This module only prepares the process; the commands are in `advisor.cli.app`.

Exit codes: 0 something fits · 1 nothing fits · 2 bad input · 3 cannot tell · 70 a bug of ours · 74 the answer could not be printed ·
130 interrupted · 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

# Judgement: above what a short command allocates (200,000 objects), so that only the long ones collect.
GC_THRESHOLD = 500_000
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def _start_quickly() -> None:
    """Most of the time to an answer is imports: no collections meanwhile, and no search of the environment for pydantic's plugins."""
    gc.set_threshold(GC_THRESHOLD)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP, for whatever cleans up after SIGINT. A class of its own: Python remembers a KeyboardInterrupt that passes
    through exec(), and ends a process that has exited since by SIGINT (CPython 3.13 Python/pythonrun.c, run_eval_code_obj)."""


_ended_by: list[int] = []
"""The signal that told this process to end."""
_interrupts: list[int] = []
"""Every SIGINT that came: an import that one interrupts may fail with another error (an extension module's ImportError)."""


def was_interrupted() -> bool:
    """Whether a signal told this process to end, so that what fails since is no fault of its own."""
    return bool(_interrupts or _ended_by)


def _end_cleanly() -> None:
    """Let SIGTERM and SIGHUP end a command as SIGINT does, so that nothing unfinished stays; one that is ignored (nohup) stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    _ended_by.append(number)
    raise Ended


def _version_is_told() -> bool:
    """Prints the version without loading anything; False where that fails, which the command itself then tells."""
    from advisor import __version__

    try:
        sys.stdout.write(f"finetune-advisor {__version__}\n")
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"] and _version_is_told():
        sys.exit(0)
    _start_quickly()
    try:
        _end_cleanly()
        from advisor.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command itself had begun
        code = EXIT_INTERRUPTED
    except Exception:
        if not was_interrupted():
            raise
        code = EXIT_INTERRUPTED
    gc.freeze()  # the collections at exit would walk every object that is about to go: a tenth of the whole time
    sys.exit(128 + _ended_by[0] if _ended_by else code)
