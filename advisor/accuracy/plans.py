"""The plan that a measured run ran, and rows of a file that are held against it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from advisor.accuracy.rows import Measurement
from advisor.bounded import place
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import read_json
from advisor.refusals import boundary, one_line
from advisor.stacks.engines import masters_of, reentrant_of
from advisor.stacks.known import defaults_of
from advisor.values import Method, Plan, Stack


def read_measurements(path: str | Path) -> tuple[Measurement, ...]:
    """Rows of a file in the format of `profiles/measurements/`.

    Raises InvalidInputError where it cannot be read or is no list of rows; the line names the first row that is wrong, and its field.
    """
    rows = read_json(place(path))
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError(f"{path}: holds no list of measured runs; profiles/measurements/ shows the format")
    return tuple(_row(path, number, row) for number, row in enumerate(rows, start=1))


def _row(path: str | Path, number: int, row: object) -> Measurement:
    try:
        found = Measurement.model_validate(row)
        with suppress(UnsupportedError):  # what is not stated is listed, with the reason
            plan_of(found)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: row {number}: {one_line(error)}") from None
    except InvalidInputError as error:  # a setting that no plan takes
        raise InvalidInputError(f"{path}: row {number}: {error}") from None
    return found


_ALWAYS = (
    "method",
    "base_dtype",
    "autocast",
    "optimizer",
    "micro_batch_size",
    "grad_accum_steps",
    "gradient_checkpointing",
    "attention",
    "padding",
    "kv_cache_in_outputs",
    "loss",
    "stack",
    "sharding",
)
_RARE = (
    *("quantized_experts", "masters", "use_reentrant", "lora_dropout", "head", "labels", "eval_micro_batch_size", "shift", "mixers"),
    *("images_per_row", "image_size_pixels"),
)
"""Taken at the plan's own default where a source says nothing of them."""
_ADAPTER = ("rank", "alpha", "target_modules", "use_rslora", "adapter_dtype")
_QUANTIZED = ("quantization", "double_quant", "kbit_prepare")


def plan_of(row: Measurement, seq_len_tokens: int | None = None) -> Plan:
    """The plan that the row ran, at `seq_len_tokens` where the run mixed lengths.

    Raises UnsupportedError that names the first setting which the row does not state.
    """
    stated = row.settings
    length = seq_len_tokens or stated.seq_len_tokens
    method = _method(row)
    needed = _ALWAYS + (_ADAPTER if method.has_adapter and not row.peft_config else ()) + (_QUANTIZED if method.is_quantized else ())
    missing = [name for name in needed if getattr(stated, name) is None]
    missing += ["seq_len_tokens"] if length is None else []
    missing += ["autocast_dtype"] if stated.autocast and stated.autocast_dtype is None else []
    missing += ["n_gpus"] if row.n_gpus is None else []
    if missing:
        raise UnsupportedError(f"{row.id}: {', '.join(missing)} not stated")
    fields = {name: getattr(stated, name) for name in needed}
    fields |= {"method": method, "seq_len_tokens": length, "n_gpus": row.n_gpus}
    fields |= _of_the_release(row) | {name: getattr(stated, name) for name in _RARE if getattr(stated, name) is not None}
    if stated.autocast:
        fields["autocast_dtype"] = stated.autocast_dtype
    with boundary("settings"):
        return Plan.model_validate(fields)


def _of_the_release(row: Measurement) -> dict[str, object]:
    """What the libraries of a run on several cards did by default."""
    stated, n_gpus = row.settings, row.n_gpus or 1
    if n_gpus == 1 or stated.sharding is None or stated.stack is None:
        return {}
    release = {name: tuple(map(int, version.split(".")[:2])) for name, version in row.versions.items() if _RELEASE.match(version)}
    transformers = row.versions.get("transformers", defaults_of(Stack.HF).version)
    masters = masters_of(
        stated.sharding,
        stated.stack,
        mixed=bool(stated.autocast),
        quantized=stated.quantization is not None,
        accelerate=release.get("accelerate"),
    )
    reentrant = reentrant_of(defaults_of(Stack.HF)._replace(version=transformers), stated.sharding, adapter=stated.method != "full")
    return {"masters": masters, "use_reentrant": reentrant}


_RELEASE = re.compile(r"\d+\.\d+")


def _method(row: Measurement) -> Method:
    if row.peft_config:
        return Method.QLORA if row.settings.quantization else Method.LORA  # what else there is to its plan
    try:
        return Method(row.settings.method)
    except ValueError:
        raise UnsupportedError(f"{row.id}: {row.settings.method or 'the method'} is not one of the priced methods") from None
