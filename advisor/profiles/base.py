"""Base of the row models: what a row may say, and what it must say. Everything else that a row holds is refused by name.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from advisor.values.vocabulary import Value

Text = Annotated[str, Field(min_length=1)]
Date = Annotated[str, Field(pattern=r"^20\d\d(-\d\d(-\d\d)?)?$")]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Row(Value):
    """Base of the row models: frozen, strict about types, and strict about unknown fields. Built when the first row is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)
