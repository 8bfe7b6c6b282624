"""Row models of `profiles/models/` and `profiles/not_covered/models.json`.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Any, Literal

from pydantic import model_validator

from advisor.profiles.base import Date, Row, Text
from advisor.values.vocabulary import Positive


class PublishedExtra(Row):
    """What a published count has beside the parameters that transformers builds."""

    params: int
    """Negative where the published count lacks some."""
    what: Text


class ModelProfile(Row):
    """A model of `profiles/models/`: its config.json and where that was read."""

    id: Text
    """Repository on the Hub, org/name."""
    config: dict[str, Any]
    """Its config.json, as published."""
    source: Text
    source_date: Date | None = None
    """When the source was made."""
    recorded: Date | None = None
    """When it was transcribed. One of the two dates is needed."""
    aliases: tuple[Text, ...] = ()
    """Short names that mean this model and no other."""
    same_config_ids: tuple[Text, ...] = ()
    """Repositories of the same shape."""
    params: Positive | None = None
    """Parameters that transformers builds, tied tensors once."""
    params_source: str = ""
    params_published: Positive | None = None
    params_published_kind: Literal["exact", "derived exact", "same-shape sibling", "rounded", "nominal"] = "exact"
    params_published_source: str = ""
    published_extra: PublishedExtra | None = None
    gated: bool = False
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _dated_and_typed(self) -> "ModelProfile":
        if not (self.source_date or self.recorded):
            raise ValueError("source_date is missing: when the source was made, or recorded: when it was transcribed")
        if not isinstance(self.config.get("model_type"), str):
            raise ValueError("config.model_type is missing: paste the whole config.json")
        return self


class UncoveredModel(Row):
    """A model of `profiles/not_covered/models.json`: known by name, refused with the reason that its type gives, or its own."""

    id: Text
    model_type: Text
    source: Text
    recorded: Date
    aliases: tuple[Text, ...] = ()
    same_config_ids: tuple[Text, ...] = ()
    why: str = ""
    """Its own reason, where its type's is not it."""
