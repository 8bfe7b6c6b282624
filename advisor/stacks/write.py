"""Lines of YAML, written by hand: no library, no surprises in quoting, and comments where a reader needs them."""

from __future__ import annotations

import json
import re

Line = str

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_MEANT_OTHERWISE = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"])


def setting(name: str, value: bool | int | float | str | tuple[str, ...]) -> Line:
    return f"{name}: {written(value)}"


def written(value: bool | int | float | str | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str) and not _reads_as_itself(value):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _reads_as_itself(text: str) -> bool:
    number = re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", text) is not None
    return number or (_PLAIN.fullmatch(text) is not None and text.lower() not in _MEANT_OTHERWISE)


def number(value: float) -> int | float:
    """32 rather than 32.0, for readers that want whole numbers."""
    return int(value) if value == int(value) else value
