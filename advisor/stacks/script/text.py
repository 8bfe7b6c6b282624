"""The Python of a script: a file as it is, a notebook as its code cells in order without what is no Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from advisor.errors import InvalidInputError
from advisor.json_files import parse_json

_MAGIC = re.compile(r"^(\s*)([%!?].*|.*\?)$")
_ASSIGNED_MAGIC = re.compile(r"^(\s*[\w, ]+=\s*)[!%].*$")
_CELL_MAGIC = re.compile(r"^\s*%%(\w+)")
_CODE_CELLS = ("capture", "time", "timeit", "prun")
"""Cell magics whose cells hold Python (IPython core/magics)."""


def code_of(text: str, path: Path) -> str:
    """The text that Python would parse. Raises InvalidInputError for a notebook that is none."""
    if path.suffix != ".ipynb":
        return text
    held = parse_json(text, str(path))
    cells = held.get("cells") if isinstance(held, dict) else None
    if not isinstance(cells, list):
        raise InvalidInputError(f"{path} is no notebook: it has no cells")
    return "\n\n".join(_cell(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code")


def _cell(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    lines = ("".join(map(str, source)) if isinstance(source, list) else str(source)).splitlines()
    first = next((line for line in lines if line.strip()), "")
    magic = _CELL_MAGIC.match(first)
    if magic is not None and magic[1] not in _CODE_CELLS:
        return ""
    return "\n".join(_without_magics(lines))


def _without_magics(lines: list[str]) -> list[str]:
    """Lines with shell commands and magics replaced by `pass`; one that goes on after a backslash goes with it."""
    kept: list[str] = []
    goes_on = False
    for line in lines:
        magic = None if goes_on else _MAGIC.match(line)
        if goes_on or (magic is not None and not line.strip().startswith("#")):
            kept.append(f"{magic[1] if magic is not None else ''}pass" if not goes_on else "")
            goes_on = line.rstrip().endswith("\\")
        else:
            kept.append(_ASSIGNED_MAGIC.sub(r"\1None", line))
    return kept
