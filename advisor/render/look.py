"""What the reader's terminal can show."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NamedTuple

NARROWEST_COLUMNS = 80
"""The narrow tables need as many; a smaller terminal folds the lines itself."""
WIDEST_COLUMNS = 140
"""Longer lines are hard to read (judgement): wider terminals get this width."""


class Look(NamedTuple):
    """Columns, colour and signs."""

    width: int = 80
    colour: bool = False
    unicode: bool = True


def look_of_stdout() -> Look:
    """Width from COLUMNS or the terminal, 80 for a pipe; colour only on a terminal and without NO_COLOR; ASCII unless stdout is UTF-8."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    unicode = (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
    width = shutil.get_terminal_size(fallback=(80, 24)).columns
    return Look(width=max(NARROWEST_COLUMNS, min(width, WIDEST_COLUMNS)), colour=colour, unicode=unicode)
