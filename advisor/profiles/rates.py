"""Row models of `profiles/times/` and `profiles/rates/`: runs that somebody timed, and the rates that were read off them.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from advisor.profiles.base import Rate, Row, Text
from advisor.values.vocabulary import Positive

Kernels = Literal["eager", "fused", "older"]
"""Whose kernels ran beside the matrix products; what each word means stands in `profiles/rates/kernels.json`."""
Exposed = Annotated[float, Field(ge=0, le=1)]


class TimedRun(Row):
    """One run of a group, and how fast it went."""

    id: Text
    """As in `profiles/measurements/` where its memory was read too."""
    model: Text
    config: dict[str, Any] = {}
    """The model's config.json where it has no profile, or that of a model of equal shape."""
    plan: dict[str, Any]
    """Fields of Plan that the runs of the group do not share."""
    tokens_per_s_per_gpu: Rate


class TimedRuns(Row):
    """Runs of one source on one card with the same kernels."""

    source: Text
    """The repository."""
    place: Text
    gpu: Text
    """As printed."""
    card: Text
    """The profile in `profiles/gpus/`."""
    kernels: Kernels
    apart: str = ""
    """Why their time is not that of their plan: they are kept and never fitted."""
    notes: str = ""
    plan: dict[str, Any]
    """Fields of Plan that the runs share."""
    runs: Annotated[tuple[TimedRun, ...], Field(min_length=1)]

    @property
    def group(self) -> str:
        """Rows of one source on one card resemble each other: they stay together in cross-validation."""
        return f"{self.source.removeprefix('github.com/')} · {self.card}"


class CardRates(Row):
    """Which share of its peaks a family of cards reaches. `benchmarks/fit_rates.py` writes all but the names."""

    family: Text
    cards: tuple[Text, ...] = ()
    """Names in `profiles/gpus/`: cards of one chip."""
    begins: str | None = None
    """Of a row for cards that no run is known of: how their names begin; "" for all that are left."""
    products_share: Rate
    """Of the dense peak, in matrix products. Above 1 where cards clock higher than their data sheet says."""
    attention_share: Rate
    """Of the same peak, in FlashAttention-2 or SDPA."""
    bandwidth_share: Rate
    """Of the memory bandwidth, in elementwise kernels as `advisor.speed.traffic` counts them."""
    runs: Annotated[int, Field(ge=0)]
    groups: tuple[Text, ...]
    """Source and card of the runs."""


class KernelRates(Row):
    """What other kernels change of a card's shares. `benchmarks/fit_rates.py` writes the factors."""

    kernels: Kernels
    meaning: Text
    attention_factor: Rate
    bandwidth_factor: Rate
    """Above 1 where fused kernels leave out traffic that is counted."""
    runs: Annotated[int, Field(ge=0)]


class LinkRates(Row):
    """Which share of a link's line rate collectives reach, and how much of them compute does not hide."""

    link: Literal["fabric", "pcie", "network", "host", "host memory"]
    share_low: Rate
    share_high: Rate
    exposed_low: Exposed
    exposed_high: Exposed
    bytes_per_s: Positive | None = None
    """Line rate where no card's profile holds it: of a machine in the network, or of the bus of a card without its own figure."""
    source: Text
    judgement: bool


class TimeSpread(Row):
    """How far measured times lie from the times that rates of other runs give. `benchmarks/fit_rates.py` writes it."""

    sources: Literal["several", "one or none"]
    """Runs of how many sources on this family of cards the rates come from."""
    low: Rate
    high: Rate
    """Measured over computed: 90 % of the runs left out are to lie between."""
    runs: Positive
    groups: Positive


class LeftOut(Row):
    """One timed run beside the time that all other sources' runs give for it. `benchmarks/fit_rates.py` writes it."""

    id: Text
    group: Text
    method: Text
    sources: Literal["several", "one or none"]
    measured_s: Rate
    low_s: Rate
    expected_s: Rate
    high_s: Rate

    @property
    def inside(self) -> bool:
        return self.low_s <= self.measured_s <= self.high_s
