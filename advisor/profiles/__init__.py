"""Reads the fact files of `profiles/`: people edit them, code never holds them.

In a source tree or an editable install they are the top-level folder; in a wheel they travel inside the package. A file holds one JSON
list of rows. Every row is held against the row model of its folder (`advisor.profiles.kinds`, and `advisor.accuracy.rows` for measured
runs) when its file is read; a row that does not stand is an InvalidInputError of one line, which names file, row and field.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from advisor.profiles.files import rows_of
from advisor.profiles.kinds import kind_of, row_type

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
    """As `rows`, each row as the plain dictionary that its file holds; it has been held against the row model all the same."""
    found = []
    for path in _paths(kind):
        raw = path.read_bytes()
        rows_of(path, ROOT, raw, row_type(kind_of(path.relative_to(ROOT).with_suffix("").as_posix())))
        found += json.loads(raw)
    return tuple(found)


def _paths(kind: str) -> list[Path]:
    place = ROOT / kind
    if not place.is_dir():
        return [place.with_suffix(".json")]
    return sorted(path for path in place.glob("*.json") if not path.name.endswith(SCHEMA))
