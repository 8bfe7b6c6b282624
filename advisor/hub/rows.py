"""The known models as rows: those of `profiles/models/`, and those that are known by name and not covered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from advisor import profiles
from advisor.architectures import kind_of_type
from advisor.names import tokens
from advisor.profiles.models import ModelProfile, UncoveredModel

Words = tuple[str, ...]


class ModelRow(NamedTuple):
    """A line of `advise models`: a profile, or a known model that is not covered."""

    id: str
    model_type: str
    kind: str
    """A `ModelKind`, or empty where transformers does not train its type on text."""
    released: str
    """Year and month, where a name of it says them (Qwen3-4B-Instruct-2507); else empty."""
    aliases: tuple[str, ...]
    same_shape_ids: tuple[str, ...]
    params_published: int | None
    params_published_kind: str
    """exact, derived exact, same-shape sibling, rounded, nominal, or none."""
    published_extra: int
    """What the published count has beside the parameters that transformers builds (buffers, a layer left out); negative for less."""
    params: int | None
    """Parameters of the model that transformers builds, tied tensors once."""
    gated: bool
    source: str
    source_date: str
    """When the source was made, or else when it was transcribed."""
    covered: bool
    config: Mapping[str, object]
    why: str = ""
    """Why it is not covered, where its type does not say it."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases, *self.same_shape_ids)


_YEAR_AND_MONTH = re.compile(r"-(2[2-9])(0[1-9]|1[0-2])(?:$|-)|-(0[1-9]|1[0-2])-(20[2-9]\d)(?:$|-)")
"""As makers date a model in its name: Qwen3-4B-Instruct-2507, c4ai-command-r-08-2024."""


def released(name: str) -> str:
    """ "2025-07" of a name that says it; empty where it does not."""
    found = _YEAR_AND_MONTH.search(name)
    if found is None:
        return ""
    year, month, month_first, whole_year = found.groups()
    return f"20{year}-{month}" if year else f"{whole_year}-{month_first}"


@cache
def covered_rows() -> tuple[ModelRow, ...]:
    return tuple(_covered_row(row) for row in profiles.rows("models", ModelProfile))


@cache
def all_rows() -> tuple[ModelRow, ...]:
    return (*covered_rows(), *(_uncovered_row(row) for row in profiles.rows("not_covered/models", UncoveredModel)))


def spelt_row(text: str) -> tuple[ModelRow, str] | None:
    """A covered model under a name as it is spelt, in any case: the quick way in, which needs no tokens. Names are unique."""
    for row in profiles.naming("models", json.dumps(text), ModelProfile):
        name = next((name for name in (row.id, *row.aliases, *row.same_config_ids) if name.lower() == text.lower()), None)
        if name is not None:
            return _covered_row(row), name
    return None


@cache
def rows_by_words() -> dict[Words, tuple[tuple[ModelRow, str], ...]]:
    """Every name's words → the rows that bear it, and the name."""
    index: dict[Words, list[tuple[ModelRow, str]]] = {}
    for row in all_rows():
        for name in row.names:
            for form in {tokens(name), tokens(name.rpartition("/")[2])}:
                entries = index.setdefault(form, [])
                if all(other is not row for other, _ in entries):
                    entries.append((row, name))
    return {words: tuple(entries) for words, entries in index.items()}


def _covered_row(row: ModelProfile) -> ModelRow:
    return ModelRow(
        id=row.id,
        model_type=row.config["model_type"],
        kind=kind_of_type(row.config["model_type"]),
        released=released(row.id),
        aliases=row.aliases,
        same_shape_ids=row.same_config_ids,
        params_published=row.params_published,
        params_published_kind=row.params_published_kind if row.params_published else "none",
        published_extra=row.published_extra.params if row.published_extra else 0,
        params=row.params,
        gated=row.gated,
        source=row.source,
        source_date=row.source_date or row.recorded or "",
        covered=True,
        config=row.config,
    )


def _uncovered_row(row: UncoveredModel) -> ModelRow:
    return ModelRow(
        id=row.id,
        model_type=row.model_type,
        kind=kind_of_type(row.model_type),
        released=released(row.id),
        aliases=row.aliases,
        same_shape_ids=row.same_config_ids,
        params_published=None,
        params_published_kind="none",
        published_extra=0,
        params=None,
        gated=False,
        source=row.source,
        source_date=row.recorded,
        covered=False,
        config={},
        why=row.why,
    )
