"""A GPU reference becomes a GpuSpec: a name, a marketed size, a literal size, or nothing for the local card.

The facts are rows of `profiles/gpus/`. What a name was taken to mean is echoed in `resolved_from`.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any, NamedTuple

from advisor import profiles
from advisor.errors import InvalidInputError, UnknownNameError
from advisor.units import GIB, MIB, format_size, parse_size
from advisor.values import GpuSpec, Price

MIN_CARD_BYTES = GIB
"""Judgement: the CUDA context and one cuBLAS workspace alone take about half of it."""
MAX_CARD_BYTES = 2048 * GIB
"""Judgement: four times the largest memory in profiles/gpus (Apple M3 Ultra, 512 GB)."""

APPLE_SMALL_RAM_GB = 36
APPLE_SMALL_SHARE, APPLE_LARGE_SHARE = 2 / 3, 3 / 4
"""Metal's default working-set limit as a share of RAM. Seen: 10922.67 of 16384 MiB (github.com/abetlen/llama-cpp-python/issues/687),
21845.34 of 32768 (ollama/ollama/issues/434), 49152 of 65536 (ggml-org/llama.cpp/issues/1870), 73728 of 98304 (the same, issue 3213);
107.52 of 128 GiB on macOS 26 (antirez/ds4/pull/893), not used because older systems allow less. Judgement for the sizes in between."""

_NOISE = frozenset({"nvidia", "amd", "intel", "apple", "geforce", "tesla", "radeon", "instinct", "gpu", "generation", "the"})
_MARKETED = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*gb?\s*$", re.IGNORECASE)
_LITERAL = re.compile(r"^\s*[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?\s*(?:[kmgt]?i?b)?\s*$", re.IGNORECASE)
_MODEL_NUMBER = re.compile(r"^\s*\d{4}\s*$")
_SEVERAL = re.compile(r"^\s*(\d+)\s*[x×*]\s*(.+)$", re.IGNORECASE)
_SOLD_APART = frozenset({"datacenter", "workstation", "gaming"})
_HELP = "`advise gpus` lists every card; a size is written 80GB (a card sold so) or 79.2GiB (exactly that)"


class _Card(NamedTuple):
    """One profile row at one memory size."""

    row: dict[str, Any]
    name: str
    size_gb: float

    @property
    def devices(self) -> int:
        """How many devices the card shows up as: 2 for the MI250X and the Max 1550."""
        return int(self.row.get("devices_per_card", 1))

    @property
    def words(self) -> frozenset[str]:
        return frozenset(_tokens(self.name))

    @property
    def keys(self) -> frozenset[str]:
        """What it answers to. The smallest of a row that is sold with several sizes (Apple) answers to the row's own names, too."""
        aliases, sizes = self.row.get("aliases", ()), self.row.get("sold_with_gb")
        keys = {_key(alias) + (f"{self.size_gb}gb" if sizes else "") for alias in aliases} | {_key(self.name)}
        if sizes and self.size_gb == min(sizes):
            keys |= {_key(alias) for alias in (self.row["name"], *aliases)}
        return frozenset(keys)


def load_gpu(reference: str | None = None) -> GpuSpec:
    """The card that `reference` means.

    A name or alias in any case and punctuation ("rtx 4090", "A100-80GB"); a marketed size ("80GB": the smallest usable memory among
    cards sold so); a literal size ("79.2GiB", without speeds); None: the local card's free memory now.
    """
    if reference is None:
        return _local_card()
    text = reference.strip()
    if not text:
        raise InvalidInputError(f"the GPU name is empty; {_HELP}")
    if _MARKETED.match(text):
        return _of_marketed_size(text)
    card = _by_key().get(_key(text))
    if card is not None:
        return _spec(card, _echo(text, card))
    if _LITERAL.match(text) and not _MODEL_NUMBER.match(text):
        return _of_literal_size(text)
    several = _SEVERAL.match(text)
    if several:
        raise InvalidInputError(f"{text!r}: name one card and say how many apart: --gpu {several[2].strip()!r} --gpus {several[1]}")
    card = _by_words(text)
    return _spec(card, _echo(text, card))


def search_gpus(text: str = "") -> tuple[GpuSpec, ...]:
    """Every card whose name, alias, vendor, architecture or class holds each word of `text`; all cards for an empty text."""
    wanted = text.lower().split()
    found = []
    for card in _cards():
        row = card.row
        fields = (card.name, row["vendor"], row["architecture"], row["class"], *row.get("aliases", ()))
        haystack = " ".join((*fields, *(_key(field) for field in fields))).lower()
        if all(word in haystack for word in wanted):
            found.append(_spec(card, ""))
    return tuple(found)


def _tokens(text: str) -> list[str]:
    return [token for token in re.findall(r"[a-z]+|\d+", text.lower()) if token not in _NOISE]


def _key(text: str) -> str:
    return "".join(_tokens(text))


@cache
def _cards() -> tuple[_Card, ...]:
    """Every row; a row that is sold with several memory sizes (Apple) once for each of them, smallest first."""
    cards = []
    for row in profiles.read("gpus"):
        sizes = row.get("sold_with_gb")
        for size_gb in sizes or (row["marketed_gb"],):
            cards.append(_Card(row, f"{row['name']} {size_gb}GB" if sizes else row["name"], size_gb))
    return tuple(cards)


@cache
def _by_key() -> dict[str, _Card]:
    return {key: card for card in _cards() for key in card.keys}


def _by_words(text: str) -> _Card:
    """The card that has every word of `text` and the fewest others; several equally near ones are listed, not guessed among."""
    import difflib

    words = set(_tokens(text))
    holding = [card for card in _cards() if words and words <= card.words | {f"{card.size_gb:g}", "gb"}]
    fewest = min((len(card.words - words) for card in holding), default=0)
    nearest = [card for card in holding if len(card.words - words) == fewest]
    if len(nearest) == 1:
        return nearest[0]
    if nearest:
        names = tuple(card.name for card in nearest[:6])
        more = f" and {len(nearest) - 6} more" if len(nearest) > 6 else ""
        raise UnknownNameError(f"{text!r} fits several cards: {', '.join(names)}{more}; name one of them", names)
    close = difflib.get_close_matches(_key(text), _by_key(), n=8, cutoff=0.6)
    names = tuple(dict.fromkeys(_by_key()[key].name for key in close))[:4]
    meant = f"; did you mean {', '.join(names)}?" if names else ";"
    raise UnknownNameError(f"no card called {text!r}{meant} {_HELP}", names)


def _echo(text: str, card: _Card) -> str:
    usable = format_size(_usable(card)[0])
    sizes = card.row.get("sold_with_gb")
    if sizes and _key(text) != _key(card.name) and f"{card.size_gb}gb" not in _key(text):
        return f"{text!r} = {card.name}, the smallest sold ({', '.join(map(str, sizes))} GB): {usable} usable"
    return f"{text!r} = {card.name}: {usable} usable"


def _usable(card: _Card) -> tuple[int, str]:
    """Bytes that one process can get, and which rule gave the number."""
    row = card.row
    sources = {field: text for fields, text in row["sources"].items() for field in fields.split(", ")}
    if "usable_mib" in row:
        return row["usable_mib"] * MIB, sources["usable_mib"]
    if row["vendor"] == "Apple":
        share = APPLE_SMALL_SHARE if card.size_gb <= APPLE_SMALL_RAM_GB else APPLE_LARGE_SHARE
        rule = f"{share:.0%} of {card.size_gb} GB of unified memory: Metal's default working-set limit (advisor/devices.py cites it)"
        return int(card.size_gb * GIB * share), rule
    if "torch_total_mib" in row:
        return min(row["torch_total_mib"]) * MIB, f"the smallest total that torch reports: {sources['torch_total_mib']}"
    if "driver_total_mib" in row:
        return row["driver_total_mib"] * MIB, f"the driver's total, of which torch sees up to 3 % less: {sources['driver_total_mib']}"
    size_bytes = int(card.size_gb * GIB) // card.devices
    return size_bytes, f"the marketed size, as GiB; usable memory is usually 1-9 % smaller: {sources['marketed_gb']}"


def _spec(card: _Card, resolved_from: str) -> GpuSpec:
    row = card.row
    usable_bytes, usable_source = _usable(card)
    notes = tuple(row.get("notes", ()))
    return GpuSpec(
        name=card.name,
        vendor=row["vendor"],
        architecture=row["architecture"],
        compute_capability=row.get("compute_capability"),
        usable_bytes=usable_bytes,
        usable_source=usable_source,
        bandwidth_bytes_per_s=_rate(card, "bandwidth_gb_per_s", 10**9),
        bf16_flop_per_s=_rate(card, "bf16_tflops", 10**12) if row["bf16_supported"] else None,
        fp16_flop_per_s=_rate(card, "fp16_tflops", 10**12),
        fp32_flop_per_s=_rate(card, "fp32_tflops", 10**12),
        bf16_supported=row["bf16_supported"],
        unified_memory=row.get("unified_memory", False),
        prices=tuple(_price(price) for price in row.get("prices", ())),
        sources=tuple(f"{fields}: {text}" for fields, text in row["sources"].items()),
        notes=notes if card.devices == 1 else (*notes, f"speeds and memory are of one of its {card.devices} devices"),
        resolved_from=resolved_from,
    )


def _rate(card: _Card, field: str, unit: int) -> int | None:
    """Per device that a process sees: half of the card's figure where the card shows up as two devices."""
    return round(card.row[field] * unit / card.devices) if field in card.row else None


def _price(row: dict[str, Any]) -> Price:
    source = f"{row['source']}, {row['kind']}"
    return Price(provider=row["provider"], usd_per_gpu_hour=row["usd_per_gpu_hour"], date=row["date"], source=source)


def _sold_with(size_gb: float) -> list[_Card]:
    """Cards sold with this size; laptops and unified memory apart. NVIDIA's where there are any, else other vendors'."""
    sold = [card for card in _cards() if card.row["class"] in _SOLD_APART and card.size_gb / card.devices == size_gb]
    return [card for card in sold if card.row["vendor"] == "NVIDIA"] or sold


def _of_marketed_size(text: str) -> GpuSpec:
    match = _MARKETED.match(text)
    assert match is not None
    size_gb = float(match[1])
    if size_gb <= 0:
        raise InvalidInputError(f"{text!r} is not a positive size")
    sold = _sold_with(size_gb)
    if not sold:
        sizes = sorted(
            {card.size_gb / card.devices for card in _cards() if card.row["class"] in _SOLD_APART}, key=lambda size: abs(size - size_gb)
        )
        near = ", ".join(f"{size:g}GB" for size in sorted(sizes[:3]))
        raise InvalidInputError(f"no card is sold with {size_gb:g} GB (near: {near}); a literal size is written {size_gb:g}GiB")
    smallest = min(sold, key=lambda card: (_usable(card)[0], "usable_mib" in card.row))
    usable_bytes, usable_source = _usable(smallest)
    lacking = tuple(card.name for card in sold if not card.row["bf16_supported"])
    supported = len(lacking) < len(sold)
    note = f"bf16 is taken as supported; name the card if it is one of {', '.join(lacking)}"
    among = "the only card sold so" if len(sold) == 1 else f"the smallest usable memory of {len(sold)} cards sold so"
    return GpuSpec(
        name=f"{size_gb:g} GB card",
        vendor=smallest.row["vendor"],
        usable_bytes=usable_bytes,
        usable_source=f"{smallest.name}: {usable_source}",
        bf16_supported=supported,
        sources=tuple(f"{card.name}: {_usable(card)[1]}" for card in sold),
        notes=(note,) if lacking and supported else (),
        resolved_from=f"{text!r} = {among}, {smallest.name}: {format_size(usable_bytes)} usable (name a card for time and cost)",
    )


def _of_literal_size(text: str) -> GpuSpec:
    if text.lstrip().startswith("-"):
        raise InvalidInputError(f"{text!r} is not a positive size")
    if text.strip().isdigit() and int(text) < MIN_CARD_BYTES:
        raise InvalidInputError(f"{text!r} has no unit; write {text}GB (a card sold so) or {text}GiB (exactly that)")
    size_bytes = parse_size(text)
    if not MIN_CARD_BYTES <= size_bytes <= MAX_CARD_BYTES:
        bounds = f"{format_size(MIN_CARD_BYTES, 0)} and {format_size(MAX_CARD_BYTES, 0)}"
        raise InvalidInputError(f"{text!r} is {size_bytes} bytes, and a card has between {bounds}; write 80GB or 79.2GiB")
    return GpuSpec(
        name=f"{format_size(size_bytes)} card",
        vendor="any",
        usable_bytes=size_bytes,
        usable_source="the size that was given",
        notes=("bf16 is taken as supported",),
        resolved_from=f"{text!r} = a card with exactly {format_size(size_bytes)} usable, speeds unknown",
    )


def _local_card() -> GpuSpec:
    """The first visible NVIDIA card, with the memory that is free on it now."""
    try:
        import pynvml
    except ImportError as error:
        raise InvalidInputError(
            "the local GPU cannot be read without nvidia-ml-py; pass --gpu, like --gpu 'rtx 4090' or --gpu 24GB"
        ) from error
    try:
        pynvml.nvmlInit()
        handle, which = _first_visible(pynvml)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise InvalidInputError(f"no local NVIDIA GPU ({error}); pass --gpu, like --gpu 'rtx 4090', 24GB or 79.2GiB") from error
    free_bytes, total_bytes = int(memory.free), int(memory.total)
    if free_bytes <= 0:
        raise InvalidInputError(f"the local GPU ({name}) has no free memory; stop what runs on it, or pass --gpu")
    echo = f"no --gpu: the local {name} ({which}), {format_size(free_bytes)} free of {format_size(total_bytes)}"
    update = {"usable_bytes": free_bytes, "usable_source": "free memory now, as the driver reports it", "resolved_from": echo}
    card = _by_key().get(_key(str(name)))
    if card is not None:
        return _spec(card, echo).model_copy(update=update)
    known = {"name": str(name), "vendor": "NVIDIA", "compute_capability": f"{major}.{minor}", "bf16_supported": major >= 8}
    return GpuSpec.model_validate({**known, **update})


def _first_visible(pynvml: Any) -> tuple[Any, str]:
    """The first entry of CUDA_VISIBLE_DEVICES (an index, a UUID or a MIG id), or card 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible in ("", "0") or visible.lstrip("-").isdigit():
        index = int(visible or 0)
        if index < 0:
            raise InvalidInputError("CUDA_VISIBLE_DEVICES hides every GPU; pass --gpu")
        return pynvml.nvmlDeviceGetHandleByIndex(index), f"GPU {index}"
    return pynvml.nvmlDeviceGetHandleByUUID(visible), visible
