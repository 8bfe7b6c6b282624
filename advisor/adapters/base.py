"""Norms of the base weights, where their folder is at hand: what DoRA's magnitudes began from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.adapters.layout import Pair
from advisor.adapters.tensors import FLOATS, ITEM_BYTES, Tensor, TensorFile, numpy, open_tensors, read
from advisor.bounded import children, is_file, is_folder, place
from advisor.errors import InvalidInputError
from advisor.json_files import read_object

INDEX = "model.safetensors.index.json"
_CHUNK_BYTES = 64_000_000
"""Base weights are read in runs of rows of about this size, so that none is held whole."""


@dataclass(frozen=True, slots=True)
class BaseNorms:
    """Where each base weight lies."""

    weights: Mapping[str, tuple[TensorFile, Tensor]]
    fan_in_fan_out: bool
    """Weights are stored as (in, out): transformers' Conv1D."""

    def of(self, pair: Pair) -> Any | None:
        """Norm of the base weight for each output, as a numpy array; None where it is not known: absent, quantised or not a matrix."""
        place = self.weights.get(f"{pair.module}.weight")
        if place is None or pair.is_embedding or pair.experts > 1:
            return None
        file, tensor = place
        shape = (pair.out_features, pair.in_features)
        if tensor.dtype not in FLOATS or tensor.shape != (shape[::-1] if self.fan_in_fan_out else shape):
            return None
        return _row_norms(file, tensor, self.fan_in_fan_out)


def _row_norms(file: TensorFile, tensor: Tensor, transposed: bool) -> Any:
    np = numpy()
    rows, columns = tensor.shape
    step = max(1, _CHUNK_BYTES // (columns * ITEM_BYTES[tensor.dtype]))
    squares = np.zeros(columns if transposed else rows)
    for start in range(0, rows, step):
        chunk = read(file, tensor, slice(start, start + step)).astype(np.float64) ** 2
        if transposed:
            squares += chunk.sum(axis=0)
        else:
            squares[start : start + len(chunk)] = chunk.sum(axis=1)
    return np.sqrt(squares)


def base_norms(folder: Path, fan_in_fan_out: bool) -> BaseNorms:
    """The safetensors of a saved model; raises one line when the folder holds none."""
    files = _files(place(folder))
    weights = {tensor.name: (file, tensor) for file in map(open_tensors, files) for tensor in file.tensors.values()}
    return BaseNorms(weights, fan_in_fan_out)


def _files(folder: Path) -> tuple[Path, ...]:
    if is_file(folder / INDEX):
        places = read_object(folder / INDEX).get("weight_map")
        if not isinstance(places, dict):
            raise InvalidInputError(f"{folder / INDEX} has no weight_map")
        return tuple(folder / name for name in sorted({str(name) for name in places.values()}))
    found = tuple(child for child in children(folder) if child.suffix == ".safetensors") if is_folder(folder) else ()
    if not found:
        raise InvalidInputError(f"{folder} holds no safetensors: give the folder of the base model's weights")
    return found
