"""The command `advise`. This module only prepares the process; the commands are in `advisor.cli.app`.

Exit codes: 0 something fits · 1 nothing fits · 2 bad input · 3 cannot tell · 70 a bug of ours · 74 the answer could not be printed ·
130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

# Judgement: above what a short command allocates (200,000 objects), so that only the long ones collect.
GC_THRESHOLD = 500_000
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def _start_quickly() -> None:
    """Most of the time to an answer is imports: no collections meanwhile, and no search of the environment for pydantic's plugins."""
    gc.set_threshold(GC_THRESHOLD)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Entry point of the console script."""
    _start_quickly()
    try:
        from advisor.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command itself had begun
        code = EXIT_INTERRUPTED
    gc.freeze()  # the collections at exit would walk every object that is about to go: a tenth of the whole time
    sys.exit(code)
