"""Reads a JSON file that a person or another program wrote; the error is one line that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advisor.errors import InvalidInputError


def read_json(path: Path) -> Any:
    """What the file holds. NaN and Infinity are read as Python's json reads them: trainers write losses so."""
    return parse_json(read_text(path), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise InvalidInputError(f"{path} holds a {type(data).__name__}, not a JSON object")
    return data


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not text in UTF-8") from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; `where` names it in the error."""
    if not text.strip():
        raise InvalidInputError(f"{where} is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidInputError(f"{where} is not valid JSON: {error.msg} at {place}; is it complete?") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise InvalidInputError(f"{where} holds JSON beyond what a parser takes ({type(error).__name__})") from error


def is_file(path: Path) -> bool:
    """Whether a file is there. A name that no file system takes, such as one of 500 characters, is none."""
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
    except (OSError, ValueError):
        return False
