"""A card as a training process sees it."""

from typing import Annotated

from pydantic import Field

from advisor.values.vocabulary import Positive, Value


class Price(Value):
    """What a card rents for, as somebody recorded it."""

    provider: str
    usd_per_gpu_hour: Annotated[float, Field(gt=0)]
    date: str
    source: str


class GpuSpec(Value):
    """A card as a training process sees it. `None` means that no sound source was found."""

    name: str
    vendor: str
    architecture: str | None = None
    compute_capability: str | None = None
    usable_bytes: Positive
    """What the driver lets one process allocate in total: the size that peaks are held against."""
    usable_source: str
    bandwidth_bytes_per_s: int | None = None
    bf16_flop_per_s: int | None = None
    fp16_flop_per_s: int | None = None
    fp32_flop_per_s: int | None = None
    bf16_supported: bool = True
    unified_memory: bool = False
    prices: tuple[Price, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resolved_from: str = ""
    """One line for the reader: what was asked for and what it was taken to mean."""
