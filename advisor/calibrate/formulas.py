"""Tell the formulas that a record was measured against from others: a digest of the code that predicts memory."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
ROOMS = ("allocator", "architectures", "memory", "tape", "trace")
"""Rooms whose code makes the predicted bytes of a record: the model's shape, the closed form, the dry run and its replay."""
DIGITS = 16


@cache
def digest() -> str:
    """First digits of the SHA-256 of those rooms' code: it changes with every change of a formula, and with every release."""
    total = sha256()
    for room in ROOMS:
        for path in sorted((_PACKAGE / room).glob("*.py")):
            total.update(f"{room}/{path.name}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:DIGITS]
