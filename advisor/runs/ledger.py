"""The ledger: one SQLite file per project directory, safe under several writers, never overwritten when it is damaged.

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

from pydantic import ValidationError

from advisor.bounded import exists, is_folder, opened, place, refusals, size_bytes
from advisor.errors import InvalidInputError
from advisor.refusals import one_line
from advisor.shown import capped, shown
from advisor.values.run import RunRecord

FILE_NAME = "advise-runs.sqlite"
ENVIRONMENT = "ADVISE_LEDGER"
LEDGER_VERSION = 1
"""Rises when a run is stored in a way that older programs cannot read."""
APPLICATION_ID = 0x41647652
"""Marks the file as ours in its header (sqlite.org/pragma.html#pragma_application_id): "AdvR"."""
BUSY_TIMEOUT_S = 120.0
"""How long a writer waits for the others. Judgement: far more than any one write takes."""
_MAGIC = b"SQLite format 3\x00"
_CREATE = "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, recorded_at TEXT NOT NULL, body TEXT NOT NULL)"


def ledger_path(given: str | Path | None = None) -> Path:
    """The given file, the one that ADVISE_LEDGER names, or the one of the working directory."""
    path = place(given or os.environ.get(ENVIRONMENT) or FILE_NAME)
    return path / FILE_NAME if is_folder(path) else path


def fixed_path(given: str | Path | None = None) -> Path:
    """The same, absolute: a script may change its directory, and a callback asks for its ledger when it is made."""
    path = ledger_path(given)
    with refusals(path):
        return path.absolute()


def add(path: Path, records: Sequence[RunRecord], patience_s: float | None = None) -> tuple[RunRecord, ...]:
    """Stores all of the records or none, and returns them with their numbers."""
    with _writing(path, patience_s) as connection:
        return tuple(_insert(connection, record) for record in records)


def amend(path: Path, number: int, change: Callable[[RunRecord], RunRecord], patience_s: float | None = None) -> RunRecord:
    """Replaces one run by what `change` makes of it, with no other writer in between."""
    if not exists(path):
        raise InvalidInputError(f"{path}: there is no ledger here")
    with _writing(path, patience_s) as connection:
        row = connection.execute("SELECT id, recorded_at, body FROM runs WHERE id = ?", (number,)).fetchone()
        if row is None:
            count, last = connection.execute("SELECT count(*), max(id) FROM runs").fetchone()
            held = f"its {count} runs are numbered up to {last}" if count else "it is empty"
            raise InvalidInputError(f"{path} holds no run {number}: {held}")
        changed = change(_record(path, *row)).model_copy(update={"id": number, "recorded_at": row[1]})
        connection.execute("UPDATE runs SET body = ? WHERE id = ?", (_body(changed), number))
        return changed


def load(path: Path) -> tuple[RunRecord, ...]:
    """Every run, oldest first. A ledger that does not exist holds none."""
    if not exists(path):
        return ()
    with _errors(path, BUSY_TIMEOUT_S), closing(_connect(path, "rw", BUSY_TIMEOUT_S)) as connection:
        if not _check_version(path, connection):
            return ()
        connection.execute("BEGIN")
        rows = connection.execute("SELECT id, recorded_at, body FROM runs ORDER BY id").fetchall()
        _check_size(path, connection)
    return tuple(_record(path, *row) for row in rows)


def _insert(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    recorded_at = record.recorded_at or datetime.now(timezone.utc).isoformat(timespec="seconds")
    cursor = connection.execute("INSERT INTO runs (recorded_at, body) VALUES (?, ?)", (recorded_at, _body(record)))
    return record.model_copy(update={"id": cursor.lastrowid, "recorded_at": recorded_at})


def _body(record: RunRecord) -> str:
    try:
        return record.model_dump_json(exclude={"id", "recorded_at"}, exclude_defaults=True)
    except ValueError as error:  # bytes of a command line that are no UTF-8
        raise InvalidInputError(f"run {capped(shown(record.label), 60)} holds text that cannot be stored: {error}") from None


def _record(path: Path, number: int, recorded_at: str, body: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(body).model_copy(update={"id": number, "recorded_at": recorded_at})
    except ValidationError as error:
        raise InvalidInputError(f"{path}: run {number} cannot be read ({one_line(error)}); the file was left as it is") from None


@contextmanager
def _writing(path: Path, patience_s: float | None) -> Iterator[sqlite3.Connection]:
    """One immediate transaction on a sound ledger, which is made where there is none."""
    patience_s = BUSY_TIMEOUT_S if patience_s is None else patience_s
    with _errors(path, patience_s), closing(_connect(path, "rwc", patience_s)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not _check_version(path, connection):
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
            _check_pages(path, connection)
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


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


def _check_version(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the ledger has its table; raises for another program's file or a newer version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables and application == version == 0:
        return False
    if application != APPLICATION_ID:
        raise InvalidInputError(f"{path} is a SQLite file of another program; it was left as it is: name another with --ledger")
    if version != LEDGER_VERSION:
        newer = "upgrade finetune-advisor to read it" if version > LEDGER_VERSION else "no release wrote that version"
        raise InvalidInputError(f"{path} is a ledger of version {version}, and this program knows version {LEDGER_VERSION}: {newer}")
    if "runs" not in tables:
        raise sqlite3.DatabaseError("its table of runs is missing")
    return True


def _check_size(path: Path, connection: sqlite3.Connection) -> None:
    """SQLite reads the missing end of a last page as zeros. To be asked within a transaction, when no other writes."""
    pages, page_bytes = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    held_bytes = size_bytes(path)
    if held_bytes < pages * page_bytes and held_bytes:
        raise sqlite3.DatabaseError(f"it holds {held_bytes:,} of {pages * page_bytes:,} bytes")


def _check_pages(path: Path, connection: sqlite3.Connection) -> None:
    """Nothing is written into a damaged file: what is left of it may still be recovered."""
    _check_size(path, connection)
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(str(verdict))


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
        f"{path} is damaged ({' '.join(why.split())}); it was left as it is: restore a copy, or save what is left with "
        f"sqlite3 {path.name} .recover and go on in a new file"
    )
