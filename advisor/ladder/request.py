"""From options to a request, and from a request to the one plan that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from advisor.checkpoints import trained_as
from advisor.errors import InvalidInputError
from advisor.refusals import did_you_mean
from advisor.stacks import default_plan
from advisor.stacks.words import NEAREST
from advisor.values import GpuSpec, Method, ModelSpec, Plan, Request, Value
from advisor.values.vocabulary import Word

Options = TypeVar("Options", bound=Value)
_LONGEST_VALUE = 40


def request_from(options: Mapping[str, object], gpu: GpuSpec | None = None) -> Request:
    """Options by name, as the command line or a caller gives them. Raises InvalidInputError, one line that names the option.

    All cards of a cloud's machine are used where nobody says how many.
    """
    return of_machine(options_as(Request, options), gpu)


def of_machine(request: Request, gpu: GpuSpec | None) -> Request:
    """The request, on all cards of a cloud's machine where it does not say how many."""
    cards = 1 if gpu is None else gpu.gpus_of_machine
    return request if request.gpus is not None or cards == 1 else request.model_copy(update={"gpus": cards})


OF_THE_HOST = ("host_memory", "offload")
"""Options that say something only where the host's memory is looked at too."""


def on_machine(gpu: GpuSpec, request: Request) -> GpuSpec:
    """The card in the machine that the request speaks of."""
    return gpu if request.host_memory is None else gpu.model_copy(update={"host_bytes": request.host_memory})


def options_as(kind: type[Options], options: Mapping[str, object], flags: bool = True) -> Options:
    """The same for any set of options: named as flags of the command line, or as a caller writes them."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise InvalidInputError(_refusal(error, kind, flags)) from None


def _refusal(error: ValidationError, kind: type[Value], flags: bool) -> str:
    """The first option that is wrong, in one line, with the word that it may have meant."""
    first: Any = error.errors()[0]
    name = str(first["loc"][0])
    option = "--" + name.replace("_", "-") if flags else name
    if first["type"] == "extra_forbidden":
        return f"{option}: there is no such option{did_you_mean(name, kind.model_fields)}"
    if first["type"] == "too_short":
        return f"{option}: name at least one layer, or all-linear"
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    meant = _meant(str(first["input"]), kind, name) if first["type"] == "enum" else ""
    return f"{option} {str(first['input'])[:_LONGEST_VALUE]}: {message}{meant}"


def _meant(word: str, kind: type[Value], name: str) -> str:
    """The nearest word in spelling; of transformers' optimizers that are not priced, one that keeps no less."""
    if name == "optimizer" and word.lower() in NEAREST:
        return f"; {NEAREST[word.lower()].value} keeps no less"
    return did_you_mean(word, _words(kind, name))


def _words(kind: type[Value], name: str) -> list[str]:
    """Words that an option takes."""
    enum = next((part for part in get_args(kind.model_fields[name].annotation) if isinstance(part, type) and issubclass(part, Word)), None)
    return [] if enum is None else [*(str(member.value) for member in enum), *enum.also()]


def check_request(request: Request) -> None:
    """Raises InvalidInputError where two options contradict each other, or one says nothing without another."""
    for name in ("epochs", "price", "budget"):
        if getattr(request, name) is not None and request.dataset_tokens is None:
            raise InvalidInputError(f"--{name}: hours and USD are those of a data set; say its size with --dataset-tokens")
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
