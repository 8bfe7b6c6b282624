"""Which release of a framework speaks: the one that was named, the installed one, or the one that the defaults were read in.

What other releases do otherwise are rows of profiles/stacks/versions.json, each with its source.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.profiles import read
from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.known import defaults_of
from advisor.values.vocabulary import DType, Loss, Optimizer, Shift, Stack

_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "optimizer": Optimizer,
    "loss": Loss,
    "shift": Shift,
    "adapter_dtype": DType,
    "quantized_adapter_dtype": DType,
    "weights_dtype": lambda value: None if value is None else DType(value),
    "kbit_prepare": bool,
    "checkpointing": bool,
    "quantized_checkpointing": bool,
    "autocast": bool,
    "full_autocast": bool,
}
OLDEST: Mapping[Stack, tuple[str, str]] = {
    Stack.HF: ("4.48", "the first release that was read"),
    Stack.LLAMAFACTORY: ("0.9.2", "0.9.1 requires transformers <= 4.46.1, 0.9.2 skips to 4.48"),
    Stack.AXOLOTL: ("0.7", "0.6 was made with transformers 4.46, 0.7 requires 4.48.3"),
    Stack.MS_SWIFT: ("3.1", "3.0 requires transformers < 4.48"),
}
"""First release of each framework that runs on transformers 4.48 or later, by the requirements of its packages. Older ones copy the
logits once more to shift them (transformers 4.46 loss/loss_utils.py), and nothing of theirs was read."""
_VERSION = re.compile(r"(\d{1,6}(?:\.\d{1,6}){0,5})(?:[.-]?(?:a|b|rc|alpha|beta|dev|post)[.\d]*)*(?:\+[\w.]+)?", re.ASCII)
"""A release as packaging writes it: numbers, then what says that it is none yet, then where it was built."""


class Profile(NamedTuple):
    """The defaults of a release, and a line that names it."""

    defaults: StackDefaults
    line: str
    differs: tuple[str, ...] = ()
    """Sources of what that release does otherwise than the one that was read."""


def profile_of(
    stack: Stack,
    version: str | None = None,
    installed: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Profile:
    """The stack's defaults at `version`, else at the installed release (`installed`: of a process that has it loaded).

    A file whose `settings` hold one that later releases refuse was written for an earlier one: the last that takes it speaks then.
    """
    newest = defaults_of(stack)
    if not newest.package:
        if version:
            raise InvalidInputError(f"--stack-version {version}: {newest.label} has no releases")
        return Profile(newest, newest.label)
    found = version or (installed or {}).get(newest.package) or installed_version(newest.package)
    how = "as asked for" if version else "installed"
    dropped = None if version else _dropped(stack, settings or {}, found or newest.version)
    if dropped is not None:
        found, how = dropped["last"], f"the last that takes {dropped['key']}, which the file sets"
    if found is None:
        return Profile(newest, f"{newest.package} {newest.version} (not installed here; the release that the defaults were read in)")
    release = release_of(found)
    oldest, why = OLDEST.get(stack, ("0", ""))
    if release < release_of(oldest):
        raise UnsupportedError(f"{newest.package} {found} is not priced: {oldest} is the oldest that is, as {why}")
    rows = [
        row for row in read("stacks") if row["kind"] == "version" and row["stack"] == stack.value and release < release_of(row["before"])
    ]
    update: dict[str, Any] = {row["field"]: Default(_VALUES[row["field"]](row["value"]), row["source"]) for row in rows}
    ahead = f"; the defaults were read in {newest.version}" if release[:2] > release_of(newest.version)[:2] else ""
    defaults = newest._replace(version=_short(found), **update)
    return Profile(defaults, f"{newest.package} {found} ({how}{ahead})", tuple(row["source"] for row in rows))


def _dropped(stack: Stack, settings: Mapping[str, Any], release: str) -> Mapping[str, Any] | None:
    """The first setting of the file that `release` no longer takes."""
    rows = (row for row in read("stacks") if row["kind"] == "dropped" and row["stack"] == stack.value)
    found = (row for row in rows if settings.get(row["key"]) is not None and release_of(release) >= release_of(row["before"]))
    return min(found, key=lambda row: release_of(row["before"]), default=None)


def transformers_of(profile: Profile) -> tuple[int, ...] | None:
    """The release of transformers that trains: the profile's where the stack is transformers' own, else the installed one."""
    own = profile.defaults.version if profile.defaults.package == "transformers" else None
    found = own or installed_version("transformers")
    return None if found is None else release_of(found)


def release_of(version: str) -> tuple[int, ...]:
    """ "1.10.0.dev0" → (1, 10, 0). Raises InvalidInputError for what is no version."""
    found = _VERSION.fullmatch(version.strip().removeprefix("v"))
    if found is None:
        raise InvalidInputError(f"--stack-version {version[:40]}: it must be a release such as 1.16")
    return tuple(map(int, found[1].split(".")))


def _short(version: str) -> str:
    return ".".join(map(str, release_of(version)))


@cache
def installed_version(package: str) -> str | None:
    """Version of an installed distribution, by the name of its metadata folder: importlib.metadata takes ten times as long to import."""
    wanted = re.sub(r"[-_.]+", "_", package).lower()
    for name, version in _distributions():
        if name == wanted:
            return version
    return None


@cache
def _distributions() -> tuple[tuple[str, str], ...]:
    return tuple(_found())


def _found() -> Iterator[tuple[str, str]]:
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").partition("-")
                yield re.sub(r"[-_.]+", "_", name).lower(), version
