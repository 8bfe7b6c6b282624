"""Find a file that another file names: relative to its folder, to the folders above it in its repository, and to where we are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from advisor.bounded import exists, is_file, place, resolved
from advisor.errors import InvalidInputError
from advisor.shown import shown

MOST_FOLDERS = 24
"""Folders that are looked through above the file. Judgement: no repository nests deeper."""


def find_file(named: str, folder: str | Path) -> Path | None:
    """The first file of that name in the places where trainers are started from; None where there is none.

    Raises InvalidInputError for one outside of those places: the file that names it may be anyone's (a pull request), and is not to
    decide what is read elsewhere.
    """
    stated = place(named)
    places = tuple(_places(Path(folder)))
    tried = (stated,) if stated.is_absolute() else tuple(above / stated for above in places)
    found = next((path for path in tried if is_file(path)), None)
    if found is not None and not is_below(found, places):
        raise InvalidInputError(f"{shown(str(named))} lies outside of the project that names it, and is not read")
    return found


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Whether the path, links followed, lies in one of the folders or below it."""
    whole = resolved(path)
    return any(whole.is_relative_to(resolved(folder)) for folder in folders)


def project_of(folder: str | Path) -> tuple[Path, ...]:
    """Folders whose files a file of `folder` may name: its own, those above it up to the repository's root, and the working one."""
    return tuple(_places(Path(folder)))


def _places(folder: Path) -> Iterator[Path]:
    """The folder as it was named first, so that messages show the user's own path. Outside of a repository none above it counts."""
    yield folder
    whole = resolved(folder)
    above = (whole, *whole.parents)[: MOST_FOLDERS + 1]
    root = next((number for number, place in enumerate(above) if exists(place / ".git")), 0)
    yield from above[1 : root + 1]
    yield Path()
