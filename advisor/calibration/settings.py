"""How a calibration is run; what is run stands in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from advisor.errors import InvalidInputError
from advisor.units import parse_size
from advisor.values import Value
from advisor.values.vocabulary import Positive


class Settings(Value):
    """Everything besides model, plan and card."""

    device: Literal["cpu"] | None = None
    """None: what accelerate chooses."""
    processes: Positive = 1
    """Where no configuration of accelerate says it."""
    accelerate_config: Path | None = None
    """The user's own; None for accelerate's default file, or one process where there is none."""
    preflight: bool = False
    """The whole model at the plan's own micro-batch, to prove that it fits."""
    layers: Positive | None = None
    """This depth alone, at the plan's own batch."""
    timed_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Steps of a shape are timed until so long has passed, though no fewer than three. Judgement: medians of two cores are steady then."""
    memory_limit_bytes: Positive | None = None
    """Of each process on the host; None for a share of what is free."""
    time_limit_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    keep: bool = True
    """Write the record."""
    worker: str = "advisor.calibration.worker"
    """Module that is run: tests put one in its place that breaks off."""


NAMES = frozenset(Settings.model_fields) - {"memory_limit_bytes"} | {"memory_limit"}


def split(options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Settings, and the options that are a plan's. `memory_limit` may be a text ("4GiB") or bytes.

    Raises InvalidInputError, one line that names the option.
    """
    own = {name: value for name, value in options.items() if name in NAMES and value is not None}
    limit = own.pop("memory_limit", None)
    if limit is not None:
        own["memory_limit_bytes"] = parse_size(limit) if isinstance(limit, str) else limit
    try:
        settings = Settings.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).replace("Input should be", "must be")
        option = str(first["loc"][0]).removesuffix("_bytes").removesuffix("_s").replace("_", "-")
        raise InvalidInputError(f"--{option} {str(first['input'])[:40]}: {message}") from None
    return settings, {name: value for name, value in options.items() if name not in NAMES}
