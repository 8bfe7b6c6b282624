"""Tables of what there are profiles of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.hub import ModelRow
from advisor.render import words
from advisor.render.blocks import Block, Column, paragraph, table, wide_or_narrow
from advisor.units import format_count, gib
from advisor.values import GpuSpec

NOTHING_FOUND = "Nothing matches; without words every profile is listed."


def models(rows: Sequence[ModelRow]) -> Iterator[Block]:
    """One line a model: the name to give, its parameters, what it takes, its type, when it was released where its name says so, and whether
    its weights are gated; in a wide window also the other names that it answers to."""
    if not rows:
        yield paragraph(NOTHING_FOUND)
        return
    columns = [Column("model"), Column("params", ">")]
    facts = [Column("kind"), Column("type"), Column("released"), Column("gated"), Column("also called")]
    wide = table([*columns, *facts], [(*_size(row), *_facts(row)) for row in rows])
    in_one = [(*_size(row), ", ".join(filter(None, _facts(row)[:-1]))) for row in rows]
    yield wide_or_narrow([wide], [table([*columns, Column("kind, type, release")], in_one)])
    yield paragraph(f"{len(rows)} models; any other by Hub id (org/name) or by the path of its config.json.", "dim")


def _size(row: ModelRow) -> tuple[str, str]:
    params = row.params or row.params_published
    return row.id, "-" if params is None else format_count(params)


def _facts(row: ModelRow) -> tuple[str, ...]:
    return row.kind, row.model_type, row.released, "gated" if row.gated else "", ", ".join(_telling(row))


def gpus(cards: Sequence[GpuSpec]) -> Iterator[Block]:
    """One line a card: what one process can allocate, its speeds where a source has them, and the lowest recorded rent."""
    if not cards:
        yield paragraph(NOTHING_FOUND)
        return
    columns = [
        Column("GPU"),
        Column("usable\nGiB", ">"),
        Column("memory\nGB/s", ">"),
        Column("bf16\nTFLOP/s", ">"),
        Column("from\nUSD/h", ">"),
        Column("vendor"),
    ]
    yield table(columns, [_card(card) for card in cards])
    yield paragraph(f"{len(cards)} cards. A size works too: 80GB is the smallest card sold so, 79.2GiB is exactly that.", "dim")


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
