"""Row models of `profiles/gpus/`, `profiles/instances/` and `profiles/not_covered/gpus.json`.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from advisor.profiles.base import Date, Rate, Row, Text
from advisor.values.vocabulary import Positive


class PriceRow(Row):
    """A rent that somebody recorded."""

    provider: Text
    usd_per_gpu_hour: Rate
    date: Date
    kind: Text
    source: Text
    label: str = ""
    median_usd_per_gpu_hour: Rate | None = None
    offers: int | None = None


_UNSOURCED = frozenset({"name", "vendor", "segment", "aliases", "release_date", "sold_with_gb", "devices_per_card", "nvlink_bridged"})
_SOURCED_INSIDE = frozenset({"unified_memory", "prices", "notes", "sources"})
"""Fields that need no source of their own: names and forms, and what carries its source itself."""


class GpuProfile(Row):
    """A card of `profiles/gpus/`, with a source for each fact. A card of two devices is described whole."""

    name: Text
    vendor: Literal["NVIDIA", "AMD", "Intel", "Apple"]
    segment: Annotated[Literal["datacenter", "workstation", "gaming", "laptop", "integrated"], Field(alias="class")]
    architecture: Text
    marketed_gb: Positive
    """As the card is sold, of all its devices; a row with `sold_with_gb` names the smallest."""
    bf16_supported: bool
    sources: dict[str, Text]
    """Fields, several with commas between, and where they were read."""
    aliases: tuple[Text, ...] = ()
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")] | None = None
    """NVIDIA's, such as 8.9."""
    release_date: Date | None = None
    sold_with_gb: tuple[Positive, ...] = ()
    """Sizes of unified memory that the chip is sold with."""
    devices_per_card: Positive = 1
    """As how many devices a process sees the card."""
    unified_memory: bool = False
    """The memory is shared with the system."""
    usable_mib: Positive | None = None
    """What one process can really allocate, of one device."""
    torch_total_mib: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """`torch.cuda.get_device_properties(0).total_memory`, as drivers report it."""
    driver_total_mib: Positive | None = None
    """The total that nvidia-smi shows."""
    bandwidth_gb_per_s: Rate | None = None
    bf16_tflops: Rate | None = None
    """Dense tensor rate with fp32 accumulation."""
    fp16_tflops: Rate | None = None
    fp16_accumulate_fp16_tflops: Rate | None = None
    tf32_tflops: Rate | None = None
    fp32_tflops: Rate | None = None
    fp8_tflops: Rate | None = None
    fp8_supported: bool | None = None
    nvlink_gb_per_s_per_direction: Rate | None = None
    nvlink_bridged: bool = False
    """The link is a bridge between two cards that is sold apart; most machines lack it."""
    interconnect: str = ""
    fabric_gb_per_s_per_direction: Rate | None = None
    """Of what `interconnect` names, to all other cards of a machine together."""
    pcie: str = ""
    pcie_gb_per_s_per_direction: Rate | None = None
    tdp_w: Positive | None = None
    prices: tuple[PriceRow, ...] = ()
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _every_fact_is_sourced(self) -> "GpuProfile":
        missing = sorted(self.model_fields_set - _UNSOURCED - _SOURCED_INSIDE - set(self.source_of))
        if missing:
            raise ValueError(f"sources: say where {missing[0]} was read")
        return self

    @property
    def source_of(self) -> dict[str, str]:
        """Field → where it was read."""
        return {field: text for fields, text in self.sources.items() for field in fields.split(", ")}


class UncoveredGpu(Row):
    """A card of `profiles/not_covered/gpus.json`: known by name, and why it cannot be priced by its name."""

    name: Text
    why: Text
    instead: Text
    """What to write instead: the nearest known card, or a size."""
    source: Text
    recorded: Date
    aliases: tuple[Text, ...] = ()


class InstanceProfile(Row):
    """A cloud's machines of one card, of `profiles/instances/`: how many cards each has."""

    provider: Text
    family: Text
    card: Text
    """A name in `profiles/gpus/`."""
    gpus: dict[Text, Positive]
    """Name of the machine → cards in it."""
    source: Text
    recorded: Date
