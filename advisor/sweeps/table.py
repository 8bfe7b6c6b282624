"""Rows as an Arrow table, and tables as a file: Parquet, CSV, JSON or JSON lines. The same rows make the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from advisor.shown import json_shown
from advisor.sweeps.grid import Kind
from advisor.sweeps.kinds import Rows
from advisor.values import Request

VERDICTS = ("fits", "cannot tell", "no")
"""In the order of the codes of `advisor.sweeps.shapes`."""
UNPRICED = "cannot tell"
"""Of a row without a price: its reason stands beside it."""

ROW_GROUP = 1 << 17
"""Rows at least. Parquet's own default is 1 << 20 (pyarrow 26, `write_table`); these take less memory."""

_BYTES = ("low_bytes", "expected_bytes", "high_bytes", "allocated_bytes", "slack_bytes")
_OPTIONS = tuple(name for name in Request.model_fields if name not in ("batch_size", "seq_len", "grad_accum", "gpus", "shard"))


def option_names(kinds: Iterable[Kind]) -> tuple[str, ...]:
    """The options that any kind was given, in the order of a request."""
    given = {name for kind in kinds for name in kind.options}
    return tuple(name for name in _OPTIONS if name in given)


def table_of(kind: Kind, rows: Rows, options: tuple[str, ...]) -> Any:
    """The rows as a table: what was asked, the verdict, and the bytes on one card."""
    count, plan = len(rows.batch), rows.plan
    given = {name: _plain(getattr(kind.request, name)) for name in ("method", *(name for name in options if name != "method"))}
    said = {
        "model": kind.model.id,
        "gpu": kind.gpu.name,
        "gpus": kind.request.gpus or 1,
        "shard": plan.sharding.value if plan is not None else _plain(kind.request.shard),
        **given,
        **({"method": plan.method.value} if plan is not None else {}),
    }
    columns = {name: _constant(name, value, count) for name, value in said.items()}
    for name, values in (("batch_size", rows.batch), ("seq_len", rows.seq_len), ("grad_accum", rows.accumulation)):
        columns[name] = _numbers(values, pa.int64())
    columns |= _verdicts(kind, rows, count)
    return pa.table(columns)


def _verdicts(kind: Kind, rows: Rows, count: int) -> dict[str, Any]:
    if rows.priced is None:
        verdict, phase = _constant("verdict", UNPRICED, count), pa.nulls(count, pa.string())
        sizes = [pa.nulls(count, pa.int64()) for _ in _BYTES]
    else:
        priced = rows.priced
        verdict = _words(VERDICTS).take(_numbers(priced.verdict, pa.int8()))
        phase = _words([phase.value for phase in rows.phases]).take(_numbers(priced.phase, pa.int8()))
        sizes = [_numbers(column, pa.int64()) for column in (priced.low, priced.expected, priced.high, priced.allocated, priced.slack)]
    usable = _numbers(np.full(count, kind.gpu.usable_bytes), pa.int64())
    reason = _constant("reason", rows.reason, count)
    return {"verdict": verdict, "phase": phase, **dict(zip(_BYTES, sizes, strict=True)), "usable_bytes": usable, "reason": reason}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return "x".join(map(str, value)) if _is_size(value) else ",".join(value) if isinstance(value, tuple) else value


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(side, int) for side in value)


_NUMBERS = {"gpus": pa.int64(), "rank": pa.int64(), "images": pa.int64(), "labels": pa.int64(), "alpha": pa.float64()}
_NUMBERS |= {"lora_dropout": pa.float64()}
_SWITCHES = ("double_quant", "kbit_prepare", "checkpointing", "padding", "reentrant")


def _constant(name: str, value: Any, count: int) -> Any:
    kind = _NUMBERS.get(name, pa.bool_() if name in _SWITCHES else pa.string())
    if value is None:
        return pa.nulls(count, kind)
    if pa.types.is_boolean(kind):
        return _numbers(np.packbits(np.full(count, value), bitorder="little"), kind, count)
    if pa.types.is_string(kind):
        return _words([value]).take(_numbers(np.zeros(count, np.int8), pa.int8()))
    return _numbers(np.full(count, value, kind.to_pandas_dtype()), kind)


def _numbers(values: Any, kind: Any, count: int | None = None) -> Any:
    """An array of numpy as one of Arrow, where it lies: `pyarrow.array` would load pandas first, half a second."""
    return pa.Array.from_buffers(kind, len(values) if count is None else count, [None, pa.py_buffer(np.ascontiguousarray(values))])


def _words(values: Sequence[str]) -> Any:
    """The same for a few words."""
    texts = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))


# ------------------------------------------------------------------------------------------------------------------- files


def write_piece(table: Any, path: Path) -> None:
    """As it lies in memory: it is read once, and then gone."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_piece(path: Path) -> Any:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _parquet(path: Path, tables: Iterable[Any]) -> None:
    writer = None
    for table in _grouped(tables):
        writer = writer or pq.ParquetWriter(path, table.schema, **_encodings(table.schema))
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _encodings(schema: Any) -> dict[str, Any]:
    """Words by dictionary, numbers by their differences, which are alike from length to length: half the size."""
    numbers = [field.name for field in schema if pa.types.is_integer(field.type)]
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    differences = dict.fromkeys(numbers, "DELTA_BINARY_PACKED")
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": words, "column_encoding": differences}


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """Tables of so many rows that a row group of Parquet is worth its header."""
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(each.num_rows for each in held) >= ROW_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _csv(path: Path, tables: Iterable[Any]) -> None:
    writer = None
    for table in tables:
        writer = writer or pa_csv.CSVWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _json_lines(path: Path, tables: Iterable[Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in _lines(tables))


def _json(path: Path, tables: Iterable[Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        for number, line in enumerate(_lines(tables)):
            file.write(f"{',' if number else '['}\n{line}")
        file.write("\n]\n")


def _lines(tables: Iterable[Any]) -> Iterable[str]:
    return (json_shown(json.dumps(row, ensure_ascii=False)) for table in tables for row in table.to_pylist())


WRITERS: dict[str, Callable[[Path, Iterable[Any]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".json": _json,
}
"""By the end of the file's name."""
