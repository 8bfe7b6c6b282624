"""Reads the fact files of `profiles/`: people edit them, code never holds them.

In a source tree or an editable install they are the top-level folder; in a wheel they travel inside the package.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_PACKAGED = Path(__file__).parent / "_profiles"
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "profiles"


@cache
def read(kind: str) -> tuple[dict[str, Any], ...]:
    """Rows of every file in `profiles/<kind>/`, files in name order, or of the one file `profiles/<kind>.json`.

    Each file holds one JSON list of objects.
    """
    return tuple(row for path in _paths(kind) for row in json.loads(path.read_bytes()))


@lru_cache(maxsize=256)
def naming(kind: str, text: str) -> tuple[dict[str, Any], ...]:
    """As `read`, of the files alone in which `text` stands, in any case: most of a look-up's time is parsing the others."""
    wanted = text.lower().encode()
    found = (raw for raw in (path.read_bytes() for path in _paths(kind)) if wanted in raw.lower())
    return tuple(row for raw in found for row in json.loads(raw))


def _paths(kind: str) -> list[Path]:
    place = ROOT / kind
    return sorted(place.glob("*.json")) if place.is_dir() else [place.with_suffix(".json")]
