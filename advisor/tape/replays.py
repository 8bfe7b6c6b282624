"""Keeps what tapes were found to take, in the user's cache: a replay takes a good part of a second, and is asked for again and again.

They are written down together, when an answer is done. A file that is damaged, or was written by other code, counts as absent.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from advisor.errors import InvalidInputError
from advisor.json_files import read_object
from advisor.tape.breakdown import Replay
from advisor.tape.sizes import Shape
from advisor.user_files import CACHE, folder_of, write_whole
from advisor.values import PhaseBytes

MOST = 512
"""Of one tape, the newest. Judgement: an answer looks at some ten, a search of a whole grid at more."""
LARGEST_BYTES = 4 << 20
"""Of a file. Judgement: a replay is written in one or two kilobytes."""

_known: dict[Path, dict[str, Replay]] = {}
"""By file and what was asked, as read or made by this process."""
_unwritten: set[Path] = set()


def folder() -> Path:
    """The folder of the replays; it need not exist."""
    return folder_of(CACHE) / "replays"


def find(tape: str, shape: Shape, workspace_bytes: int, engine: str = "") -> Replay | None:
    """What the tape of that name takes at a shape, on a card whose cuBLAS handle takes `workspace_bytes`, with what an engine of several
    holds beside; None where nobody has looked."""
    return _of(_path(tape)).get(_key(shape, workspace_bytes, engine))


def keep(tape: str, shape: Shape, workspace_bytes: int, replay: Replay, engine: str = "") -> None:
    """Add a replay, for this process and, once it is written down, for later ones."""
    path = _path(tape)
    _of(path)[_key(shape, workspace_bytes, engine)] = replay
    _unwritten.add(path)


def write_down() -> None:
    """Write what was added, where the cache can be written."""
    while _unwritten:
        path = _unwritten.pop()
        newest = dict([*_of(path).items()][-MOST:])
        content = json.dumps({asked: _as_json(replay) for asked, replay in newest.items()}, separators=(",", ":"))
        with suppress(OSError):
            write_whole(path, content.encode())


def _path(tape: str) -> Path:
    return folder() / f"{tape}.json"


def _key(shape: Shape, workspace_bytes: int, engine: str) -> str:
    return f"{shape.rows} x {shape.tokens}, {workspace_bytes}{engine and f', {engine}'}"


def _of(path: Path) -> dict[str, Replay]:
    if path not in _known:
        try:
            _known[path] = {asked: _replay_in(written) for asked, written in read_object(path, LARGEST_BYTES).items()}
        except (InvalidInputError, ValueError, TypeError, KeyError):
            _known[path] = {}
    return _known[path]


def _as_json(replay: Replay) -> dict[str, Any]:
    return {
        "phases": [phase.model_dump(mode="json") for phase in replay.phases],
        "peak_reserved_bytes": replay.peak_reserved_bytes,
        "versions": dict(replay.versions),
        "notes": replay.notes,
    }


def _replay_in(written: Any) -> Replay:
    phases = tuple(PhaseBytes.model_validate(phase) for phase in written["phases"])
    reserved_bytes = written["peak_reserved_bytes"]
    if not phases or type(reserved_bytes) is not int:
        raise ValueError("a replay that is none")
    return Replay(
        phases,
        reserved_bytes,
        {str(name): str(release) for name, release in written["versions"].items()},
        tuple(map(str, written["notes"])),
    )
