"""Reads a trainer's file into plain settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from advisor import bounded
from advisor.errors import InvalidInputError
from advisor.json_files import parse_json
from advisor.yaml_files import LARGEST_BYTES, parse_yaml

_YAML = (".yaml", ".yml")
_WHAT = "training configuration"


class SettingsFile(NamedTuple):
    """What a file holds."""

    path: Path
    text: str
    values: dict[str, Any]
    duplicates: tuple[str, ...] = ()
    """Keys that stand twice: the last one counts, for the trainers as well."""


def read_text(path: Path) -> str:
    """The file's text, or one line that says why there is none."""
    return bounded.read_text(path, LARGEST_BYTES, _WHAT)


def read_settings(path: Path) -> SettingsFile:
    """A YAML or JSON file whose top is a mapping. A file without a known ending is read as YAML, of which JSON is a part."""
    return parse_settings(read_text(path), path)


def parse_settings(text: str, path: Path) -> SettingsFile:
    """The same of a text; `path` names it in errors."""
    duplicates: tuple[str, ...] = ()
    if path.suffix == ".json":
        values = parse_json(text, str(path))
    else:
        values, duplicates = parse_yaml(text, str(path))
    if values is None:
        raise InvalidInputError(f"{path} is empty")
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} holds a {type(values).__name__}, not settings by name")
    return SettingsFile(path, text, {str(key): value for key, value in values.items()}, duplicates)


def looks_like_settings(path: Path) -> bool:
    return path.suffix in (*_YAML, ".json")
