"""What is under way, on stderr: on a terminal a line that moves and counts the seconds, which goes when the answer comes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from advisor.shown import shown

if TYPE_CHECKING:
    from rich.progress import Progress


class _Line:
    """The one moving line of this process; rich draws it, and is loaded when there is something to say."""

    def __init__(self) -> None:
        self._drawn: Progress | None = None

    def tell(self, text: str) -> None:
        """Show what is under way; an empty text takes the line away."""
        if not text:
            return self.end()
        if self._drawn is None:
            self._drawn = _drawn()
            self._drawn.add_task("")
            self._drawn.start()
        self._drawn.update(self._drawn.task_ids[0], description=shown(text))
        return None

    def end(self) -> None:
        """Take the line away, and give the terminal its cursor back."""
        drawn, self._drawn = self._drawn, None
        if drawn is not None:
            drawn.stop()


_LINE = _Line()


def progress(lines_elsewhere: bool = False) -> Callable[[str], None]:
    """On a terminal one line that changes, and an empty text takes it away; elsewhere nothing, or a line for each text."""
    if sys.stderr.isatty():
        return _LINE.tell

    def tell(text: str) -> None:
        if lines_elsewhere and text:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    return tell


def end_progress() -> None:
    """Take the line away, whatever ended the command."""
    _LINE.end()


def _drawn() -> Progress:
    """A spinner, the text and the time, on stderr; stdout is left alone, for the answer."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), text, TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
