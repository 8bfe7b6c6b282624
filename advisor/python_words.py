"""Say an error of the Python API in Python's words: `--seq-len` of the command line is its keyword `seq_len`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from advisor.errors import AdvisorError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_COMMAND = re.compile(r"(`advise [^`]*`|\badvise (?:\w+ )?-[^;`]*)")
"""A whole command line, which stays one."""
_OPTION = re.compile(r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*)(?: (?P<value>'[^']*'|[A-Z]+\b|[\w.-]+(?=[:;,)]|\.?$| and )))?")


def in_python_words(message: str) -> str:
    """Return the message with each option as the keyword that it is: `--rank 0` as `rank=0`, `--no-padding` as `padding=False`."""
    pieces = _COMMAND.split(message)
    return "".join(piece if number % 2 else _OPTION.sub(_keyword, piece) for number, piece in enumerate(pieces))


def _keyword(found: re.Match[str]) -> str:
    name = found["name"].replace("-", "_")
    value = found["value"]
    if found["no"]:
        return f"{name}=False" + (f" {value}" if value else "")
    if not value:
        return name
    is_literal = value.startswith("'") or value.isupper() or re.fullmatch(r"-?\d+(\.\d+)?", value)
    return f"{name}={value if is_literal else repr(value)}"


@cache
def speaking_python(call: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return `call`, whose AdvisorErrors name keywords instead of options of the command line."""

    @wraps(call)
    def spoken(*positional: Given.args, **keywords: Given.kwargs) -> Result:
        try:
            return call(*positional, **keywords)
        except AdvisorError as error:
            error.args = (in_python_words(str(error)), *error.args[1:])
            raise

    return spoken
