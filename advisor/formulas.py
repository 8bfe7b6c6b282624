"""Tell what was made by one version of the code from what another made: a digest of the rooms that make it."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

_PACKAGE = Path(__file__).parent
DIGITS = 16


@cache
def digest(*rooms: str) -> str:
    """First digits of the SHA-256 of those rooms' code, packages or modules: it changes with every change of a formula in them."""
    total = sha256()
    for room in rooms:
        for path in sorted((_PACKAGE / room).glob("*.py")) or [_PACKAGE / f"{room}.py"]:
            total.update(f"{room}/{path.name}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:DIGITS]
