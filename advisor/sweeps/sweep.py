"""Run a sweep: one piece a kind, written beside and renamed into place, so that a killed sweep goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from advisor import __version__, profiles
from advisor.bounded import children, exists, is_folder, named, read_text
from advisor.errors import InvalidInputError
from advisor.formulas import digest
from advisor.on_demand import Progress
from advisor.sweeps.grid import Kind, read_sweep
from advisor.sweeps.kinds import CHUNK, rows_of
from advisor.sweeps.table import WRITERS, option_names, read_piece, table_of, write_piece
from advisor.user_files import made_whole, write_whole
from advisor.values.sweep import SweepGroup, SweepReport, Verdicts

_ROOMS = ("architectures", "memory", "stacks", "sweeps", "values", "ladder", "checkpoints", "tiers")
_PROFILES = ("measurements/residuals", "runtime", "stacks")
"""Rooms and rows that decide what is written, beside models and cards."""
_MANIFEST = "sweep.json"
_LARGEST_MANIFEST = 1000


class Piece(NamedTuple):
    """Some rows of one kind, and the file that holds them until all are there."""

    kind: Kind
    first: int
    last: int
    path: Path


def sweep(grid: Path, out: Path, progress: Progress) -> SweepReport:
    """Price the grid of the YAML file `grid` into the file `out`, whose end names the format. Nothing is overwritten.

    Pieces lie in the folder `out` + ".parts" until the file is whole; a sweep that finds those of an interrupted one goes on from them, and
    writes the same bytes as if nothing had happened. Raises InvalidInputError, one line, for what cannot be used.
    """
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise InvalidInputError(f"--out {named(out)}: the end of the name is the format: {', '.join(WRITERS)}")
    if not is_folder(out.parent):
        raise InvalidInputError(f"--out {named(out)} cannot be written: there is no folder {named(out.parent)}")
    kinds = read_sweep(grid)
    parts, signed = out.with_name(f"{out.name}.parts"), _signature(kinds)
    _begin(parts, out, signed)
    pieces = [*_pieces(kinds, parts)]
    resumed = sum(exists(piece.path) for piece in pieces)
    _make(pieces, option_names(kinds), progress)
    counts: dict[tuple[str, str, int], SweepGroup] = {}
    try:
        with _writing(out), made_whole(out, over=False) as made:
            writer(made, _counted(pieces, counts, progress))
    except FileExistsError:
        raise InvalidInputError(f"--out {named(out)} is there already; it is not overwritten") from None
    shutil.rmtree(parts, ignore_errors=True)
    progress("")
    return SweepReport(out=str(out), kinds=len(kinds), resumed=resumed, groups=tuple(counts.values()))


def _begin(parts: Path, out: Path, signed: str) -> None:
    """The folder of the pieces, made or found. Raises InvalidInputError where another sweep's are in it, or the file is there."""
    manifest = parts / _MANIFEST
    same = exists(manifest) and read_text(manifest, _LARGEST_MANIFEST) == signed
    if exists(out):
        if same:  # it was killed after the file was whole
            shutil.rmtree(parts, ignore_errors=True)
        raise InvalidInputError(f"--out {named(out)} is there already; it is not overwritten")
    if exists(manifest) and not same:
        raise InvalidInputError(f"{named(parts)} holds pieces of another sweep, or of another release; delete it, or name another --out")
    if exists(parts) and not exists(manifest) and any(not path.name.startswith(".advise-") for path in children(parts)):
        raise InvalidInputError(f"{named(parts)} is in the way: it is no folder of a sweep's pieces; name another --out")
    write_whole(manifest, signed.encode())


def _signature(kinds: Sequence[Kind]) -> str:
    """What decides every byte of the result."""
    total = sha256(f"{__version__} {pa.__version__} {digest(*_ROOMS)}".encode())
    total.update(json.dumps([profiles.read(rows) for rows in _PROFILES]).encode())
    known: dict[int, str] = {}
    for kind in kinds:
        for value in (kind.model, kind.gpu):
            known.setdefault(id(value), value.model_dump_json())
        total.update(f"{known[id(kind.model)]}{known[id(kind.gpu)]}{kind.request.model_dump_json()}{kind[-3:]}".encode())
    return json.dumps({"sweep": total.hexdigest()})


def _pieces(kinds: Sequence[Kind], parts: Path) -> Iterator[Piece]:
    for number, kind in enumerate(kinds):
        for first in range(0, kind.rows, CHUNK):
            last = min(first + CHUNK, kind.rows)
            yield Piece(kind, first, last, parts / f"{number:06}-{first // CHUNK:04}.arrow")


def _make(pieces: Sequence[Piece], options: tuple[str, ...], progress: Progress) -> None:
    """Every piece that is not there yet."""
    rows = 0
    for done, piece in enumerate(pieces):
        rows += piece.last - piece.first
        if exists(piece.path):
            continue
        progress(f"{done:,} of {len(pieces):,} kinds of plans, {rows:,} rows")
        with _writing(piece.path), made_whole(piece.path) as made:
            write_piece(table_of(piece.kind, rows_of(piece.kind, piece.first, piece.last), options), made)


def _counted(pieces: Iterable[Piece], counts: dict[tuple[str, str, int], SweepGroup], progress: Progress) -> Iterator[Any]:
    """The pieces' tables in order, counted by model and cards as they pass."""
    progress("writing the file")
    for piece in pieces:
        table = _read(piece.path)
        key = (piece.kind.model.id, piece.kind.gpu.name, piece.kind.request.gpus or 1)
        group = counts.get(key, SweepGroup(model=key[0], gpu=key[1], n_gpus=key[2], verdicts=Verdicts()))
        verdicts, reason = _verdicts(table)
        reasons = group.reasons if reason in ("", *group.reasons) else (*group.reasons, reason)
        counts[key] = group.model_copy(update={"verdicts": group.verdicts.plus(verdicts), "reasons": reasons})
        yield table


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system says while a file is written, as one line that names it: pyarrow's errors name none."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise InvalidInputError(f"{named(path)} cannot be written: {error.strerror or error}; start the sweep again to go on") from None


def _read(path: Path) -> Any:
    try:
        return read_piece(path)
    except (pa.ArrowInvalid, OSError):
        raise InvalidInputError(f"{named(path)} is damaged or gone; delete it, and start the sweep again to go on") from None


def _verdicts(table: Any) -> tuple[Verdicts, str]:
    """Of one piece, which has a price or has none, and why."""
    reason = str(table["reason"][0])
    if reason:
        return Verdicts(unpriced=table.num_rows), reason
    counted = {str(entry["values"]): int(entry["counts"]) for entry in table["verdict"].value_counts().to_pylist()}
    return Verdicts(fits=counted.get("fits", 0), no=counted.get("no", 0), cannot_tell=counted.get("cannot tell", 0)), ""
