"""Tables of what there are profiles of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.hub import ModelRow
from advisor.render import page, words
from advisor.render.page import Column, Line, Look
from advisor.units import format_count, gib
from advisor.values import GpuSpec

NOTHING_FOUND = "Nothing matches; without words every profile is listed."


def models(rows: Sequence[ModelRow], look: Look) -> str:
    """One line a model: the name to give, its parameters, what it takes, its type, when it was released where its name says so, and whether
    its weights are gated; in a wide window also the other names that it answers to."""
    return page.draw(_models(rows, look), look)


def _models(rows: Sequence[ModelRow], look: Look) -> Iterator[Line]:
    if not rows:
        yield from page.paragraph(NOTHING_FOUND, look)
        return
    columns = [Column("model"), Column("params", ">")]
    if look.wide:
        columns += [Column("kind"), Column("type"), Column("released"), Column("gated"), Column("also called")]
    else:
        columns.append(Column("kind, type, release"))
    cells = [(*_size(row), *(_facts(row) if look.wide else (", ".join(filter(None, _facts(row)[:-1])),))) for row in rows]
    yield from page.table(columns, cells, look)
    yield from page.paragraph(f"{len(rows)} models; any other by Hub id (org/name) or by the path of its config.json.", look, "dim")


def _size(row: ModelRow) -> tuple[str, str]:
    params = row.params or row.params_published
    return row.id, "-" if params is None else format_count(params)


def _facts(row: ModelRow) -> tuple[str, ...]:
    return row.kind, row.model_type, row.released, "gated" if row.gated else "", ", ".join(_telling(row))


def gpus(cards: Sequence[GpuSpec], look: Look) -> str:
    """One line a card: what one process can allocate, its speeds where a source has them, and the lowest recorded rent."""
    return page.draw(_gpus(cards, look), look)


def _gpus(cards: Sequence[GpuSpec], look: Look) -> Iterator[Line]:
    if not cards:
        yield from page.paragraph(NOTHING_FOUND, look)
        return
    columns = [
        Column("GPU"),
        Column("usable\nGiB", ">"),
        Column("memory\nGB/s", ">"),
        Column("bf16\nTFLOP/s", ">"),
        Column("from\nUSD/h", ">"),
        Column("vendor"),
    ]
    yield from page.table(columns, [_card(card) for card in cards], look)
    yield from page.paragraph(
        f"{len(cards)} cards. A size works too: 80GB is the smallest card sold so, 79.2GiB is exactly that.", look, "dim"
    )


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


def _telling(row: ModelRow) -> list[str]:
    """Aliases that are more than the id's last part in lower case."""
    return [alias for alias in row.aliases if alias != row.id.rpartition("/")[2].lower()]
