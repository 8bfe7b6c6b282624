"""Facts from a file or a mapping: names of models and cards are resolved, and a refusal is one line that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advisor.devices import load_gpu
from advisor.errors import InvalidInputError, UnknownNameError
from advisor.hub import load_model
from advisor.json_files import read_object
from advisor.values.evidence import Facts


def read_facts(path: Path) -> Facts:
    """Facts of a JSON file. Raises InvalidInputError, one line, for what cannot be read or cannot be true."""
    return facts_from(read_object(path))


def facts_from(data: Mapping[str, Any]) -> Facts:
    """The facts of a mapping, as the JSON file holds them; `model` and `gpu` may be names."""
    resolved = dict(data)
    if isinstance(resolved.get("model"), str):
        resolved |= _model(resolved["model"])
    if isinstance(resolved.get("gpu"), str):
        resolved["gpu"] = load_gpu(resolved["gpu"])
    try:
        return Facts.model_validate(resolved)
    except ValidationError as error:
        raise InvalidInputError(f"facts: {_first(error)}") from None


def with_more(facts: Facts, more: Mapping[str, Any]) -> Facts:
    """The facts with fields replaced: those of `evaluation` one by one, and a run in `runs` as the newest one."""
    known = {name: getattr(facts, name) for name in facts.model_fields_set}
    evaluation = {name: getattr(facts.evaluation, name) for name in facts.evaluation.model_fields_set}
    changes = {name: value for name, value in more.items() if name not in ("evaluation", "runs")}
    return facts_from(
        {**known, **changes, "evaluation": {**evaluation, **more.get("evaluation", {})}, "runs": [*facts.runs, *more.get("runs", ())]}
    )


def _model(name: str) -> dict[str, object]:
    """The model's shape; where nobody knows the name, what follows from the shape is left out and the answer says so."""
    try:
        return {"model": load_model(name)}
    except UnknownNameError as error:
        return {"model": None, "model_note": str(error)}


def _first(error: ValidationError) -> str:
    """The first mistake in one line: where it is, what is wrong, and what stands there."""
    first = error.errors()[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: there is no such field"
    if first["type"] == "missing":
        return f"{where}: is missing"
    if first["type"] == "value_error":
        return message
    shown = repr(first["input"])
    return f"{where}: {message}, not {shown if len(shown) <= 40 else shown[:37] + '...'}"
