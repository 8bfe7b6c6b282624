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


class IntervalRow(Row):
    """Shares of the moving bytes that an estimate may be off by."""

    low_share: Share
    high_share: Share
    context_bytes: Bytes
    source: Text


class ResidualRow(Row):
    """Error of one measured run, as a share of what was predicted."""

    id: Text
    group: Text
    """Source and card."""
    metric: Literal["allocated", "reserved", "process"]
    share: Share


class Residuals(Row):
    """Errors of a tier on measured runs (`python -m advisor.accuracy` writes them)."""

    tier: Text
    coverage_asked: Share
    rule: Text
    n: Positive
    n_groups: Positive
    seen: IntervalRow
    unseen: IntervalRow
    coverage_leave_one_out: Share
    coverage_leave_group_out: Share
    residuals: tuple[ResidualRow, ...]
