"""`python -m advisor.schemas`: hold every row of `profiles/` against its row model, and write the JSON schemas beside the folders anew.

An editor that knows a folder's schema completes the fields of a row and marks those that nobody reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor import profiles
from advisor.accuracy.rows import Measurement
from advisor.devices.cards import all_cards
from advisor.devices.names import machines, refused_by_key
from advisor.errors import AdvisorError, InvalidInputError
from advisor.hub.rows import all_rows
from advisor.profiles import SCHEMA
from advisor.profiles.files import adapter_of
from advisor.profiles.kinds import KINDS, row_type
from advisor.user_files import write_whole

_MADE_BY_CODE = ("measurements/traced", "measurements/replays", "tapes")
"""Folders whose files a program writes (`benchmarks/trace_measured.py`, `benchmarks/replays.py`, `benchmarks/record_tapes.py`)."""


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
        yield profiles.ROOT / f"{kind}{SCHEMA}", json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def check() -> dict[str, int]:
    """How many rows stand of each kind. Raises InvalidInputError, one line, for the first that does not, or a name that two rows bear."""
    _refuse_strays()
    counts = {kind: len(profiles.rows(kind, model)) for kind, model in row_models().items()}
    bearers: dict[tuple[str, str], str] = {}
    for kind, name, bearer in _names():
        other = bearers.setdefault((kind, name), bearer)
        if other != bearer:
            raise InvalidInputError(f"profiles/{kind}: {name!r} is a name of {other} and of {bearer}; it can mean one of them")
    return counts


def _refuse_strays() -> None:
    """A file that belongs to no kind would be read by nobody."""
    kinds = row_models()
    for path in sorted(profiles.ROOT.rglob("*.json")):
        place = path.relative_to(profiles.ROOT).with_suffix("").as_posix()
        folder = place.rpartition("/")[0]
        if not path.name.endswith(SCHEMA) and place not in kinds and folder not in kinds and not folder.startswith(_MADE_BY_CODE):
            raise InvalidInputError(f"profiles/{place}.json: no rows are kept there; profiles/ has {', '.join(sorted(kinds))}")


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
        write_whole(place, text.encode())
    sys.stdout.write("".join(f"{kind}: {count} rows\n" for kind, count in counts.items()))


if __name__ == "__main__":
    main()
