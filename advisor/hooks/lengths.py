"""The longest example of a training set, where looking costs nothing and changes nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_EXAMPLES = 512
"""How many examples are looked at, evenly spread. Judgement: a few milliseconds."""


class Longest(NamedTuple):
    tokens: int
    of: str


def longest_example(dataset: Any) -> Longest | None:
    """The longest `input_ids` of a list, or of a table of the datasets library without a transform; None for anything else.

    Other data sets may tokenise, shuffle or draw at random when they are read: they are left alone.
    """
    if not _is_still(dataset):
        return None
    count = len(dataset)
    step = max(1, -(-count // MOST_EXAMPLES))
    lengths = []
    for number in range(0, count, step):
        example = dataset[number]
        ids = example.get("input_ids") if isinstance(example, dict) else None
        if ids is None:
            return None
        lengths.append(len(ids))
    if not lengths or not max(lengths):
        return None
    return Longest(max(lengths), f"the {count:,} examples" if step == 1 else f"{len(lengths)} of {count:,} examples that were looked at")


def _is_still(dataset: Any) -> bool:
    if isinstance(dataset, (list, tuple)):
        return bool(dataset)
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or "input_ids" not in columns or not hasattr(dataset, "__len__"):
        return False
    return getattr(dataset, "_format_type", None) in (None, "torch", "numpy", "python") and len(dataset) > 0
