"""Sizes in place of a name: a marketed one ("80GB": what cards sold so can really give), or a literal one ("79.2GiB")."""

from __future__ import annotations

import re

from advisor.devices.cards import Card, all_cards, is_read, usable_of
from advisor.errors import InvalidInputError
from advisor.units import GIB, format_size, parse_size
from advisor.values import GpuSpec

MIN_CARD_BYTES = GIB
"""Judgement: the CUDA context and one cuBLAS workspace alone take about half of it."""
MAX_CARD_BYTES = 2048 * GIB
"""Judgement: four times the largest memory in profiles/gpus (Apple M3 Ultra, 512 GB)."""

_MARKETED = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*gb?\s*$", re.IGNORECASE)
_LITERAL = re.compile(r"^\s*[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?\s*(?:[kmgt]?i?b)?\s*$", re.IGNORECASE)
_MODEL_NUMBER = re.compile(r"^\s*\d{4}\s*$")
_SOLD_APART = frozenset({"datacenter", "workstation", "gaming"})


def is_marketed_size(text: str) -> bool:
    return _MARKETED.match(text) is not None


def is_literal_size(text: str) -> bool:
    """A number with or without a unit; four digits alone are a card's model number."""
    return _LITERAL.match(text) is not None and not _MODEL_NUMBER.match(text)


def of_marketed_size(text: str) -> GpuSpec:
    """A card sold with that size: the smallest usable memory among them. Raises InvalidInputError where none is sold so."""
    match = _MARKETED.match(text)
    assert match is not None
    size_gb = float(match[1])
    if size_gb <= 0:
        raise InvalidInputError(f"{text!r} is not a positive size")
    sold = _sold_with(size_gb)
    if not sold:
        raise InvalidInputError(f"no card is sold with {size_gb:g} GB (near: {_near(size_gb)}); a literal size is written {size_gb:g}GiB")
    smallest = min(sold, key=lambda card: (usable_of(card)[0], card.row.usable_mib is not None))
    usable_bytes, usable_source = usable_of(smallest)
    lacking = tuple(card.name for card in sold if not card.row.bf16_supported)
    supported = len(lacking) < len(sold)
    note = f"bf16 is taken as supported; name the card if it is one of {', '.join(lacking)}"
    among = "the only card sold so" if len(sold) == 1 else f"the smallest usable memory of {len(sold)} cards sold so"
    return GpuSpec(
        name=f"{size_gb:g} GB card",
        vendor=smallest.row.vendor,
        usable_bytes=usable_bytes,
        usable_source=f"{smallest.name}: {usable_source}",
        usable_is_read=is_read(smallest),
        bf16_supported=supported,
        sources=tuple(f"{card.name}: {usable_of(card)[1]}" for card in sold),
        notes=(note,) if lacking and supported else (),
        resolved_from=f"{text!r} = {among}, {smallest.name}: {format_size(usable_bytes)} usable (name a card for time and cost)",
    )


def of_literal_size(text: str) -> GpuSpec:
    """A card with exactly that memory. Raises InvalidInputError for a size that no card has, or one without a unit."""
    if text.lstrip().startswith("-"):
        raise InvalidInputError(f"{text!r} is not a positive size")
    if re.fullmatch(r"\s*[0-9]{1,12}\s*", text) and int(text) < MIN_CARD_BYTES:
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


def _apart() -> list[Card]:
    """Cards that are sold on their own: laptops and unified memory are left out."""
    return [card for card in all_cards() if card.row.segment in _SOLD_APART]


def _sold_with(size_gb: float) -> list[Card]:
    """Cards sold with this size: NVIDIA's where there are any, else other vendors'."""
    sold = [card for card in _apart() if card.size_gb / card.devices == size_gb]
    return [card for card in sold if card.row.vendor == "NVIDIA"] or sold


def _near(size_gb: float) -> str:
    sizes = sorted({card.size_gb / card.devices for card in _apart()}, key=lambda size: abs(size - size_gb))
    return ", ".join(f"{size:g}GB" for size in sorted(sizes[:3]))
