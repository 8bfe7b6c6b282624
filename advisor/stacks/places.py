"""Find a file that another file names: relative to its folder, to the folders above it up to the repository's root, and to where we are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advisor.json_files import is_file

MOST_FOLDERS = 24
"""Folders that are looked through above the file. Judgement: no repository nests deeper."""


def find_file(named: str, folder: str | Path) -> Path | None:
    """The first file of that name in the places where trainers are started from; None where there is none."""
    stated = Path(named).expanduser()
    if stated.is_absolute():
        return stated if is_file(stated) else None
    return next((path for path in (place / stated for place in _places(Path(folder))) if is_file(path)), None)


def _places(folder: Path) -> Iterator[Path]:
    """The folder as it was named first, so that messages show the user's own path."""
    yield folder
    try:
        above = folder.resolve()
    except (OSError, RuntimeError):  # a loop of links
        above = folder
    for _ in range(MOST_FOLDERS):
        if (above / ".git").exists() or above.parent == above:
            break
        above = above.parent
        yield above
    yield Path()
