"""What a sweep wrote, in numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, computed_field

from advisor.frames import read_table
from advisor.values.memory import Computed
from advisor.values.vocabulary import SCHEMA_VERSION, Positive, Value

Count = Annotated[int, Field(ge=0)]


class Verdicts(Value):
    """Rows by what is said of them."""

    fits: Count = 0
    no: Count = 0
    cannot_tell: Count = 0
    """Priced, with the card inside the interval."""
    unpriced: Count = 0

    @property
    def rows(self) -> int:
        return self.fits + self.no + self.cannot_tell + self.unpriced

    def plus(self, other: Verdicts) -> Verdicts:
        return Verdicts(**{name: getattr(self, name) + getattr(other, name) for name in Verdicts.model_fields})


class SweepGroup(Value):
    """The rows of one model on one number of one card."""

    model: str
    gpu: str
    n_gpus: Positive
    verdicts: Verdicts
    reasons: tuple[str, ...] = ()
    """Why rows have no price, each once."""


class SweepReport(Computed):
    """The answer to `advise sweep`; the rows themselves are in the file."""

    schema_version: str = SCHEMA_VERSION
    out: str
    """The file that was written."""
    kinds: Positive
    """Combinations of everything but the batch's shape."""
    resumed: Count = 0
    """Kinds that an earlier, interrupted sweep had priced."""
    groups: tuple[SweepGroup, ...]

    def to_frame(self) -> Any:
        """Return the rows of the file as a DataFrame. Raises MissingExtraError where neither pandas nor polars is installed."""
        return read_table(self.out)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdicts(self) -> Verdicts:
        total = Verdicts()
        for group in self.groups:
            total = total.plus(group.verdicts)
        return total

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 something fits · 1 nothing fits · 3 cannot tell."""
        found = self.verdicts
        return 0 if found.fits else 3 if found.cannot_tell or found.unpriced else 1
