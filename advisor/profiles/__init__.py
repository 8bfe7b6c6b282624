"""Reads the fact files of `profiles/`: people edit them, code never holds them.

In a source tree or an editable install they are the top-level folder; in a wheel they travel inside the package. A file holds one JSON
list of rows, and each kind of row has a model (`advisor.profiles.kinds`, and `advisor.accuracy.rows` for measured runs). Models, cards and
measured runs are held against theirs whenever they are read (`rows`); of the knowledge that every answer needs, only the fields that are
used are looked at (`read`): to make its models would take a twentieth of the time of an answer. `python -m advisor.schemas` holds all rows
against all models. What does not stand is an InvalidInputError of one line, which names file, row and field.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from advisor.profiles.files import plain_rows_of, rows_of

_PACKAGED = Path(__file__).parent.parent / "_profiles"
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent.parent / "profiles"
SCHEMA = ".schema.json"
"""End of the name of a folder's JSON schema, which lies beside the folder."""

Row = TypeVar("Row")


def rows(kind: str, row: type[Row]) -> tuple[Row, ...]:
    """Rows of every file in `profiles/<kind>/`, files in name order, or of the one file `profiles/<kind>.json`, as values."""
    return tuple(one for path in _paths(kind) for one in rows_of(path, ROOT, path.read_bytes(), row))


@lru_cache(maxsize=256)
def naming(kind: str, text: str, row: type[Row]) -> tuple[Row, ...]:
    """As `rows`, of the files alone in which `text` stands, in any case: most of a look-up's time is parsing the others."""
    wanted = text.lower().encode()
    found = ((path, raw) for path, raw in ((path, path.read_bytes()) for path in _paths(kind)) if wanted in raw.lower())
    return tuple(one for path, raw in found for one in rows_of(path, ROOT, raw, row))


@cache
def read(kind: str) -> tuple[dict[str, Any], ...]:
    """As `rows`, each row as the dictionary that its file holds, which tells file and row where a field is missing."""
    return tuple(row for path in _paths(kind) for row in plain_rows_of(path, ROOT, path.read_bytes()))


def _paths(kind: str) -> list[Path]:
    place = ROOT / kind
    if not place.is_dir():
        return [place.with_suffix(".json")]
    return sorted(path for path in place.glob("*.json") if not path.name.endswith(SCHEMA))
