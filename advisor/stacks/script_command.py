"""A shell script that starts a Python script: which one, with which arguments, and what it exports. Nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from advisor.errors import InvalidInputError
from advisor.json_files import is_file
from advisor.stacks.command_line import COMMANDS, ENDS, expanded, launch_of
from advisor.stacks.files import read_text
from advisor.stacks.reading import Launch

_STARTERS = re.compile(r"(?:^|[\s/;&])(?:python[\d.]*|accelerate\s+launch|torchrun|deepspeed|uv\s+run)\s")
_EXPORTED = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=[\"']?([^\"'\n$`]*)[\"']?[ \t]*$", re.MULTILINE)
_BEFORE = re.compile(r"^([A-Za-z_]\w*)=(\S*)$")
MOST_PARENTS = 6
"""Folders above the script in which the path may begin. Judgement: repositories nest three or four deep."""


class Started(NamedTuple):
    """A Python script as a shell script starts it."""

    script: Path
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    launch: Launch


def started_script(path: Path) -> Started | None:
    """The Python script that a shell script starts; None where it starts a framework's own command.

    Raises InvalidInputError where the Python script is not here.
    """
    text = expanded(re.sub(r"\\\r?\n", " ", read_text(path)), path)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    if any(pattern.search(line) for line in lines for _, pattern in COMMANDS):
        return None
    for line in lines:
        found = _script_of(line, path)
        if found is not None:
            named, arguments, before = found
            exported = dict(_EXPORTED.findall(text)) | before
            return Started(_place(named, path), arguments, tuple(exported.items()), launch_of(text, path))
    return None


def _script_of(line: str, path: Path) -> tuple[str, tuple[str, ...], dict[str, str]] | None:
    """The script that a line starts, its arguments, and the variables that stand before the command."""
    if not _STARTERS.search(line) or ".py" not in line:
        return None
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise InvalidInputError(f"{path}: the command cannot be read: {str(error).lower()}") from None
    place = next((number for number, word in enumerate(words) if word.endswith(".py")), None)
    if place is None:
        return None
    before = {match[1]: match[2] for word in words[:place] if (match := _BEFORE.match(word))}
    return words[place], tuple(_until_end(words[place + 1 :])), before


def _until_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in ENDS or word.startswith((">", "2>")):
            return
        yield word


def _place(named: str, path: Path) -> Path:
    """The script, from the shell script's folder, the folders above it, or the working directory."""
    here = path.absolute().parent
    folders = [path.parent, *list(here.parents)[:MOST_PARENTS], Path()]
    for folder in folders:
        if is_file(folder / named):
            return folder / named
    raise InvalidInputError(f"{path} starts {named}, which is no file here")
