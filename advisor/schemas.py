"""`python -m advisor.schemas`: hold every row of `profiles/` against its row model, and write the JSON schemas beside the folders anew.

An editor that knows a folder's schema completes the fields of a row and marks those that nobody reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.accuracy.rows import Measurement
from advisor.devices.cards import all_cards
from advisor.devices.names import machines, refused_by_key
from advisor.errors import AdvisorError, InvalidInputError
from advisor.hub.rows import all_rows
from advisor.profiles import ROOT, SCHEMA, rows
from advisor.profiles.files import adapter_of
from advisor.profiles.kinds import KINDS, row_type


def row_models() -> dict[str, Any]:
    """Kind → row model, of every folder and single file of `profiles/` that holds rows which people write."""
    return {**{kind: row_type(kind) for kind in KINDS}, "measurements": Measurement}


def schemas() -> Iterator[tuple[Path, str]]:
    """Place and text of each schema."""
    for kind, model in row_models().items():
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"profiles/{kind}",
            **adapter_of(model).json_schema(by_alias=True),
        }
        yield ROOT / f"{kind}{SCHEMA}", json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def check() -> dict[str, int]:
    """How many rows stand of each kind. Raises InvalidInputError, one line, for the first that does not, or a name that two rows bear."""
    counts = {kind: len(rows(kind, model)) for kind, model in row_models().items()}
    bearers: dict[tuple[str, str], str] = {}
    for kind, name, bearer in _names():
        other = bearers.setdefault((kind, name), bearer)
        if other != bearer:
            raise InvalidInputError(f"profiles/{kind}: {name!r} is a name of {other} and of {bearer}; it can mean one of them")
    return counts


def _names() -> Iterator[tuple[str, str, str]]:
    """Kind, name as look-ups compare it, and the row that bears it."""
    for row in all_rows():
        yield from (("models", name.lower(), row.id) for name in row.names)
    for card in all_cards():
        yield from (("gpus", key, card.name) for key in card.keys)
    for key, refused in refused_by_key().items():
        yield "gpus", key, refused.name
    for key, machine in machines().items():
        yield "instances", key, machine.name


def main() -> None:
    try:
        counts = check()
    except AdvisorError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    for place, text in schemas():
        place.write_text(text, encoding="utf-8")
    sys.stdout.write("".join(f"{kind}: {count} rows\n" for kind, count in counts.items()))


if __name__ == "__main__":
    main()
