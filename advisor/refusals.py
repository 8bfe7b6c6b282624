"""A failed validation as one line that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from advisor.errors import InvalidInputError

_LONGEST_VALUE = 40


@contextmanager
def boundary(where: str) -> Iterator[None]:
    """What the numbers of a file may do to the arithmetic on them, as one line that names the file: they are the file's fault.

    Raises InvalidInputError for what no value takes, for numbers beyond a float, and for what does not go into memory.
    """
    try:
        yield
    except ValidationError as error:
        raise InvalidInputError(f"{where}: {one_line(error)}") from None
    except OverflowError as error:
        raise InvalidInputError(f"{where} holds a number that is too large to calculate with ({error})") from None
    except MemoryError:
        raise InvalidInputError(f"{where} takes more memory than this machine has") from None


def one_line(error: ValidationError) -> str:
    """The first thing that is wrong, with its field and its value."""
    first: Any = error.errors(include_url=False)[0]
    return message_of(first, first["loc"])


def message_of(problem: Mapping[str, Any], where: Sequence[object], known: Iterable[str] = ()) -> str:
    """One of pydantic's problems in a line, at the place `where`; `known` are names that a misspelt field may have meant."""
    field = ".".join(map(str, where))
    message = re.sub(r"^\w+ should\b", "must", str(problem["msg"]).removeprefix("Value error, "))
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
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
