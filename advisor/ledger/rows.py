"""Rows of a ledger: each carries a checksum of what was stored, so that a damaged one is known by itself and the others still count."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import ValidationError

from advisor.errors import InvalidInputError
from advisor.refusals import one_line
from advisor.shown import capped, shown
from advisor.values.run import RunRecord

CREATE = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, recorded_at TEXT NOT NULL, body TEXT NOT NULL, "
    "crc32 INTEGER NOT NULL DEFAULT 0)"
)
_ADD_COLUMN = "ALTER TABLE runs ADD COLUMN crc32 INTEGER NOT NULL DEFAULT 0"
_SELECT = {
    sealed: f"SELECT id, CAST(recorded_at AS BLOB), CAST(body AS BLOB), {'crc32' if sealed else 'NULL'} FROM runs"
    for sealed in (True, False)
}
"""The stored bytes, which need be no text where they are damaged, and their checksum, by whether the table has one."""
_CHANGED = "is not what was stored: its checksum is another"
_GONE = "cannot be read: its page of the file is damaged"


class Damaged(NamedTuple):
    """A run that cannot be read as it was stored."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"run {self.number} {self.why}"


def _checksum(number: int, recorded_at: bytes | None, body: bytes | None) -> int:
    """CRC-32 (zlib) of a row: of its number, its date and its text, with a NUL between them."""
    return zlib.crc32(b"%d\0%b\0%b" % (number, recorded_at or b"", body or b""))


def insert(connection: sqlite3.Connection, recorded_at: str, body: str) -> int:
    """Add a row; its number."""
    number = connection.execute("INSERT INTO runs (recorded_at, body) VALUES (?, ?)", (recorded_at, body)).lastrowid
    assert number is not None
    _seal(connection, number, recorded_at.encode(), body.encode())
    return number


def replace(connection: sqlite3.Connection, number: int, recorded_at: str, body: str) -> None:
    """Give a row another text."""
    connection.execute("UPDATE runs SET body = ? WHERE id = ?", (body, number))
    _seal(connection, number, recorded_at.encode(), body.encode())


def _seal(connection: sqlite3.Connection, number: int, recorded_at: bytes, body: bytes) -> None:
    connection.execute("UPDATE runs SET crc32 = ? WHERE id = ?", (_checksum(number, recorded_at, body), number))


def add_checksums(connection: sqlite3.Connection) -> None:
    """Bring a table without checksums to this form. Raises sqlite3.DatabaseError where one of its rows cannot be read."""
    damaged = next((row for row in every(connection, sealed=False) if isinstance(row, Damaged)), None)
    if damaged is not None:
        raise sqlite3.DatabaseError(str(damaged))
    connection.execute(_ADD_COLUMN)
    for number, recorded_at, body, _ in connection.execute(_SELECT[False]).fetchall():
        _seal(connection, number, recorded_at, body)


def first_changed(connection: sqlite3.Connection) -> Damaged | None:
    """The first row that does not hold what was stored."""
    rows = connection.execute(f"{_SELECT[True]} ORDER BY id")
    return next((Damaged(number, _CHANGED) for number, *stored, crc32 in rows if _checksum(number, *stored) != crc32), None)


def one(connection: sqlite3.Connection, number: int) -> RunRecord | Damaged | None:
    """The run of that number, if there is one."""
    row = connection.execute(f"{_SELECT[True]} WHERE id = ?", (number,)).fetchone()
    return None if row is None else _run(row, sealed=True)


def every(connection: sqlite3.Connection, sealed: bool) -> Iterator[RunRecord | Damaged]:
    """Every run by its number; `sealed` where rows have checksums."""
    rows = connection.execute(f"{_SELECT[sealed]} ORDER BY id").fetchall()
    return (_run(row, sealed) for row in rows)


def whatever_is_left(connection: sqlite3.Connection, sealed: bool, most: int) -> Iterator[RunRecord | Damaged]:
    """The same of a file whose pages are damaged, each run asked for by itself; `most` is how many the file can hold.

    Raises sqlite3.DatabaseError where not even their number is known.
    """
    for number in range(1, min(_highest(connection), most) + 1):
        row = None
        with suppress(sqlite3.DatabaseError):
            row = connection.execute(f"{_SELECT[sealed]} WHERE id = ?", (number,)).fetchone()
        yield Damaged(number, _GONE) if row is None else _run(row, sealed)


def _highest(connection: sqlite3.Connection) -> int:
    """Number of the newest run: SQLite keeps it beside the table (sqlite.org/autoinc.html), where the table itself may be damaged."""
    with suppress(sqlite3.DatabaseError):
        kept = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
        if kept is not None and isinstance(kept[0], int):
            return kept[0]
    return connection.execute("SELECT max(id) FROM runs").fetchone()[0] or 0


def _run(row: Sequence[Any], sealed: bool) -> RunRecord | Damaged:
    number, recorded_at, body, crc32 = row
    if sealed and _checksum(number, recorded_at, body) != crc32:
        return Damaged(number, _CHANGED)
    try:
        return RunRecord.model_validate_json(body).model_copy(update={"id": number, "recorded_at": recorded_at.decode()})
    except ValidationError as error:
        return Damaged(number, f"cannot be read ({one_line(error)})")
    except UnicodeDecodeError:
        return Damaged(number, "cannot be read (its date is no text)")


def body_of(record: RunRecord) -> str:
    """The text of a row. Raises InvalidInputError for what cannot be stored."""
    try:
        return record.model_dump_json(exclude={"id", "recorded_at"}, exclude_defaults=True)
    except ValueError as error:  # bytes of a command line that are no UTF-8
        raise InvalidInputError(f"run {capped(shown(record.label), 60)} holds text that cannot be stored: {error}") from None
