"""Reads and writes safetensors files, tensor by tensor, with numpy alone.

The format is 8 bytes with the length of a JSON header, the header, then the numbers (https://huggingface.co/docs/safetensors). It is
read here because the library's numpy side has no bfloat16 (safetensors 0.8, numpy.py: "data type 'bfloat16' not understood").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from advisor.bounded import opened
from advisor.errors import InvalidInputError, MissingExtraError, UnsupportedError
from advisor.json_files import object_of, parse_json
from advisor.shown import capped

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""What numbers can be read as floats; bfloat16 is the upper half of a float32."""
UNIT_ROUNDOFF = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest relative error of rounding to the type (IEEE 754; bfloat16 keeps 8 bits of the significand)."""
_MAX_HEADER_BYTES = 32_000_000
"""Judgement: 100,000 tensors' header has 15 MB. The library takes up to 100 MB (safetensors 0.8, tensor.rs MAX_HEADER_SIZE)."""
_MAX_DIMENSIONS = 32
"""As numpy has it (1.26, NPY_MAXDIMS; 64 since 2.0)."""
_MAX_SIDE = 2**63 - 1
"""numpy counts in 64 bits."""
_LONGEST_REASON = 200
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte in the file."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def numpy() -> ModuleType:
    """numpy, or the line that installs it."""
    try:
        import numpy
    except ImportError as error:
        raise MissingExtraError("reading an adapter's weights needs numpy: pip install 'finetune-advisor[adapters]'") from error
    return numpy


def open_tensors(path: Path) -> TensorFile:
    """The table of contents of a safetensors file, checked against the file's size. Raises InvalidInputError naming what is wrong."""
    try:
        with opened(path) as file:
            return _parse(path, file.stream, file.size_bytes)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error


def _parse(path: Path, stream: IO[bytes], size_bytes: int) -> TensorFile:
    start = stream.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise InvalidInputError(f"{path} is a Git LFS pointer, not the weights: fetch them with git lfs pull")
    if len(start) < 8:
        raise InvalidInputError(f"{path} is no safetensors file: it holds {size_bytes} bytes")
    (header_bytes,) = struct.unpack("<Q", start[:8])
    if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise InvalidInputError(f"{path} is no safetensors file, or was cut short in its header")
    stream.seek(8)
    try:
        header = object_of(parse_json(stream.read(header_bytes).decode("utf-8"), "it"), "it")
        metadata = _metadata(header.pop("__metadata__", None))
        tensors = {name: _tensor(name, entry, 8 + header_bytes) for name, entry in header.items()}
        needed_bytes = _end_of(tensors.values(), 8 + header_bytes)
    except (UnicodeDecodeError, ValueError, InvalidInputError) as error:
        raise InvalidInputError(f"{path} has a damaged safetensors header ({capped(str(error), _LONGEST_REASON)})") from None
    if needed_bytes > size_bytes:
        raise InvalidInputError(f"{path} was cut short: it holds {size_bytes:,} of {needed_bytes:,} bytes; copy or save it again")
    if needed_bytes < size_bytes:
        raise InvalidInputError(f"{path} holds {size_bytes - needed_bytes:,} bytes after its last tensor: copy or save it again")
    return TensorFile(path, tensors, metadata)


def _metadata(value: object) -> dict[str, str]:
    """Texts by name, as the library wants them (safetensors 0.8, tensor.rs HashMetadata)."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise ValueError("its __metadata__ is no object of texts")
    return value


def _tensor(name: str, entry: object, data_start: int) -> Tensor:
    """Raises ValueError as the library refuses: numbers must be whole and written so."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise ValueError(f"{name} is no object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], _wholes(name, entry.get("shape")), _wholes(name, entry.get("data_offsets"))
    if dtype not in ITEM_BYTES:
        raise ValueError(f"{name} has the unknown type {dtype}")
    if len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{name} has {len(offsets)} offsets and {len(shape)} dimensions")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"{name} has {end - begin} bytes for the shape {list(shape)}")
    return Tensor(name, dtype, shape, data_start + begin, end - begin)


def _wholes(name: str, values: object) -> tuple[int, ...]:
    wanted = isinstance(values, list) and all(type(value) is int and 0 <= value <= _MAX_SIDE for value in values)
    if not wanted or not isinstance(values, list):
        raise ValueError(f"{name} has a shape or offsets that are no list of whole numbers")
    return tuple(values)


def _end_of(tensors: Iterable[Tensor], data_start: int) -> int:
    """Where the last tensor ends. Raises ValueError where two overlap or leave a gap (safetensors 0.8, tensor.rs Metadata::validate)."""
    end = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.size_bytes)):
        if tensor.start != end:
            raise ValueError(f"{tensor.name} {'overlaps the one before it' if tensor.start < end else 'leaves a gap before it'}")
        end += tensor.size_bytes
    return end


def read(file: TensorFile, tensor: Tensor, rows: slice | None = None) -> Any:
    """The tensor as a numpy array of floats: float64 for its own, float32 otherwise, in which the 16-bit types are exact.

    `rows` cuts the first dimension, so that a large base weight need not be held whole.
    """
    np = numpy()
    if tensor.dtype not in FLOATS:
        raise UnsupportedError(f"{file.path}: {tensor.name} is stored as {tensor.dtype}, which is no plain floating-point type")
    first, last, _ = (rows or slice(None)).indices(tensor.shape[0] if tensor.shape else 1)
    row_items = math.prod(tensor.shape[1:])
    count = (last - first) * row_items
    with opened(file.path) as held:
        stream = held.stream
        stream.seek(tensor.start + first * row_items * ITEM_BYTES[tensor.dtype])
        raw = np.fromfile(stream, dtype=FLOATS[tensor.dtype], count=count)
    if len(raw) != count:
        raise InvalidInputError(f"{file.path} was cut short while it was being read")
    if tensor.dtype == "BF16":
        raw = (raw.astype("<u4") << 16).view("<f4")
    elif tensor.dtype == "F16":
        raw = raw.astype("<f4")
    return raw.reshape(last - first, *tensor.shape[1:]) if tensor.shape else raw


def read_bytes(file: TensorFile, tensor: Tensor) -> bytes:
    """The tensor as it is stored, for copying."""
    with opened(file.path) as held:
        held.stream.seek(tensor.start)
        return held.stream.read(tensor.size_bytes)


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor that is to be written; its bytes are made when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_header(stream: IO[bytes], tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> None:
    """Writes the header; the bytes of every tensor must follow in the same order."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.size_bytes]}
        offset += tensor.size_bytes
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the library aligns the data to 8 bytes
    stream.write(struct.pack("<Q", len(text)) + text)
