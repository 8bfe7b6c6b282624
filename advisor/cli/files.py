"""Files that a command is told to write: whole or not at all, and every refusal one line that names the option."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.bounded import exists, is_folder, place
from advisor.errors import InvalidInputError
from advisor.user_files import write_whole

if TYPE_CHECKING:
    from advisor.tape.stream import Stream

PAGE_ENDINGS = (".html", ".htm")


def page_place(said: str) -> Path:
    """Return where `--html` is to write. Raises InvalidInputError where no page can be: before anything is computed."""
    path = place(said)
    if path.suffix.lower() not in PAGE_ENDINGS:
        raise InvalidInputError(f"--html {said}: name a file that ends in .html")
    return _writable(path, "--html", said)


def write_page(path: Path, page: str, said: str) -> None:
    """Write a page, in place of one that is there."""
    _write(path, page, "--html", said, over=True)


def timeline_place(said: str) -> Path:
    """Return where `--timeline` is to write. Raises InvalidInputError where no file can be: before anything is run."""
    path = place(said)
    if path.suffix.lower() != ".json":
        raise InvalidInputError(f"--timeline {said}: name a file that ends in .json")
    return _writable(path, "--timeline", said)


def write_timeline(path: Path, stream: Stream, layer_path: str, alloc_conf: str, said: str) -> None:
    """Write a recording as a trace file, in place of one that is there."""
    import json

    from advisor.allocator.alloc_conf import read_alloc_conf
    from advisor.tape.timeline import timeline

    found = timeline(stream, layer_path, read_alloc_conf(alloc_conf))
    _write(path, json.dumps(found, separators=(",", ":")), "--timeline", said, over=True)


def write_new(path: Path, text: str, flag: str, said: str) -> None:
    """Write a file that is not there yet. Raises InvalidInputError where it is."""
    _write(_writable(path, flag, said), text, flag, said, over=False)


def write_together(folder: Path, texts: Mapping[str, str], flag: str) -> None:
    """Write files of one folder, none of which is there yet: where one is, nothing is written. Raises InvalidInputError."""
    paths = {_writable(folder / name, flag, str(folder / name)): text for name, text in texts.items()}
    for path in paths:
        if exists(path):
            raise InvalidInputError(f"{flag} {path} is there already; it is not overwritten")
    for path, text in paths.items():
        _write(path, text, flag, str(path), over=False)


def _writable(path: Path, flag: str, said: str) -> Path:
    if is_folder(path) or not path.name:
        raise InvalidInputError(f"{flag} {said!r} is a folder; name the file to write")
    if not is_folder(path.parent):
        raise InvalidInputError(f"{flag} {said} cannot be written: there is no folder {path.parent}")
    return path


def _write(path: Path, text: str, flag: str, said: str, *, over: bool) -> None:
    try:
        write_whole(path, text.encode(), over=over)
    except FileExistsError:
        raise InvalidInputError(f"{flag} {said} is there already; it is not overwritten") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidInputError(f"{flag} {said} cannot be written: {reason}") from None
