"""Files that are kept for the user: in which folders, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from advisor.bounded import place

APPLICATION = "finetune-advisor"


class Folder(NamedTuple):
    """A kind of the user's folders."""

    variable: str
    """Environment variable that names another one."""
    on_linux: tuple[str, str]
    """Variable of the XDG base directory specification 0.8, and the folder where it is not set."""
    elsewhere: str
    """platformdirs' function."""


DATA = Folder("FINETUNE_ADVISOR_DATA", ("XDG_DATA_HOME", "~/.local/share"), "user_data_dir")
CACHE = Folder("FINETUNE_ADVISOR_CACHE", ("XDG_CACHE_HOME", "~/.cache"), "user_cache_dir")


def folder_of(kind: Folder) -> Path:
    """The folder of that kind; it need not exist."""
    named = os.environ.get(kind.variable)
    return place(named) if named else _usual(kind)


def _usual(kind: Folder, platform: str = sys.platform) -> Path:
    """As platformdirs says it; its rule for Linux is written out, because loading it takes longer than the look into the folder."""
    if platform == "linux":
        variable, otherwise = kind.on_linux
        base = os.environ.get(variable, "").strip()
        return Path(base if os.path.isabs(base) else os.path.expanduser(otherwise)) / APPLICATION
    import platformdirs

    return Path(getattr(platformdirs, kind.elsewhere)(APPLICATION, appauthor=False))


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A path in `folder` that nobody else has, for a file or a folder that is not ready; what is still there at the end is removed.

    It is named before anything is made, so that no signal comes between the making and the knowing of it. SIGKILL alone leaves it.
    """
    path = folder / f".advise-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        try:
            yield path
        finally:
            _remove(path)
    except KeyboardInterrupt:  # which may have come in the middle of the removal
        _remove(path)
        raise


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not path.is_dir():
            return path.unlink()
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def write_whole(path: Path, content: bytes, over: bool = True) -> None:
    """Write a file whole or not at all, in place of one that is there or, without `over`, never so.

    Raises OSError; FileExistsError where there is one already.
    """
    with made_whole(path, over) as made, made.open("xb") as file:
        file.write(content)


@contextmanager
def made_whole(path: Path, over: bool = True) -> Iterator[Path]:
    """The same for a file that is written piece by piece: at the path that is given, which becomes `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path.parent) as made:
        yield made
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        if over:
            os.replace(made, path)
        else:
            _name_new(made, path)


def _name_new(made: Path, path: Path) -> None:
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        made.rename(path)
