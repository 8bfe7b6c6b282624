"""The door for bytes: every file that a person or another program wrote is asked after, opened and read here, within limits.

Only a regular file is read, so that a device cannot be read for ever nor a pipe block; it is opened once, and its size is that of what
was opened. A name that no file system takes, and a folder that may not be entered, are one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from advisor.errors import InvalidInputError

_LONGEST_SHOWN = 200
"""Characters of a path in an error. Judgement."""
# O_NONBLOCK: opening a pipe that nobody writes to would wait. Windows has neither flag, and needs O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class Opened(NamedTuple):
    """A regular file, open for reading."""

    stream: BinaryIO
    size_bytes: int


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The regular file at `path`. Raises InvalidInputError, one line, for what is none or cannot be read."""
    with refusals(path):
        descriptor = os.open(path, _FLAGS)
    try:
        held = os.fstat(descriptor)
        if stat.S_ISDIR(held.st_mode):
            raise InvalidInputError(f"{named(path)} is a folder; name a file in it")
        if not stat.S_ISREG(held.st_mode):
            raise InvalidInputError(f"{named(path)} is no regular file (a device or a pipe), and is not read")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield Opened(stream, held.st_size)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit_bytes: int, what: str = "") -> bytes:
    """The file's bytes, at most `limit_bytes`; `what` says in the error what a longer file cannot be."""
    with opened(path) as file, refusals(path):
        raw = file.stream.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        size = f"{limit_bytes // 10**6:,} MB" if limit_bytes >= 2 * 10**6 else f"{limit_bytes // 1000:,} kB"
        raise InvalidInputError(f"{named(path)} is {what and f'no {what}: it is '}larger than {size}")
    return raw


def read_text(path: Path, limit_bytes: int, what: str = "") -> str:
    """The same as text in UTF-8, without its byte order mark."""
    raw = read_bounded(path, limit_bytes, what)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInputError(f"{named(path)} is not text in UTF-8{what and f': it is no {what}'}") from None


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the operating system says to a file, as one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InvalidInputError(f"{named(path)} cannot be read: there is no such file") from None
    except OSError as error:
        raise InvalidInputError(f"{named(path)} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:  # a NUL byte in the name, or half of a surrogate pair
        raise InvalidInputError(f"{named(path)} is no file name: {error}") from None


def named(path: Path | str) -> str:
    """The path for an error, cut where it is too long to be read."""
    text = str(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def place(given: str | Path) -> Path:
    """The path that a user wrote, `~` and `~name` replaced by a home folder. Raises InvalidInputError where there is none."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise InvalidInputError(f"{named(given)}: it is not known whose home folder ~ is here; write the path out") from None


def is_file(path: Path) -> bool:
    """Whether a regular file is there and may be looked at. A name of 500 characters is none."""
    return _is(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, likewise."""
    return _is(path.is_dir)


def exists(path: Path) -> bool:
    """Whether anything is there, likewise."""
    return _is(path.exists)


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links, up to Python 3.12
        return False


def children(folder: Path) -> tuple[Path, ...]:
    """What lies in the folder, by name. Raises InvalidInputError where it may not be listed."""
    with refusals(folder):
        return tuple(sorted(folder.iterdir()))


def resolved(path: Path) -> Path:
    """The path without links; as it is where that cannot be told."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return path


def size_bytes(path: Path) -> int:
    """Bytes that the file holds. Raises InvalidInputError where it cannot be asked."""
    with refusals(path):
        return path.stat().st_size
