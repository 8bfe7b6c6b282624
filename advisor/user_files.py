"""Files that are kept for the user: in which folders, and written whole or not at all."""

from __future__ import annotations

import os
import sys
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, which then takes its name. Raises OSError."""
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
