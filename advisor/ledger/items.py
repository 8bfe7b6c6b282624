"""Results item by item, from the files in which evaluations leave them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.bounded import read_text
from advisor.errors import InvalidInputError
from advisor.json_files import LARGEST_BYTES, parse_json

_IDS = ("id", "item_id", "doc_id", "task_id", "question_id")
"""Names of an item; doc_id as in the samples of lm-evaluation-harness, task_id as in HumanEval's."""
_RESULTS = ("correct", "score", "passed", "result", "acc", "exact_match")


def read_items(path: Path, metric: str = "") -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Results and ids of a JSON file or JSON lines: a list of results, an object of id → result, or one object an item.

    Of an item's object the result is the field called as the metric, or `correct`, `score`, `passed` …
    """
    text = read_text(path, LARGEST_BYTES)
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".jsonl" or (len(lines) > 1 and lines[0].strip().endswith("}") and lines[1].lstrip().startswith("{")):
        data: Any = [parse_json(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    else:
        data = parse_json(text, str(path))
    if isinstance(data, dict):
        return _results(path, list(data.values())), tuple(map(str, data))
    if not isinstance(data, list) or not data:
        raise InvalidInputError(f"{path} holds no items: give a list of results, or one JSON object an item")
    if all(isinstance(entry, dict) for entry in data):
        return _from_objects(path, data, metric)
    return _results(path, data), ()


def _from_objects(path: Path, entries: Sequence[Mapping[str, Any]], metric: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
    first = entries[0]
    field = next((name for name in (metric, *_RESULTS) if name and name in first), None)
    if field is None:
        raise InvalidInputError(f"{path}: an item's fields are {', '.join(map(str, first))}; name the one that is its result with --metric")
    id_field = next((name for name in _IDS if name in first), None)
    results = _results(path, [entry.get(field) for entry in entries])
    return results, tuple(str(entry.get(id_field)) for entry in entries) if id_field else ()


def _results(path: Path, values: Sequence[Any]) -> tuple[float, ...]:
    for number, value in enumerate(values):
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise InvalidInputError(f"{path}: item {number} has the result {str(value)[:40]!r}, which is no number")
    return tuple(float(value) for value in values)
