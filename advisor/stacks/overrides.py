"""Settings that the user says beside a file: `--set NAME=VALUE`, in the file's own names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from advisor.errors import InvalidInputError
from advisor.json_files import parse_json
from advisor.stacks.detect import Opened, with_changes
from advisor.stacks.script.known import ADAPTER, ARGUMENTS, LOADING_READ, QUANTIZATION
from advisor.stacks.script.parsers import literal
from advisor.stacks.script.settings import LENGTHS

_SCRIPT = frozenset((*ARGUMENTS, *LOADING_READ, *LENGTHS, "model_name_or_path", "prepare_model_for_kbit_training"))


def parse_settings(texts: tuple[str, ...]) -> dict[str, Any]:
    """`("r=64", "optim=sgd")` as settings by name. Raises InvalidInputError for what is none."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInputError(f"--set {text[:60]}: write NAME=VALUE, such as --set per_device_train_batch_size=4")
        listed = value.lstrip().startswith(("[", "{"))
        found[name.strip()] = parse_json(value, f"--set {name.strip()}") if listed else literal(value)
    return found


def with_settings(opened: Opened, given: Mapping[str, Any]) -> Opened:
    """The file as if it said these settings too; what it left open by these names is closed.

    A name with dots reaches into groups. Raises InvalidInputError for a name that a script cannot have.
    """
    values, unknown = dict(opened.values), dict(opened.unknown)
    for name, value in given.items():
        place = _place(name, values) if opened.is_script else name
        values = with_changes(values, {place: value})
        unknown.pop(place, None)
    taken = tuple(f"{name}: {value}, as --set says" for name, value in given.items())
    return opened._replace(values=values, unknown=unknown, taken=(*opened.taken, *taken))


def _place(name: str, values: Mapping[str, Any]) -> str:
    """Where a script's setting is kept: an adapter's among the adapter's, a quantisation's among its own."""
    if "." in name or name in _SCRIPT - QUANTIZATION:
        return name
    if name in QUANTIZATION:
        return f"quantization_config.{name}" if "quantization_config" in values else name
    if name in ADAPTER:
        return f"peft.{name}"
    near = difflib.get_close_matches(name, [*_SCRIPT, *ADAPTER, *QUANTIZATION], n=1, cutoff=0.6)
    raise InvalidInputError(f"--set {name}: there is no such setting of a script{f'; did you mean {near[0]}?' if near else ''}")
