"""From options to a request, and from a request to the one plan that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from advisor.checkpoints import trained_as
from advisor.errors import InvalidInputError
from advisor.stacks import default_plan
from advisor.values import GpuSpec, Method, ModelSpec, Plan, Request, Value

Options = TypeVar("Options", bound=Value)


def request_from(options: Mapping[str, object]) -> Request:
    """Options by name, as the command line or a caller gives them. Raises InvalidInputError, one line that names the option."""
    return options_as(Request, options)


def options_as(kind: type[Options], options: Mapping[str, object], flags: bool = True) -> Options:
    """The same for any set of options: named as flags of the command line, or as a caller writes them."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        option = "--" + name.replace("_", "-") if flags else name
        if first["type"] == "extra_forbidden":
            raise InvalidInputError(f"{option}: there is no such option") from None
        if first["type"] == "too_short":
            raise InvalidInputError(f"{option}: name at least one layer, or all-linear") from None
        message = str(first["msg"]).replace("Input should be", "must be")
        raise InvalidInputError(f"{option} {str(first['input'])[:40]}: {message}") from None


def check_request(request: Request) -> None:
    """Raises InvalidInputError where two options contradict each other."""
    method, quantization = request.method, request.quantization
    if method is None or quantization is None or method.is_quantized:
        return
    if method is Method.FULL:
        raise InvalidInputError(f"--quantization {quantization.value}: full fine-tuning trains 16- or 32-bit weights, not quantised ones")
    raise InvalidInputError(
        f"--quantization {quantization.value}: {method.label} on a quantised base is called Q{method.label}; use --method q{method.value}"
    )


def plan_from_request(model: ModelSpec, gpu: GpuSpec | None, request: Request) -> Plan:
    """The plan that the options describe: LoRA unless a method or a quantisation says otherwise."""
    check_request(request)
    quantized = request.quantization or trained_as(model)
    method = request.method or (Method.QLORA if quantized else Method.LORA)
    return default_plan(method, model, gpu, request)
