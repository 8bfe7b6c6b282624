"""Reads a JSON file that a person or another program wrote; the error is one line that says what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from advisor.bounded import named, read_text
from advisor.errors import InvalidInputError

LARGEST_BYTES = 32_000_000
"""Judgement: a Trainer's state of 100,000 logged steps is 15 MB; what it is read into takes up to twenty times as much memory."""
DEEPEST = 100
"""Levels of lists and objects. Judgement: configurations nest five; what goes over a value level by level takes a few hundred."""
LONGEST_NUMBER = 100
"""Digits of a whole number. Judgement; no quantity has more than twenty, and above 308 it is no float."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, limit_bytes: int = LARGEST_BYTES, what: str = "") -> Any:
    """What the file holds. NaN and Infinity are read as Python's json reads them: trainers write losses so."""
    return parse_json(read_text(path, limit_bytes, what), named(path))


def read_object(path: Path, limit_bytes: int = LARGEST_BYTES, what: str = "") -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    return object_of(read_json(path, limit_bytes, what), named(path))


def object_of(data: Any, where: str) -> dict[str, Any]:
    """The value itself where it is an object. Raises InvalidInputError for any other."""
    if not isinstance(data, dict):
        raise InvalidInputError(f"{where} holds a {type(data).__name__}, not a JSON object")
    return data


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; `where` names it in the error."""
    if not text.strip():
        raise InvalidInputError(f"{where} is empty")
    try:
        value = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidInputError(f"{where} is not valid JSON: {error.msg} at {place}; is it complete?") from None
    except (RecursionError, ValueError) as error:
        why = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidInputError(f"{where} holds JSON beyond what is read: {why}") from None
    if _HALF_PAIR.search(text):
        _check_unicode(value, where)
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value, where)
    return value


def _check_unicode(value: Any, where: str) -> None:
    """JSON can write half of a surrogate pair, which is no character: it can be neither stored nor printed."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(f"{where} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text") from None
    except RecursionError:
        raise InvalidInputError(f"{where} holds JSON beyond what is read: it nests too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _check_depth(value: Any, where: str) -> None:
    """Level by level rather than by recursion, which is what is to be avoided."""
    level = [value]
    for _ in range(DEEPEST):
        children = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for nodes in children for child in nodes if isinstance(child, (dict, list))]
        if not level:
            return
    raise InvalidInputError(f"{where} holds JSON beyond what is read: it nests deeper than {DEEPEST} levels")
