"""Bring a card's rows into `profiles/measurements/`: the rows, dry runs of them under the libraries that ran, and the residuals anew."""

from __future__ import annotations

import sys
from pathlib import Path

from advisor import profiles
from advisor.accuracy import Measurement, read_measurements
from advisor.accuracy.__main__ import main as write_residuals
from advisor.errors import InvalidInputError
from advisor.tape import store
from benchmarks.card.rows import ROWS_FILE, slug, text_of
from benchmarks.trace_measured import TARGET, pins_of, read, trace_here, write


def contribute(out: Path) -> int:
    """Do it all; what is there already stays, and a row with an id that is there takes its place.

    Raises InvalidInputError where the rows are of no card, or of other libraries than those that are installed.
    """
    rows = read_measurements(out / ROWS_FILE)
    scored = [row for row in rows if row.scored]
    _refuse_other_libraries(scored)
    target = add(rows, profiles.ROOT / "measurements")
    sys.stderr.write(f"{target}: {len(rows)} rows\n")
    for pins in sorted({pins_of(row.versions) for row in scored if row.versions}):
        chosen = [row for row in scored if pins_of(row.versions) == pins]
        path = TARGET / ("_".join(f"{library}-{number}" for library, number in pins) + ".json")
        found = trace_here(chosen)
        kept = [row for row in read(path) if row.id not in {row.id for row in chosen}]
        write(path, sorted([*kept, *found], key=lambda row: (row.id, row.seq_len_tokens)))
    write_residuals()
    return 0


def add(rows: tuple[Measurement, ...], folder: Path) -> Path:
    """Merge the rows into the file of their card. Raises InvalidInputError where they are of none, or of several."""
    cards = {row.card for row in rows}
    if len(cards) != 1 or None in cards:
        raise InvalidInputError("the rows are of no card, or of several: contribute what one run of on_card.py left, on a card")
    target = folder / f"on_card_{slug(str(cards.pop())).replace('-', '_')}.json"
    held = {row.id: row for row in (read_measurements(target) if target.exists() else ())}
    target.write_text(text_of((held | {row.id: row for row in rows}).values()), encoding="utf-8")
    return target


def _refuse_other_libraries(rows: list[Measurement]) -> None:
    """A dry run speaks for what is installed."""
    installed = dict(store.installed())
    other = next((row for row in rows if row.versions and row.versions.get("transformers") != installed.get("transformers")), None)
    if other is not None:
        raise InvalidInputError(
            f"the rows ran with transformers {other.versions.get('transformers')}, and {installed.get('transformers')} is installed: "
            "run this where they ran, or `python benchmarks/trace_measured.py` and `python -m advisor.accuracy` here"
        )
