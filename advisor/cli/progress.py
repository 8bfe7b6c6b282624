"""What is under way, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable


def progress(lines_elsewhere: bool = False) -> Callable[[str], None]:
    """On a terminal one line that changes, and an empty text takes it away; elsewhere nothing, or a line for each text."""
    stream = sys.stderr
    terminal = stream.isatty()

    def tell(text: str) -> None:
        if terminal:
            stream.write(f"\r\x1b[K{text}")
        elif lines_elsewhere and text:
            stream.write(f"{text}\n")
        stream.flush()

    return tell
