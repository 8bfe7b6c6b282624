"""Hand results that are series over as data frames: of pandas where it is installed, else of polars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from advisor.errors import MissingExtraError

Item = TypeVar("Item")
Row = Mapping[str, object]
_LIBRARIES = ("pandas", "polars")
_READERS = {
    "pandas": {".parquet": "read_parquet", ".csv": "read_csv", ".json": "read_json", ".jsonl": "read_json"},
    "polars": {".parquet": "read_parquet", ".csv": "read_csv", ".json": "read_json", ".jsonl": "read_ndjson"},
}


class Framed:
    """Base of results that are a series of rows."""

    def _frame_rows(self) -> Iterable[Row]:
        """Yield a row for each entry."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """Return the rows as a DataFrame; bytes are int. Raises MissingExtraError where neither pandas nor polars is installed."""
        rows = [*self._frame_rows()]
        _, library = _library()
        names = dict.fromkeys(name for row in rows for name in row)
        return library.DataFrame({name: [row.get(name) for row in rows] for name in names})


class Listing(tuple[Item, ...], Framed):
    """Known models or cards: a tuple that is a table, too."""

    def _frame_rows(self) -> Iterable[Row]:
        return (scalars(entry) for entry in self)


def scalars(entry: Any, *left_out: str) -> Row:
    """Return the fields of a value that are one number, word or switch; None counts as one."""
    fields = entry._asdict() if hasattr(entry, "_asdict") else dict(entry)
    return {name: _plain(value) for name, value in fields.items() if name not in left_out and not _is_several(value)}


def read_table(path: str) -> Any:
    """Return a table that a sweep wrote as a DataFrame. Raises MissingExtraError where neither pandas nor polars is installed."""
    name, library = _library()
    ending = Path(path).suffix
    lines = {"lines": True} if (name, ending) == ("pandas", ".jsonl") else {}
    return getattr(library, _READERS[name][ending])(path, **lines)


def _library() -> tuple[str, Any]:
    for name in _LIBRARIES:
        try:
            return name, import_module(name)
        except ImportError:
            continue
    raise MissingExtraError("a data frame needs pandas or polars: pip install pandas")


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _is_several(value: object) -> bool:
    return isinstance(value, (tuple, list, dict, frozenset, BaseModel))
