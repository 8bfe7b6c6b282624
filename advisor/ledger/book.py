"""The ledger: one SQLite file per project directory, safe under several writers; a damaged one is read where it can be, never written.

Each write is one immediate transaction on the file's rollback journal. Not WAL: its shared-memory index does not work on network file
systems (sqlite.org/wal.html, "Disadvantages"), where project directories of clusters lie, and it makes three files of one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from advisor.bounded import exists, is_folder, opened, place, refusals, size_bytes
from advisor.errors import InvalidInputError
from advisor.ledger import rows
from advisor.ledger.rows import Damaged
from advisor.values.run import RunRecord

FILE_NAME = "advise-runs.sqlite"
ENVIRONMENT = "ADVISE_LEDGER"
LEDGER_VERSION = 2
"""Rises when a run is stored in a way that older programs cannot read, or would damage by writing."""
_WITHOUT_CHECKSUMS = 1
"""The version before, which is read, and brought to this one when a run is written."""
APPLICATION_ID = 0x41647652
"""Marks the file as ours in its header (sqlite.org/pragma.html#pragma_application_id): "AdvR"."""
BUSY_TIMEOUT_S = 120.0
"""How long a writer waits for the others. Judgement: far more than any one write takes."""
_MAGIC = b"SQLite format 3\x00"
_SMALLEST_RUN_BYTES = 25
"""The date of a run alone takes as many."""
_NAMED = 3
"""Damaged runs that an error names. Judgement: a line of a terminal."""


def ledger_path(given: str | Path | None = None) -> Path:
    """The given file, the one that ADVISE_LEDGER names, or the one of the working directory."""
    path = place(given or os.environ.get(ENVIRONMENT) or FILE_NAME)
    return path / FILE_NAME if is_folder(path) else path


def fixed_path(given: str | Path | None = None) -> Path:
    """The same, absolute: a script may change its directory, and a callback asks for its ledger when it is made."""
    path = ledger_path(given)
    with refusals(path):
        return path.absolute()


class Held(NamedTuple):
    """What a ledger holds, oldest run first."""

    runs: tuple[RunRecord, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    """Runs that are there and cannot be read."""
    problem: str = ""
    """What is wrong with the file, in one line; empty where nothing is."""


def add(path: Path, records: Sequence[RunRecord], patience_s: float | None = None) -> tuple[RunRecord, ...]:
    """Stores all of the records or none, and returns them with their numbers."""
    with _writing(path, patience_s) as connection:
        return tuple(_insert(connection, record) for record in records)


def amend(path: Path, number: int, change: Callable[[RunRecord], RunRecord], patience_s: float | None = None) -> RunRecord:
    """Replaces one run by what `change` makes of it, with no other writer in between."""
    if not exists(path):
        raise InvalidInputError(f"{path}: there is no ledger here")
    with _writing(path, patience_s) as connection:
        held = rows.one(connection, number)
        if held is None:
            count, last = connection.execute("SELECT count(*), max(id) FROM runs").fetchone()
            numbered = f"its {count} runs are numbered up to {last}" if count else "it is empty"
            raise InvalidInputError(f"{path} holds no run {number}: {numbered}")
        if isinstance(held, Damaged):
            raise sqlite3.DatabaseError(str(held))
        changed = change(held).model_copy(update={"id": number, "recorded_at": held.recorded_at})
        rows.replace(connection, number, held.recorded_at, rows.body_of(changed))
        return changed


def load(path: Path) -> Held:
    """Every run that can be read, and which cannot. A ledger that does not exist holds none.

    Raises InvalidInputError for a file that is no ledger, and for one of which nothing can be read.
    """
    if not exists(path):
        return Held()
    with _errors(path, BUSY_TIMEOUT_S), closing(_connect(path, "rw", BUSY_TIMEOUT_S)) as connection:
        version = _check_version(path, connection)
        if version is None:
            return Held()
        connection.execute("BEGIN")
        sealed, pages = version > _WITHOUT_CHECKSUMS, _damage_of_pages(path, connection)
        if pages:
            found = tuple(rows.whatever_is_left(connection, sealed, size_bytes(path) // _SMALLEST_RUN_BYTES))
        else:
            found = tuple(rows.every(connection, sealed))
    return _held(path, found, pages)


def _held(path: Path, found: Sequence[RunRecord | Damaged], pages: str) -> Held:
    damaged = tuple(entry for entry in found if isinstance(entry, Damaged))
    runs = tuple(entry for entry in found if not isinstance(entry, Damaged))
    if not damaged and not pages:
        return Held(runs)
    refusal = _damaged(path, _named(damaged) or pages)
    if not runs:
        raise refusal
    return Held(runs, damaged, str(refusal))


def _named(damaged: Sequence[Damaged]) -> str:
    more = len(damaged) - _NAMED
    return "; ".join(map(str, damaged[:_NAMED])) + (f"; and {more} more" if more > 0 else "")


def _insert(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    recorded_at = record.recorded_at or datetime.now(timezone.utc).isoformat(timespec="seconds")
    number = rows.insert(connection, recorded_at, rows.body_of(record))
    return record.model_copy(update={"id": number, "recorded_at": recorded_at})


@contextmanager
def _writing(path: Path, patience_s: float | None) -> Iterator[sqlite3.Connection]:
    """One immediate transaction on a sound ledger, which is made where there is none."""
    patience_s = BUSY_TIMEOUT_S if patience_s is None else patience_s
    with _errors(path, patience_s), closing(_connect(path, "rwc", patience_s)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _make_ready(path, connection)
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def _make_ready(path: Path, connection: sqlite3.Connection) -> None:
    """Make the table, or bring it to this version. Nothing is written into a damaged file: what is left of it may still be read."""
    version = _check_version(path, connection)
    damage = _damage_of_pages(path, connection)
    if damage:
        raise sqlite3.DatabaseError(damage)
    if version is None:
        connection.execute(rows.CREATE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif version == _WITHOUT_CHECKSUMS:
        rows.add_checksums(connection)
    else:
        changed = rows.first_changed(connection)
        if changed is not None:
            raise sqlite3.DatabaseError(str(changed))
    connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")


def _connect(path: Path, mode: str, patience_s: float) -> sqlite3.Connection:
    if exists(path) and size_bytes(path):
        with opened(path) as file:
            if file.stream.read(len(_MAGIC)) != _MAGIC:
                raise InvalidInputError(
                    f"{path} is no ledger, or its beginning is damaged; it was left as it is: name another with --ledger"
                )
    elif not is_folder(path.parent):
        raise InvalidInputError(f"{path}: there is no folder {path.parent}")
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=patience_s, isolation_level=None)


def _check_version(path: Path, connection: sqlite3.Connection) -> int | None:
    """The version of the ledger, None where it has no table yet; raises for another program's file or a newer version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables and application == version == 0:
        return None
    if application != APPLICATION_ID:
        raise InvalidInputError(f"{path} is a SQLite file of another program; it was left as it is: name another with --ledger")
    if version not in (_WITHOUT_CHECKSUMS, LEDGER_VERSION):
        newer = "upgrade finetune-advisor to read it" if version > LEDGER_VERSION else "no release wrote that version"
        raise InvalidInputError(f"{path} is a ledger of version {version}, and this program knows version {LEDGER_VERSION}: {newer}")
    if "runs" not in tables:
        raise sqlite3.DatabaseError("its table of runs is missing")
    return int(version)


def _damage_of_pages(path: Path, connection: sqlite3.Connection) -> str:
    """What is wrong with the file's pages; empty where nothing is. To be asked within a transaction, when no other writes."""
    pages, page_bytes = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    held_bytes = size_bytes(path)
    if held_bytes < pages * page_bytes and held_bytes:  # SQLite reads the missing end of a last page as zeros
        return f"it holds {held_bytes:,} of {pages * page_bytes:,} bytes"
    try:
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise
        return str(error)
    return "" if verdict == "ok" else verdict


@contextmanager
def _errors(path: Path, patience_s: float) -> Iterator[None]:
    """SQLite's errors as one line each."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise InvalidInputError(f"{path} has been locked by another process for {patience_s:g} s; try again") from error
        if "malformed" in text:
            raise _damaged(path, text) from error
        raise InvalidInputError(f"{path} cannot be used: {text}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be used: {error.strerror or type(error).__name__}") from error


def _damaged(path: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is damaged ({' '.join(why.split())}); it was left as it is: restore a copy, or take the runs that can be read into a new "
        "file: advise runs --json > runs.json, and advise record runs.json --ledger NEW"
    )
