"""Numbers in, text out: the only place where GiB exist, and percent.

`parse_size` reads what people type; `format_size` writes what they read. Everywhere else memory is an `int` of bytes, and a share of
something a `float`.
"""

from __future__ import annotations

import re

from advisor.errors import InvalidInputError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "g": 10**9,
    "tib": KIB * GIB,
    "tb": 10**12,
}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$", re.IGNORECASE)
_LONGEST_SIZE = 40
"""Characters. Judgement; far below the 308 digits of the largest float."""


def parse_size(text: str) -> int:
    """Bytes of a literal size: "79.2GiB" (2**30), "24576MiB", "80GB" (10**9), "1TiB", "1024" (bytes).

    Raises InvalidInputError when the text is no size or is not positive.
    """
    match = _SIZE.match(text) if len(text) <= _LONGEST_SIZE else None
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise InvalidInputError(f"{text[:_LONGEST_SIZE]!r} is not a size; write it like 79.2GiB, 24576MiB or 80GB")
    size_bytes = round(float(match.group(1)) * unit)
    if size_bytes <= 0:
        raise InvalidInputError(f"{text!r} is not a positive size")
    return size_bytes


def format_size(size_bytes: int, digits: int = 1) -> str:
    """ "39.2 GiB", "1,051.3 GiB"; small sizes in MiB so that an adapter of 80 MiB does not read as 0.1 GiB."""
    if 0 < abs(size_bytes) < GIB // 10:
        return f"{size_bytes / MIB:.{digits}f} MiB"
    return f"{size_bytes / GIB:,.{digits}f} GiB"


def gib(size_bytes: int, digits: int = 1) -> str:
    """The bare number of GiB, for table columns whose header carries the unit."""
    return f"{size_bytes / GIB:,.{digits}f}"


def format_share(share: float, digits: int = 0) -> str:
    """ "32.6 %": a space before the sign, as ISO 80000-1 has it."""
    return f"{100 * share:.{digits}f} %"


def format_difference(share: float, digits: int = 1) -> str:
    """ "+1.3 %", "−0.4 %": a share by which something is more or less."""
    return f"{100 * share:+.{digits}f} %".replace("-", "−")


def format_rough_share(share: float, significant: int = 2) -> str:
    """ "25 %", "0.31 %": as many digits as say something."""
    return f"{float(f'{100 * share:.{significant}g}'):g} %"


def format_count(count: int) -> str:
    """ "70.6 B", "41.9 M", "135.1 K": parameters and tokens in powers of ten."""
    for scale, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if abs(count) >= scale:
            return f"{count / scale:.1f} {suffix}"
    return str(count)
