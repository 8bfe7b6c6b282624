"""The command `advise`. This module only prepares the process; the commands are in `advisor.cli.app`.

Exit codes: 0 something fits · 1 nothing fits · 2 bad input · 3 cannot tell · 70 a bug of ours · 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

# Collections during start-up cost a tenth of the whole command and free nothing: most of what is made lives to the end.
GC_THRESHOLD = 500_000
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(GC_THRESHOLD)
    # pydantic looks for plugins through importlib.metadata, 15 ms; the command has no use for any (pydantic 2.14 plugin/_loader.py).
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from advisor.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command itself had begun
        code = EXIT_INTERRUPTED
    sys.exit(code)
