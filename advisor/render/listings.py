"""Tables of what there are profiles of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.hub import ModelRow
from advisor.render import page, words
from advisor.render.page import Look, Part
from advisor.units import format_count, gib
from advisor.values import GpuSpec

NOTHING_FOUND = "Nothing matches; without words every profile is listed."


def models(rows: Sequence[ModelRow], look: Look) -> str:
    """One line a model: the name to give, its parameters as published, and the other names it answers to."""
    return page.draw(_models(rows, look), look)


def _models(rows: Sequence[ModelRow], look: Look) -> Iterator[Part]:
    if not rows:
        yield page.paragraph(NOTHING_FOUND, look)
        return
    cells = [(row.id, "-" if row.params_published is None else format_count(row.params_published), ", ".join(row.aliases)) for row in rows]
    yield page.table([("model", "left"), ("params", "right"), ("also called", "left")], cells)
    yield page.paragraph(f"{len(rows)} models; any other by Hub id (org/name) or by the path of its config.json.", look, "dim")


def gpus(cards: Sequence[GpuSpec], look: Look) -> str:
    """One line a card: what one process can allocate, its speeds where a source has them, and the lowest recorded rent."""
    return page.draw(_gpus(cards, look), look)


def _gpus(cards: Sequence[GpuSpec], look: Look) -> Iterator[Part]:
    if not cards:
        yield page.paragraph(NOTHING_FOUND, look)
        return
    columns: list[page.Column] = [
        ("GPU", "left"),
        ("usable\nGiB", "right"),
        ("memory\nGB/s", "right"),
        ("bf16\nTFLOP/s", "right"),
        ("from\nUSD/h", "right"),
        ("vendor", "left"),
    ]
    yield page.table(columns, [_card(card) for card in cards])
    yield page.paragraph(f"{len(cards)} cards. A size works too: 80GB is the smallest card sold so, 79.2GiB is exactly that.", look, "dim")


def _card(card: GpuSpec) -> tuple[str, ...]:
    cheapest = min((price.usd_per_gpu_hour for price in card.prices), default=None)
    return (
        card.name,
        gib(card.usable_bytes),
        words.scaled(card.bandwidth_bytes_per_s, 10**9),
        words.scaled(card.bf16_flop_per_s, 10**12),
        "-" if cheapest is None else f"{cheapest:.2f}",
        card.vendor,
    )
