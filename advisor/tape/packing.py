"""Writes parts, each facts and columns of whole numbers, compressed behind a head, and reads each by itself within bounds."""

from __future__ import annotations

import json
import lzma
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FORMAT = 4
"""Version of the files: it rises when a fact or a column is renamed, removed or changes its meaning."""
LARGEST_BYTES = 64 << 20
"""A file that unpacks to more is damaged. Judgement: a tape of 100 layers that all differ takes a twentieth."""
_PRESET = 6
"""Of the LZMA library's: its window is wide enough to find one part in another, which makes a file a third of what they take apart."""
_TYPES = ("b", "h", "i", "q")
"""Of numbers of 1, 2, 4 and 8 bytes, by the names of Python's `array`."""
DAMAGED = (ValueError, TypeError, KeyError, IndexError, OverflowError, lzma.LZMAError, RecursionError)
"""What a damaged file raises."""


class Part(NamedTuple):
    """What is written together."""

    facts: dict[str, Any]
    """As JSON can hold them."""
    columns: Mapping[str, Sequence[int]]


def packed(head: dict[str, Any], parts: Sequence[Part]) -> bytes:
    """A file's content: its head, and behind it the parts together, of which each says most of what the others say."""
    written = [*map(_written, parts)]
    return _compressed(_json({"format": FORMAT, "sizes_bytes": [*map(len, written)], **head})) + _compressed(b"".join(written))


def head_in(content: bytes) -> dict[str, Any]:
    """The head that `packed` wrote. Raises one of `DAMAGED` where it is damaged, or of another format."""
    head, _ = _head_and_rest(content)
    return head


def part_in(content: bytes, place: int) -> Part:
    """One of the parts that `packed` wrote. Raises one of `DAMAGED` where it is damaged, or of another format."""
    head, rest = _head_and_rest(content)
    parts, behind = _opened(rest)
    sizes_bytes = head["sizes_bytes"]
    if behind or len(parts) != sum(sizes_bytes) or not 0 <= place < len(sizes_bytes):
        raise ValueError("a file of tapes that is cut off")
    start = sum(sizes_bytes[:place])
    return _read(parts[start : start + sizes_bytes[place]])


def _head_and_rest(content: bytes) -> tuple[dict[str, Any], bytes]:
    text, rest = _opened(content)
    head = json.loads(text)
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}")
    return head, rest


def _read(written: bytes) -> Part:
    line, _, rest = written.partition(b"\n")
    facts = json.loads(line)
    columns, start = {}, 0
    for name, kind, count in facts.pop("columns"):
        if kind not in _TYPES:
            raise ValueError(f"{name}: a column of no type")
        column = array(kind)
        stop = start + count * column.itemsize
        column.frombytes(rest[start:stop])
        if len(column) != count:
            raise ValueError(f"{name}: a column that is cut off")
        columns[name] = _little_endian(column)
        start = stop
    return Part(facts, columns)


def _written(part: Part) -> bytes:
    columns = {name: _column(numbers) for name, numbers in part.columns.items()}
    kinds = [[name, column.typecode, len(column)] for name, column in columns.items()]
    line = _json({**part.facts, "columns": kinds})
    return line + b"\n" + b"".join(_little_endian(column).tobytes() for column in columns.values())


def _column(numbers: Sequence[int]) -> array[int]:
    """The numbers in the narrowest type that holds them. Raises OverflowError for one of more than eight bytes."""
    for kind in _TYPES[:-1]:
        try:
            return array(kind, numbers)
        except OverflowError:
            continue
    return array(_TYPES[-1], numbers)


def _little_endian(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _compressed(content: bytes) -> bytes:
    return lzma.compress(content, preset=_PRESET)


def _opened(content: bytes) -> tuple[bytes, bytes]:
    """What the first stream of `content` holds, and what follows it."""
    unpacker = lzma.LZMADecompressor(memlimit=LARGEST_BYTES)
    text = unpacker.decompress(content, LARGEST_BYTES)
    if not unpacker.eof:
        raise ValueError("a file of tapes that is cut off, or too large")
    return text, unpacker.unused_data
