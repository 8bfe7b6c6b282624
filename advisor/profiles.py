"""Reads the fact files of `profiles/`: people edit them, code never holds them.

In a source tree or an editable install they are the top-level folder; in a wheel they travel inside the package.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGED = Path(__file__).parent / "_profiles"
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "profiles"


@cache
def read(kind: str) -> tuple[dict[str, Any], ...]:
    """Rows of every file in `profiles/<kind>/`, files in name order. Each file holds one JSON list of objects."""
    rows: list[dict[str, Any]] = []
    for path in sorted((ROOT / kind).glob("*.json")):
        rows.extend(json.loads(path.read_bytes()))
    return tuple(rows)
