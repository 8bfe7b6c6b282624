"""A failed validation as one line that names the field."""

from __future__ import annotations

from pydantic import ValidationError

_LONGEST_VALUE = 40


def one_line(error: ValidationError) -> str:
    """The first thing that is wrong, with its field and its value."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] == "extra_forbidden":
        return f"{field}: there is no such field"
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "value_error" or not field:
        return f"{field}: {message}" if field else message
    return f"{field} {str(first['input'])[:_LONGEST_VALUE]!r}: {message}"
