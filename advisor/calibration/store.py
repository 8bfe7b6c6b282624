"""Where calibrations are kept: one file each in the user's data directory, written whole. A look for them lists that folder once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from advisor.errors import InvalidInputError, UnknownNameError
from advisor.json_files import read_json
from advisor.user_files import DATA, folder_of, write_whole

if TYPE_CHECKING:
    from advisor.values import GpuSpec
    from advisor.values.calibration import Calibration

BETWEEN = "--"
"""Stands in a file's name between the card and the rest."""


def folder() -> Path:
    """The folder of the records; it need not exist."""
    return folder_of(DATA) / "calibrations"


def slug(card: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


class Reading(NamedTuple):
    """A file of the folder: its record, or why it is none."""

    path: Path
    calibration: Calibration | None
    problem: str = ""


def save(calibration: Calibration) -> Path:
    """Write a record whole or not at all. Raises InvalidInputError where the folder takes none."""
    target = folder() / f"{slug(calibration.hardware.profile or calibration.hardware.card)}{BETWEEN}{calibration.id}.json"
    try:
        write_whole(target, f"{calibration.model_dump_json(indent=1)}\n".encode())
    except OSError as error:
        raise InvalidInputError(
            f"{target.parent} cannot be written ({error.strerror or type(error).__name__}); {DATA.variable} names another directory"
        ) from error
    return target


def read(path: Path) -> Reading:
    """One record; one that is damaged, foreign or of another version comes back as the reason why it is not used."""
    from advisor.values.calibration import CALIBRATION_VERSION, Calibration

    try:
        data = read_json(path)
    except InvalidInputError as error:
        return Reading(path, None, f"cannot be read ({str(error).removeprefix(str(path)).strip()})")
    version = data.get("calibration_version") if isinstance(data, dict) else None
    if version is None:
        return Reading(path, None, "is no calibration")
    if version != CALIBRATION_VERSION:
        return Reading(path, None, f"is of version {version!r}, and this program reads {CALIBRATION_VERSION}")
    try:
        return Reading(path, Calibration.model_validate(data))
    except ValueError:
        return Reading(path, None, "is damaged")


def paths(card: str = "") -> tuple[Path, ...]:
    """Files of the records, of one card only where it is named; newest first."""
    prefix = slug(card) + BETWEEN if card else ""
    try:
        names = [name for name in os.listdir(folder()) if name.endswith(".json") and name.startswith(prefix) and not name.startswith(".")]
    except OSError:
        return ()
    return tuple(folder() / name for name in sorted(names, key=lambda name: name.rpartition(BETWEEN)[2], reverse=True))


def find(text: str) -> Path:
    """The one record whose id begins so.

    Raises UnknownNameError when there is none, or when there are several.
    """
    found = [path for path in paths() if id_of(path).startswith(text)]
    if len(found) == 1 and text:
        return found[0]
    names = tuple(id_of(path) for path in found or paths())[:4]
    if not names:
        raise UnknownNameError(f"{text!r}: there are no calibrations in {folder()}")
    raise UnknownNameError(f"{text!r} is {'more than one' if found else 'no'} calibration; there are {', '.join(names)}", names)


def forget(path: Path) -> None:
    """Delete a record; one that is gone already is no error."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be deleted: {error.strerror or type(error).__name__}") from error


def id_of(path: Path) -> str:
    return path.stem.rpartition(BETWEEN)[2]


def with_calibrations(gpu: GpuSpec) -> GpuSpec:
    """`gpu` with the records of that card which were measured with the libraries installed here, and a word on the others."""
    found = paths(gpu.name)
    if not found:
        return gpu
    used, words = [], []
    for reading in map(read, found):
        problem = reading.problem or stale(reading.calibration)
        if reading.calibration is not None and not problem:
            used.append(reading.calibration.of_card)
        else:
            words.append(f"calibration {id_of(reading.path)} is ignored: it {problem}")
    if used:
        words.insert(0, f"{len(used)} calibration{'s' if len(used) > 1 else ''} on this card, the newest of {used[0].created_at[:10]}")
    return gpu.model_copy(update={"calibrations": tuple(used), "resolved_from": "; ".join(filter(None, (gpu.resolved_from, *words)))})


def stale(calibration: Calibration | None) -> str:
    """Why a record says nothing of today's predictions: other formulas predicted, or other libraries ran."""
    from advisor.calibration.formulas import digest

    if calibration is None:
        return ""
    if calibration.formulas != digest():
        return f"was held against the formulas of another version (finetune-advisor {calibration.tool_version}); calibrate again"
    return _other_versions(calibration.versions)


def _other_versions(versions: dict[str, str]) -> str:
    """Which library is installed here in another release; a library that is not installed contradicts nothing."""
    import importlib.metadata

    for name, version in versions.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if here != version:
            return f"was measured with {name} {version}, and here is {here}"
    return ""
