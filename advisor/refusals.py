"""A failed validation as one line that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_LONGEST_VALUE = 40


def one_line(error: ValidationError) -> str:
    """The first thing that is wrong, with its field and its value."""
    first: Any = error.errors(include_url=False)[0]
    return message_of(first, first["loc"])


def message_of(problem: Mapping[str, Any], where: Sequence[object], known: Iterable[str] = ()) -> str:
    """One of pydantic's problems in a line, at the place `where`; `known` are names that a misspelt field may have meant."""
    field = ".".join(map(str, where))
    message = re.sub(r"^\w+ should\b", "must", str(problem["msg"]).removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such field{did_you_mean(str(where[-1]), known)}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "value_error" or not field:
        return f"{field}: {message}" if field else message
    return f"{field} {str(problem['input'])[:_LONGEST_VALUE]!r}: {message}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the known word nearest in spelling, case and punctuation apart; empty where none is near."""
    import difflib

    plain = {_plain(name): name for name in known}
    near = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())
