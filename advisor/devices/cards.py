"""The cards of `profiles/gpus/`, and what one process can get of each."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, NamedTuple

from advisor import profiles
from advisor.profiles.gpus import GpuProfile, PriceRow
from advisor.units import GIB, MIB, format_share
from advisor.values import GpuSpec, Price

APPLE_SMALL_RAM_GB = 36
APPLE_SMALL_SHARE, APPLE_LARGE_SHARE = 2 / 3, 3 / 4
"""Metal's default working-set limit as a share of RAM. Seen: 10922.67 of 16384 MiB (github.com/abetlen/llama-cpp-python/issues/687),
21845.34 of 32768 (ollama/ollama/issues/434), 49152 of 65536 (ggml-org/llama.cpp/issues/1870), 73728 of 98304 (the same, issue 3213);
107.52 of 128 GiB on macOS 26 (antirez/ds4/pull/893), not used because older systems allow less. Judgement for the sizes in between."""

_NOISE = frozenset({"nvidia", "amd", "intel", "apple", "geforce", "tesla", "radeon", "instinct", "gpu", "generation", "the"})


class Card(NamedTuple):
    """One profile row at one memory size."""

    row: GpuProfile
    name: str
    size_gb: int

    @property
    def devices(self) -> int:
        """How many devices the card shows up as: 2 for the MI250X and the Max 1550."""
        return self.row.devices_per_card

    @property
    def words(self) -> frozenset[str]:
        return frozenset(words_of(self.name))

    @property
    def keys(self) -> frozenset[str]:
        """What it answers to. The smallest of a row that is sold with several sizes (Apple) answers to the row's own names, too."""
        sizes = self.row.sold_with_gb
        keys = {key_of(alias) + (f"{self.size_gb}gb" if sizes else "") for alias in self.row.aliases} | {key_of(self.name)}
        if sizes and self.size_gb == min(sizes):
            keys |= {key_of(alias) for alias in (self.row.name, *self.row.aliases)}
        return frozenset(keys)


def words_of(text: str) -> list[str]:
    """Runs of letters and of digits, without makers and families that every name may have or lack."""
    return [word for word in re.findall(r"[a-z]+|\d+", text.lower()) if word not in _NOISE]


def key_of(text: str) -> str:
    """A name whose case, spaces, punctuation and maker do not matter: "NVIDIA GeForce RTX-4090" is "rtx4090"."""
    return "".join(words_of(text))


@cache
def all_cards() -> tuple[Card, ...]:
    """Every row; a row that is sold with several memory sizes (Apple) once for each of them, smallest first."""
    return tuple(
        Card(row, f"{row.name} {size_gb}GB" if row.sold_with_gb else row.name, size_gb)
        for row in profiles.rows("gpus", GpuProfile)
        for size_gb in row.sold_with_gb or (row.marketed_gb,)
    )


@cache
def cards_by_key() -> dict[str, Card]:
    return {key: card for card in all_cards() for key in card.keys}


def usable_of(card: Card) -> tuple[int, str]:
    """Bytes that one process can get, and which rule gave the number."""
    row, sources = card.row, card.row.source_of
    if row.usable_mib is not None:
        return row.usable_mib * MIB, sources["usable_mib"]
    if row.vendor == "Apple":
        share = APPLE_SMALL_SHARE if card.size_gb <= APPLE_SMALL_RAM_GB else APPLE_LARGE_SHARE
        part = f"{format_share(share)} of {card.size_gb} GB of unified memory"
        rule = f"{part}: Metal's default working-set limit (advisor/devices/cards.py cites it)"
        return int(card.size_gb * GIB * share), rule
    if row.torch_total_mib is not None:
        return min(row.torch_total_mib) * MIB, f"the smallest total that torch reports: {sources['torch_total_mib']}"
    if row.driver_total_mib is not None:
        return row.driver_total_mib * MIB, f"the driver's total, of which torch sees up to 3 % less: {sources['driver_total_mib']}"
    size_bytes = card.size_gb * GIB // card.devices
    return size_bytes, f"the marketed size, as GiB; usable memory is usually 1-9 % smaller: {sources['marketed_gb']}"


def is_read(card: Card) -> bool:
    """Whether somebody read such a card's memory; else `usable_of` takes it from the size that it is sold by."""
    row = card.row
    return (row.usable_mib, row.torch_total_mib, row.driver_total_mib) != (None, None, None)


def spec_of(card: Card, resolved_from: str) -> GpuSpec:
    """The card as a training process sees it: memory and speeds of one device."""
    row = card.row
    usable_bytes, usable_source = usable_of(card)
    link, line_rate = _link(row)
    return GpuSpec(
        name=card.name,
        vendor=row.vendor,
        architecture=row.architecture,
        compute_capability=row.compute_capability,
        usable_bytes=usable_bytes,
        usable_source=usable_source,
        usable_is_read=is_read(card),
        bandwidth_bytes_per_s=_rate(card, row.bandwidth_gb_per_s, 10**9),
        bf16_flop_per_s=_rate(card, row.bf16_tflops, 10**12) if row.bf16_supported else None,
        fp16_flop_per_s=_rate(card, row.fp16_tflops, 10**12),
        fp32_flop_per_s=_rate(card, row.fp32_tflops, 10**12),
        bf16_supported=row.bf16_supported,
        unified_memory=row.unified_memory,
        link=link,
        link_bytes_per_s=None if line_rate is None else round(line_rate * 10**9),
        prices=tuple(_price(price) for price in row.prices),
        sources=tuple(f"{fields}: {text}" for fields, text in row.sources.items()),
        notes=row.notes if card.devices == 1 else (*row.notes, f"speeds and memory are of one of its {card.devices} devices"),
        resolved_from=resolved_from,
    )


def _link(row: GpuProfile) -> tuple[Literal["fabric", "pcie"] | None, float | None]:
    """What joins the cards of a machine, and its GB/s per direction: the maker's own links where every machine has them, else the bus."""
    fabric = row.fabric_gb_per_s_per_direction or (None if row.nvlink_bridged else row.nvlink_gb_per_s_per_direction)
    if fabric is not None:
        return "fabric", fabric
    return (None, None) if row.pcie_gb_per_s_per_direction is None else ("pcie", row.pcie_gb_per_s_per_direction)


def _rate(card: Card, figure: float | None, unit: int) -> int | None:
    """Per device that a process sees: half of the card's figure where the card shows up as two devices."""
    return None if figure is None else round(figure * unit / card.devices)


def _price(row: PriceRow) -> Price:
    source = f"{row.source}, {row.kind}"
    return Price(provider=row.provider, usd_per_gpu_hour=row.usd_per_gpu_hour, date=row.date, source=source)
