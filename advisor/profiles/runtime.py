"""Row models of `profiles/runtime/` and `profiles/measurements/residuals/`: contexts, and how far estimates were off.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Literal

from pydantic import Field

from advisor.profiles.base import Row, Text
from advisor.values.vocabulary import Bytes, Positive

Share = Annotated[float, Field(allow_inf_nan=False)]


class ContextRow(Row):
    """What a CUDA context takes on cards of a compute capability; null: on all others."""

    compute_capability: str | None
    context_bytes: Bytes
    margin_bytes: Bytes
    source: Text
    judgement: bool


class CommunicatorRow(Row):
    """What a communicator of NCCL or RCCL takes of each card, outside torch's allocator. Of the rows that match, the last speaks."""

    vendor: str | None
    """null: every vendor."""
    cards: Literal["two", "several"]
    """Cards of a group: two, or two and more."""
    communicator_bytes: Bytes
    further_bytes: Bytes
    """Of each group beyond the first."""
    margin_bytes: Bytes
    source: Text
    judgement: bool


class ErrorsRow(Row):
    """Errors of one kind of plan in one group: measured, or replayed, over predicted, less one."""

    kind: dict[str, str]
    """Facets of `advisor.memory.kinds.Kind` that say something."""
    group: Text
    """Source and card, or the model that was dry-run."""
    metric: Literal["allocated", "reserved"]
    ids: tuple[str, ...]
    """The measured runs, in the order of the errors; none for replays."""
    shares: Annotated[tuple[Share, ...], Field(min_length=1)]


class Residuals(Row):
    """One list of errors: of the closed form or the dry run on measured runs, or of the closed form on replays.

    `python -m advisor.accuracy` writes them.
    """

    tier: Text
    n: Positive
    n_groups: Positive
    errors: tuple[ErrorsRow, ...]
