"""One file of rows, held against its row model: values, or one line that names file, row and field."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from advisor.errors import InvalidInputError
from advisor.refusals import message_of

Row = TypeVar("Row")
_NAMES = ("id", "name", "tier", "stack", "compute_capability")
"""Fields that tell one row of a file from the others; the first that is there names the row."""


def rows_of(path: Path, root: Path, raw: bytes, row: type[Row]) -> tuple[Row, ...]:
    """The rows that `raw`, the bytes of `path`, holds. Raises InvalidInputError for the first row that does not stand."""
    kind: Any = row
    try:
        found: tuple[Row, ...] = adapter_of(kind).validate_json(raw.removeprefix(b"\xef\xbb\xbf"))
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
    name = next((str(row[key]) for key in _NAMES if row.get(key) is not None), "")
    return f"row {number + 1}{f' ({name})' if name else ''}: {_in_row(first, row, kind)}"


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
