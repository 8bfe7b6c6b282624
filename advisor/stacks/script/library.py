"""Calls of libraries: what they mean for a training. What is not followed comes to an unknown value with its line."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from functools import partial

from advisor.errors import AdvisorError
from advisor.stacks.files import read_settings
from advisor.stacks.script import models
from advisor.stacks.script.attributes import MODEL, PARAMETERS
from advisor.stacks.script.builtin import call_builtin
from advisor.stacks.script.functions import REQUIRED, call_function
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import truth, unknown_of
from advisor.stacks.script.parsers import boxed, call_on_parser, found_file, is_parser, make_parser, parse_class
from advisor.stacks.script.sightings import CHANGES, PLACES, is_trainer, kind_of, seen_object
from advisor.stacks.script.values import ABSENT, LIBRARIES, OBJECT, Box, Function, Name, Unknown, UserClass, Value, items_of

Handler = Callable[[Machine, list[Value], dict[str, Value], int], Value]
_STARTERS = ("Fire", "run", "launch", "notebook_launcher", "debug_launcher", "start_processes", "spawn", "main")
"""Functions that are handed the script's main function and call it."""


def call_name(machine: Machine, name: Name, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A call of something that is not the script's own."""
    leaf, owner = name.leaf, Name(name.dotted.rpartition(".")[0])
    if name.library in ("", "math", "builtins", "collections", "dataclasses"):
        found = call_builtin(machine, name.dotted if name.library == "math" else leaf, positional, named, line)
        if found is not ABSENT:
            return found
    if leaf == "is_available":
        return owner.leaf in ("cuda", "accelerator", "distributed")
    if leaf == "from_pretrained" and owner.dotted:
        return models.from_pretrained(machine, owner, positional, named, line)
    if leaf in ("from_config", "_from_config") and owner.dotted:
        return models.from_config(machine, owner, positional, named, line)
    if leaf == "get_peft_model" and models.is_fast(owner):
        return models.fast_get_peft_model(machine, positional, named, line)
    if leaf in _FUNCTIONS:
        return _FUNCTIONS[leaf](machine, positional, named, line)
    if name.dotted in _BY_FULL_NAME:
        return _BY_FULL_NAME[name.dotted](machine, positional, named, line)
    if leaf.startswith("apply_liger_kernel"):
        machine.seen.imports.add("*liger")
        return None
    if leaf[:1].isupper():
        return _made(machine, name, positional, named, line)
    return _unfollowed(machine, name, positional, named, line)


def _made(machine: Machine, name: Name, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """An object of a library's class."""
    if is_parser(name):
        return make_parser(machine, name, positional, named, line)
    if name.leaf in _STARTERS:
        return _started(machine, name, positional, line)
    if name.library == "transformers" and name.leaf.startswith("Auto") is False and _is_model_class(name):
        return models.from_config(machine, name, positional, named, line)
    places = PLACES.get(name.leaf, PLACES["Trainer"] if is_trainer(name) else ())
    slots = dict(zip(places, positional, strict=False))
    slots |= {str(place): value for place, value in enumerate(positional) if place >= len(places)}
    return seen_object(machine, machine.new_object(name, slots | named, line))


def _is_model_class(name: Name) -> bool:
    return ("For" in name.leaf and not name.leaf.startswith("DataCollator")) or name.leaf.endswith(("LMHeadModel", "Model"))


def _unfollowed(machine: Machine, name: Name, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    given = (*positional, *named.values())
    note_length(machine, named, line)
    if name.library == "tyro" or (any(isinstance(value, Function) for value in given) and name.leaf in _STARTERS):
        return _started(machine, name, positional, line)
    try_functions(machine, given, line)
    if (
        name.library not in LIBRARIES
        and not hasattr(builtins, name.dotted)
        and any(isinstance(value, Box) and value.of == MODEL for value in given)
    ):
        machine.seen.touched.append((f"{name.dotted}()", line))
    return Unknown("", line)


def _started(machine: Machine, name: Name, positional: list[Value], line: int) -> Value:
    """The script's main function, called by a library: with the arguments that it is handed, or with those of the command line."""
    function = positional[0] if positional else None
    if isinstance(function, UserClass) or (isinstance(function, Name) and name.library == "tyro"):
        return parse_class(machine, function, line)
    if not isinstance(function, Function):
        return Unknown("", line)
    handed = items_of(positional[1]) if len(positional) > 1 else None
    given = parse_class(machine, function, line) if handed is None and name.leaf not in ("notebook_launcher", "spawn") else {}
    return call_function(machine, function, list(handed or ()), given if isinstance(given, dict) else {}, line)


def try_functions(machine: Machine, given: tuple[Value, ...], line: int) -> None:
    """Functions that are handed to what is not followed may be called: what they would change is unknown after it."""
    for value in given:
        if isinstance(value, Function):
            why = Unknown(f"{value.name}() is handed on and may change it", line)
            call = partial(call_function, machine, value, [], {}, line)
            machine.try_each([call, lambda: None], why, f"{value.name}()", lambda _: True)


def call_bound(machine: Machine, holder: Value, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A method of an object of a library."""
    if isinstance(holder, Name):
        return call_name(machine, Name(f"{holder.dotted}.{name}"), positional, named, line)
    if isinstance(holder, UserClass):
        base = kind_of(holder)
        if base is not None and name == "from_pretrained":
            return models.from_pretrained(machine, Name(f"script.{holder.name}ForOwn"), positional, named, line)
        return Unknown("", line)
    if not isinstance(holder, Box) or holder.kind != OBJECT:
        return unknown_of(holder) or Unknown("", line)
    if holder.of == MODEL:
        return models.call_on_model(machine, holder, name, positional, named, line)
    if holder.of == PARAMETERS:
        return models.call_on_parameters(machine, holder, name, positional, line)
    kind = kind_of(holder.of)
    if kind is not None and is_trainer(kind):
        return _on_trainer(machine, holder, name)
    if kind is not None and is_parser(kind):
        return call_on_parser(machine, holder, name, positional, named, line)
    if name == "update" and positional and isinstance(positional[0], Box):
        for key, value in positional[0].slots.items():
            machine.write(holder, key, value)
        return None
    note_length(machine, named, line)
    try_functions(machine, (*positional, *named.values()), line)
    return Unknown("", line)


def _on_trainer(machine: Machine, trainer: Box, name: str) -> Value:
    """What a trainer is when it trains: what a script does to its model afterwards is no part of it."""
    if name in ("train", "fit"):
        slots = {key: _frozen(machine, value) for key, value in trainer.slots.items()}
        machine.seen.trained.append(machine.new_object(trainer.of, {**slots, CHANGES: len(machine.seen.changes)}, trainer.line))
    return Unknown("", machine.line)


def _frozen(machine: Machine, value: Value) -> Value:
    """An object as it is now, with what it holds as it is now."""
    if not isinstance(value, Box) or value.kind != OBJECT:
        return value
    return machine.new_object(value.of, dict(value.slots), value.line)


def note_length(machine: Machine, named: dict[str, Value], line: int) -> None:
    """A tokenizer that cuts: `tokenizer(texts, truncation=True, max_length=512)`."""
    if "max_length" in named and truth(named.get("truncation", False)) is not False:
        machine.seen.lengths.append((named["max_length"], line))


def _field(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`dataclasses.field`: the default that it gives."""
    if "default" in named:
        return named["default"]
    factory = named.get("default_factory")
    return REQUIRED if factory is None else machine.call(factory, [], {}, line)


def _environment(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`os.environ.get(NAME, default)`, `os.getenv(NAME, default)`."""
    name = positional[0] if positional else None
    default = positional[1] if len(positional) > 1 else named.get("default")
    return machine.environment.get(name, default) if isinstance(name, str) else unknown_of(name) or Unknown("", line)


def _opened(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`open(path)`."""
    return machine.new_object(Name("builtins.open"), {"path": positional[0] if positional else named.get("file")}, line)


def _read_file(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`yaml.safe_load(file)`, `json.load(file)`, `OmegaConf.load(path)`: what the file holds, where it is here."""
    given = positional[0] if positional else None
    path = given.slots.get("path") if isinstance(given, Box) and given.made_by == "open" else given
    if not isinstance(path, str):
        return unknown_of(path) or Unknown("it is read from a file that is not known", line)
    try:
        return boxed(machine, read_settings(found_file(machine, path)).values, line)
    except AdvisorError:
        return Unknown(f"it is read from {path[:60]}, which is no file of settings here", line)


def _is_not_there(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return False


def _bf16(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return machine.start.bf16


def _capability(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """The first generation with bf16 is 8.0; which one it is, is not told further (CUDA C programming guide, compute capabilities)."""
    return (8, 0) if machine.start.bf16 else (7, 5)


def _path(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`os.path.join` and `Path`: paths are held as texts."""
    missing = unknown_of(*positional)
    if missing is not None or not all(isinstance(part, str) for part in positional):
        return missing or Unknown("", line)
    return machine.sized("/".join(positional), line)


def _exists(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """Whether a file is there. Of a training that starts afresh, its checkpoints and what it writes are not."""
    path = positional[0] if positional else None
    written = [box.slots.get("output_dir") for box in machine.seen.arguments]
    return False if isinstance(path, str) and ("checkpoint" in path.lower() or path in written) else unknown_of(path) or Unknown("", line)


def _first(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return positional[0] if positional else named.get("default")


def _copied(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`copy.copy(x)`, `dataclasses.replace(x, name=value)`."""
    whole = positional[0] if positional else None
    return machine.box(whole.kind, whole.of, whole.slots | named, line) if isinstance(whole, Box) else whole


def _truth_of_text(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    word = positional[0] if positional else None
    return word.lower() in ("y", "yes", "t", "true", "on", "1") if isinstance(word, str) else unknown_of(word) or Unknown("", line)


def _namespace(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    given = dict(positional[0].slots) if positional and isinstance(positional[0], Box) else {}
    return machine.new_object(Name("types.SimpleNamespace"), given | named, line)


_FUNCTIONS: dict[str, Handler] = {
    "get_peft_model": models.get_peft_model,
    "PeftModel": models.get_peft_model,
    "PeftModelForCausalLM": models.get_peft_model,
    "prepare_model_for_kbit_training": models.prepare_for_kbit,
    "prepare_model_for_int8_training": models.prepare_for_kbit,
    "get_peft_config": models.get_peft_config,
    "get_quantization_config": models.get_quantization_config,
    "setup_chat_format": models.model_and_tokenizer,
    "for_training": models.same_model,
    "for_inference": models.same_model,
    "patch_saving_functions": models.same_model,
    "train_on_responses_only": models.same_model,
    "is_bf16_supported": _bf16,
    "is_bfloat16_supported": _bf16,
    "is_torch_bf16_gpu_available": _bf16,
    "get_device_capability": _capability,
    "is_initialized": _is_not_there,
    "is_torch_xpu_available": _is_not_there,
    "is_torch_npu_available": _is_not_there,
    "getenv": _environment,
    "open": _opened,
    "signature": lambda machine, positional, named, line: machine.new_object(Name("inspect.signature"), {}, line),
    "get_last_checkpoint": lambda machine, positional, named, line: None,
    "exists": _exists,
    "isdir": _exists,
    "isfile": _exists,
    "join": _path,
    "strtobool": _truth_of_text,
    "SimpleNamespace": _namespace,
    "Namespace": _namespace,
    "EasyDict": _namespace,
    "Munch": _namespace,
    "field": _field,
    "cast": lambda machine, positional, named, line: positional[1] if len(positional) > 1 else None,
    "deepcopy": _copied,
    "copy": _copied,
    "replace": _copied,
    "Option": _first,
    "Argument": _first,
    "Path": _path,
}
"""Functions by the last part of their name."""

_BY_FULL_NAME: dict[str, Handler] = {
    "os.environ.get": _environment,
    "os.path.abspath": _first,
    "yaml.safe_load": _read_file,
    "yaml.full_load": _read_file,
    "yaml.load": _read_file,
    "json.load": _read_file,
    "omegaconf.OmegaConf.load": _read_file,
    "os.path.expanduser": _first,
    "torch.compile": models.compiled,
    "accelerate.PartialState": lambda machine, positional, named, line: machine.new_object(Name("accelerate.PartialState"), {}, line),
}
"""Functions by their whole name."""
