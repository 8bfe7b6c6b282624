"""One file of rows, held against its row model: values, or one line that names file, row and field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from advisor.errors import InvalidInputError
from advisor.refusals import message_of

Row = TypeVar("Row")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAMES = ("id", "name", "tier", "stack", "compute_capability")
"""Fields that tell one row of a file from the others; the first that is there names the row."""


class PlainRow(dict[str, Any]):
    """A row that has not been held against its model: a field that is missing is refused with file and row."""

    place: str = ""

    def __missing__(self, field: str) -> Any:
        raise InvalidInputError(f"{self.place}: {field} is missing")


def plain_rows_of(path: Path, root: Path, raw: bytes) -> Iterator[PlainRow]:
    """The rows that `raw`, the bytes of `path`, holds, each as it stands. Raises InvalidInputError for what is no list of objects."""
    file = f"profiles/{path.relative_to(root).as_posix()}"
    try:
        found = json.loads(raw.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as error:
        raise InvalidInputError(f"{file}: it is not valid JSON: {error}") from None
    if not isinstance(found, list):
        raise InvalidInputError(f"{file}: it must be one JSON list of rows")
    for number, row in enumerate(found):
        plain = PlainRow(row if isinstance(row, dict) else {})
        plain.place = f"{file}: {_row_name(number, row)}"
        yield plain


def rows_of(path: Path, root: Path, raw: bytes, row: type[Row]) -> tuple[Row, ...]:
    """The rows that `raw`, the bytes of `path`, holds. Raises InvalidInputError for the first row that does not stand."""
    kind: Any = row
    try:
        found: tuple[Row, ...] = adapter_of(kind).validate_json(raw.removeprefix(_BYTE_ORDER_MARK))
        return found
    except ValidationError as error:
        raise InvalidInputError(f"profiles/{path.relative_to(root).as_posix()}: {_problem(error, raw, kind)}") from None


@cache
def adapter_of(row: Any) -> TypeAdapter[Any]:
    """What reads a file of rows of that model, and tells their JSON schema."""
    return TypeAdapter(tuple[row, ...])


def _problem(error: ValidationError, raw: bytes, kind: Any) -> str:
    """The first row that is wrong, by its name: an unknown field before a missing one, which is often the same one misspelt."""
    found: list[Any] = error.errors(include_url=False)
    first = min(found, key=lambda one: (one["loc"][:1], one["type"] != "extra_forbidden"))
    if first["type"] == "json_invalid":
        return f"it is not valid JSON: {first['ctx']['error']}"
    if not first["loc"]:
        return "it must be one JSON list of rows"
    number = int(first["loc"][0])
    row = json.loads(raw)[number]
    if not isinstance(row, dict):
        return f"row {number + 1} must be an object, not {json.dumps(row)[:40]}"
    return f"{_row_name(number, row)}: {_in_row(first, row, kind)}"


def _row_name(number: int, row: object) -> str:
    """ "row 3 (llama-8b)": its place in the file, from 1, and its name."""
    name = next((str(row[key]) for key in _NAMES if row.get(key) is not None), "") if isinstance(row, dict) else ""
    return f"row {number + 1}{f' ({name})' if name else ''}"


def _in_row(first: Any, row: dict[str, object], kind: Any) -> str:
    """What is wrong inside the row. In a folder with rows of several kinds the kind stands in the path, and is no field."""
    if first["type"] == "union_tag_not_found":
        return "kind is missing"
    tagged = first["loc"][1:2] == (row.get("kind"),)
    return message_of(first, first["loc"][2 if tagged else 1 :], _fields(kind, row.get("kind")))


def _fields(kind: Any, tag: object) -> list[str]:
    """Names that a row of that model may use."""
    models = [kind] if hasattr(kind, "model_fields") else get_args(get_args(kind)[0])
    return [
        field.alias or name
        for model in models
        if len(models) == 1 or tag in get_args(model.model_fields["kind"].annotation)
        for name, field in model.model_fields.items()
    ]
