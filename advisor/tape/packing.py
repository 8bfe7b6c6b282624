"""Writes JSON compressed, and reads it back within bounds."""

from __future__ import annotations

import json
import lzma
from typing import Any

FORMAT = 3
"""Version of the files: it rises when a list is renamed, removed or changes its meaning."""
LARGEST_BYTES = 64 << 20
"""A file that unpacks to more is damaged. Judgement: a tape of 100 layers that all differ takes a twentieth."""
_PRESET = 6
"""Of the LZMA library's: the window is wide enough to find one recording in another, which makes a file a third of zlib's."""
DAMAGED = (ValueError, TypeError, KeyError, IndexError, lzma.LZMAError, RecursionError)
"""What a damaged file raises."""


def packed(content: dict[str, Any]) -> bytes:
    """A file's content."""
    return lzma.compress(json.dumps({"format": FORMAT, **content}, separators=(",", ":")).encode(), preset=_PRESET)


def unpacked(content: bytes) -> dict[str, Any]:
    """What `packed` wrote. Raises one of `DAMAGED` where it is damaged, or of another format."""
    unpacker = lzma.LZMADecompressor(memlimit=LARGEST_BYTES)
    text = unpacker.decompress(content, LARGEST_BYTES)
    if not unpacker.eof:
        raise ValueError("a file of tapes that is cut off, or too large")
    data = json.loads(text)
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}")
    return dict(data)
