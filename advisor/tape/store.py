"""Keeps tapes: one file for each kind of plan of a model under the releases it was recorded with, compressed, read with checks.

The same files are what a wheel would ship. One that is damaged, or was recorded by other code, counts as absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from advisor.bounded import read_bounded
from advisor.errors import InvalidInputError
from advisor.formulas import digest
from advisor.tape.columns import check, part_of, regime_as_list, regime_in, tape_in
from advisor.tape.kinds import DIGITS, digest_of, kind_of
from advisor.tape.packing import DAMAGED, FORMAT, LARGEST_BYTES, head_in, packed, part_in
from advisor.tape.peaks import Peaks, as_list, from_list
from advisor.tape.sizes import Shape
from advisor.tape.tape import Regime, Tape
from advisor.user_files import CACHE, folder_of, write_whole
from advisor.values import ModelSpec, Plan

ROOMS = ("architectures", "images", "tape", "dryrun")
"""Rooms whose code decides what is recorded."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl")
"""What a dry run runs."""


def folder() -> Path:
    """The folder of the tapes; it need not exist."""
    return folder_of(CACHE) / "tapes"


@cache
def installed() -> Mapping[str, str]:
    """Releases of the libraries that a dry run runs, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Kind:
    """What a file of tapes is for: a model's config, a plan's kind, and whether the card has torch's flash kernel."""

    def __init__(self, model: ModelSpec, plan: Plan, has_flash: bool) -> None:
        self.shape = Shape(plan.micro_batch_size, plan.seq_len_tokens)
        self.digest = _kind_digest(model.config_json, kind_of(plan), has_flash)

    @property
    def path(self) -> Path:
        """Of the tapes that the installed libraries make."""
        return folder() / f"{self.digest}.{_digest(dict(installed()))}.tape"


@lru_cache(maxsize=1024)
def _kind_digest(config_json: str, kind: Plan, has_flash: bool) -> str:
    config = json.loads(config_json)
    return _digest({"config": config, "kind": digest_of(kind, has_flash), "code": digest(*ROOMS), "format": FORMAT})


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


class Entry:
    """One tape of a file, which is read when it is first asked for."""

    def __init__(self, path: Path, regime: Regime, peaks: Peaks, content: bytes = b"", place: int = 0, tape: Tape | None = None) -> None:
        self.path, self.regime = path, regime
        self._peaks, self._content, self._place, self._tape = peaks, content, place, tape

    @property
    def name(self) -> str:
        """Another one for every other tape, and where other code replays it."""
        return _digest({"file": self.path.stem, "regime": regime_as_list(self.regime), "code": digest("allocator")})

    def peaks(self) -> Peaks:
        """The most that can be alive at once in its step, which is told without reading it."""
        return self._peaks

    def tape(self) -> Tape | None:
        """The tape itself; None where it is damaged."""
        if self._tape is None:
            with suppress(*DAMAGED):
                self._tape = check(tape_in(part_in(self._content, self._place)))
        return self._tape


_read: dict[Path, tuple[Entry, ...]] = {}
"""Files that this process has read or written."""


def find(kind: Kind) -> Iterator[Entry]:
    """The tapes that speak for the shape of `kind`: by the installed releases, or where torch is not installed by any that was kept."""
    paths = [kind.path] if "torch" in installed() else sorted(_kept(kind))
    yield from (entry for path in paths for entry in entries_in(path) if entry.regime.covers(kind.shape))


def _kept(kind: Kind) -> Iterator[Path]:
    try:
        names = os.listdir(folder())
    except OSError:
        return
    yield from (folder() / name for name in names if name.startswith(kind.digest) and name.endswith(".tape"))


def entries_in(path: Path) -> tuple[Entry, ...]:
    """The tapes of a file, newest first; none where it is absent or damaged."""
    if path not in _read:
        try:
            _read[path] = unpacked_entries(path, read_bounded(path, LARGEST_BYTES))
        except (InvalidInputError, *DAMAGED):
            return ()
    return _read[path]


def keep(kind: Kind, tape: Tape) -> None:
    """Add a tape to the file of its kind, for this process and, where the file can be written, for later ones."""
    path = kind.path
    _read[path] = (Entry(path, tape.regime, tape.peaks, tape=tape), *entries_in(path))
    with suppress(OSError):
        write_whole(path, packed_tapes([whole for entry in _read[path] if (whole := entry.tape()) is not None]))


def packed_tapes(tapes: Sequence[Tape]) -> bytes:
    """A file's content."""
    return packed({"tapes": [[regime_as_list(tape.regime), as_list(tape.peaks)] for tape in tapes]}, [*map(part_of, tapes)])


def unpacked_entries(path: Path, content: bytes) -> tuple[Entry, ...]:
    """The tapes of a file's content. Raises one of `DAMAGED`."""
    written = enumerate(head_in(content)["tapes"])
    return tuple(Entry(path, regime_in(regime), from_list(peaks), content, place) for place, (regime, peaks) in written)
