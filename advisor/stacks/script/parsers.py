"""Command lines of scripts: argparse, HfArgumentParser, TrlParser, tyro and fire. What does not stand on the line has its default."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import is_file
from advisor.errors import InvalidInputError
from advisor.stacks.files import read_settings
from advisor.stacks.places import is_below, project_of
from advisor.stacks.script.defaults import TABLES
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.sightings import is_arguments, kind_of, seen_object
from advisor.stacks.script.values import (
    ABSENT,
    OPEN,
    Box,
    Function,
    Name,
    Unknown,
    UserClass,
    Value,
    class_slot,
    fields_of,
    is_dict,
    items_of,
)

_PARSERS = ("ArgumentParser", "HfArgumentParser", "TrlParser", "H4ArgumentParser")
_ARGUMENTS, _CLASSES, _SET = "*arguments", "*classes", "*set"
_FLAGS = ("store_true", "store_false", "store_const", "count", "append_const")


class Argument(NamedTuple):
    """One argument of an argparse parser."""

    flags: tuple[str, ...]
    name: str
    named: dict[str, Value]
    line: int


def is_parser(name: Name) -> bool:
    """A class that parses command lines."""
    return name.leaf in _PARSERS


def make_parser(machine: Machine, name: Name, positional: list[Value], named: dict[str, Value], line: int) -> Box:
    """A parser: of dataclasses where it is handed some, else one whose arguments are added."""
    given = positional[0] if positional else named.get("dataclass_types")
    classes = () if given is None else items_of(given) or (given,)
    return machine.new_object(name, {_ARGUMENTS: (), _CLASSES: tuple(classes), _SET: {}}, line)


def call_on_parser(machine: Machine, parser: Box, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A method of a parser."""
    if name == "add_argument":
        _add(machine, parser, positional, named, line)
    elif name in ("add_argument_group", "add_mutually_exclusive_group"):
        return parser
    elif name == "set_defaults":
        machine.write(parser, _SET, {**parser.slots[_SET], **named})
    elif name in ("parse_args", "parse_known_args"):
        words = _words(machine, positional[0] if positional else named.get("args"))
        space = _unknown_words(line) if words is None else _parsed(machine, parser, words, name == "parse_known_args", line)
        return space if name == "parse_args" or isinstance(space, Unknown) else (space, machine.new_list((), line))
    elif name.startswith("parse_args_into") or name in ("parse_args_and_config", "parse"):
        return _objects(machine, parser, positional, named, line, name)
    elif name in ("parse_json_file", "parse_yaml_file", "parse_dict"):
        return _from_file(machine, parser, name, positional, named, line)
    return Unknown("", line)


def _unknown_words(line: int) -> Unknown:
    return Unknown("the words that are parsed are not known", line)


def _words(machine: Machine, given: Value) -> tuple[str, ...] | None:
    """The command line that is parsed: the list that the script hands over, else what the script was started with."""
    if given is None:
        return machine.start.arguments or ()
    items = items_of(given)
    return None if items is None or not all(isinstance(item, str) for item in items) else items


def _add(machine: Machine, parser: Box, flags: list[Value], named: dict[str, Value], line: int) -> None:
    texts = tuple(flag for flag in flags if isinstance(flag, str))
    long = next((flag for flag in texts if flag.startswith("--")), texts[0] if texts else "")
    name = named.get("dest") or long.lstrip("-").replace("-", "_")
    if isinstance(name, str) and name:
        machine.write(parser, _ARGUMENTS, (*parser.slots[_ARGUMENTS], Argument(texts, name, named, line)))


def _parsed(machine: Machine, parser: Box, words: tuple[str, ...], lenient: bool, line: int) -> Box:
    """The namespace of an argparse parser."""
    arguments: tuple[Argument, ...] = parser.slots[_ARGUMENTS]
    given = _given(words)
    flags = {flag: argument for argument in arguments for flag in argument.flags}
    for flag in given:
        if flag and flag not in flags and not lenient and machine.start.arguments:
            raise InvalidInputError(f"the script has no argument {flag} (its parser is at line {parser.line})")
    space: dict[Any, Value] = {}
    loose = list(given.get("", ()))
    for argument in arguments:
        values = next((given[flag] for flag in argument.flags if flag in given), None)
        if values is None and argument.flags and not argument.flags[0].startswith("-") and loose:
            values = [loose.pop(0)]
        if argument.named.get("action") == "BooleanOptionalAction" or _is_pair_of_flags(argument):
            values = values if f"--no-{argument.name.replace('_', '-')}" not in given else ["false"]
        space[argument.name] = _argument_value(machine, argument, values, parser.slots[_SET])
    parsed = machine.new_object(Name("argparse.Namespace"), {**parser.slots[_SET], **space}, line)
    machine.seen.parsed.append(parsed)
    return parsed


def _is_pair_of_flags(argument: Argument) -> bool:
    action = argument.named.get("action")
    return isinstance(action, Name) and action.leaf == "BooleanOptionalAction"


def _argument_value(machine: Machine, argument: Argument, values: list[str] | None, set_defaults: dict[str, Value]) -> Value:
    action, kind = argument.named.get("action"), argument.named.get("type")
    if values is None:
        if argument.name in set_defaults:
            return set_defaults[argument.name]
        unset = {"store_true": False, "store_false": True}.get(action) if isinstance(action, str) else None
        default = argument.named.get("default", unset)
        needed = argument.named.get("required") is True or (argument.flags and not argument.flags[0].startswith("-"))
        if "default" not in argument.named and needed and argument.named.get("nargs") not in ("?", "*"):
            shown = argument.flags[0] if argument.flags else argument.name
            return Unknown(f"the command line decides {shown}", argument.line)
        return _typed(machine, default, kind, argument.line) if isinstance(default, str) else default
    if action in _FLAGS:
        return argument.named.get("const", True) if action == "store_const" else action != "store_false"
    typed = [_typed(machine, value, kind, argument.line) for value in values]
    if argument.named.get("nargs") not in (None, "?"):
        return machine.new_list(typed, argument.line)
    return typed[0] if typed else argument.named.get("const", True)


def _typed(machine: Machine, text: str, kind: Value, line: int) -> Value:
    if kind is None or (isinstance(kind, Name) and kind.dotted == "str"):
        return text
    if isinstance(kind, Name) and kind.dotted == "bool":
        return bool(text)
    return machine.call(kind, [text], {}, line)


def _given(words: tuple[str, ...]) -> dict[str, list[str]]:
    """Words of a command line by the flag before them; those before any flag stand under the empty name."""
    found: dict[str, list[str]] = {"": []}
    flag = ""
    for word in words:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit() and len(word) > 1:
            flag, equals, value = word.partition("=")
            found[flag] = [value] if equals else []
        else:
            found[flag].append(word)
    return found


def _objects(machine: Machine, parser: Box, positional: list[Value], named: dict[str, Value], line: int, method: str) -> Value:
    """One object for each dataclass of the parser, with the words that are theirs."""
    words = _words(machine, positional[0] if positional else named.get("args"))
    if words is None:
        return _unknown_words(line)
    given = {flag.lstrip("-").replace("-", "_"): values for flag, values in _given(words).items()}
    settings: dict[str, Any] = {}
    loose = [word for word in given.pop("", []) if word.endswith((".yaml", ".yml"))]
    config = loose if method == "parse" else given.pop("config", None) if method == "parse_args_and_config" else None
    if config:
        settings |= read_settings(found_file(machine, config[0])).values
    settings |= {name: _from_line(values) for name, values in given.items()}
    made = _made(machine, parser, settings, line)
    if named.get("return_remaining_strings"):
        made = (*made, machine.new_list((), line))
    return made if len(made) != 1 or method != "parse_args" else made[0]


def found_file(machine: Machine, named: str) -> Path:
    """The file, from the script's folder or the working directory."""
    for path in (Path(machine.folder) / named, Path(named)):
        if is_file(path) and is_below(path, project_of(machine.folder)):
            return path
    raise InvalidInputError(f"{named}, which the script is given, is no file here")


def _from_line(values: list[str]) -> Value:
    """Words of the command line as a dataclass would take them."""
    if len(values) > 1:
        return values
    return True if not values else literal(values[0])


def literal(text: str) -> Any:
    """A text as the number, truth or text that it spells."""
    lowered = text.strip().lower()
    if lowered in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(lowered)
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, OverflowError):
            continue
    return text


def _made(machine: Machine, parser: Box, settings: dict[str, Any], line: int) -> tuple[Value, ...]:
    classes = parser.slots[_CLASSES]
    known = [_fields(cls) for cls in classes]
    everything = frozenset().union(*known)
    made = []
    taken = False
    for cls, own in zip(classes, known, strict=True):
        kind = kind_of(cls)
        rest = kind is not None and is_arguments(kind) and not taken
        taken = taken or rest
        mine = {name: value for name, value in settings.items() if name in own or (rest and name not in everything)}
        made.append(_object(machine, cls, {name: boxed(machine, value, line) for name, value in mine.items()}, line))
    machine.seen.parsed.extend(value for value in made if isinstance(value, Box))
    return tuple(made)


def _fields(cls: Value) -> frozenset[str]:
    """Names of the arguments of a class, as far as they are known; those of the trainer's own take the rest."""
    if isinstance(cls, UserClass):
        return frozenset(fields_of(cls))
    return frozenset(TABLES.get(cls.leaf, {}) if isinstance(cls, Name) else ())


def boxed(machine: Machine, value: Any, line: int) -> Value:
    """A value of a file as a value of the script."""
    if isinstance(value, dict):
        return machine.new_dict({str(key): boxed(machine, inner, line) for key, inner in value.items()}, line)
    return machine.new_list([boxed(machine, inner, line) for inner in value], line) if isinstance(value, (list, tuple)) else value


def _object(machine: Machine, cls: Value, given: dict[str, Value], line: int) -> Value:
    """An object of one of the classes. What it does not get and has no default is decided by the command line."""
    if isinstance(cls, UserClass):
        for name in fields_of(cls):
            default = class_slot(cls, name)
            if name not in given and (default is ABSENT or (isinstance(default, Name) and default.dotted == "*required")):
                given[name] = Unknown(f"the command line decides --{name}", cls.line)
        return machine.call(cls, [], given, line)
    if isinstance(cls, Name):
        if cls.leaf in ("ModelConfig", "ModelArguments") and "model_name_or_path" not in given:
            given["model_name_or_path"] = Unknown("the command line decides --model_name_or_path", line)
        return seen_object(machine, machine.new_object(cls, dict(given), line))
    return unknown_of(cls) or Unknown("", line)


def _from_file(machine: Machine, parser: Box, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    given = positional[0] if positional else next(iter(named.values()), None)
    if name == "parse_dict" and isinstance(given, Box) and is_dict(given) and OPEN not in given.slots:
        settings = dict(given.slots)
        return _made(machine, parser, settings, line)
    if name != "parse_dict" and isinstance(given, str):
        return _made(machine, parser, dict(read_settings(found_file(machine, given)).values), line)
    why = unknown_of(given) or Unknown("the file of its arguments is not known", line)
    return tuple(_object_of_unknown(machine, cls, why) for cls in parser.slots[_CLASSES])


def _object_of_unknown(machine: Machine, cls: Value, why: Unknown) -> Value:
    slots: dict[Any, Value] = {OPEN: why}
    return seen_object(machine, machine.new_object(cls, slots, why.line)) if isinstance(cls, (Name, UserClass)) else why


def parse_class(machine: Machine, target: Value, line: int) -> Value:
    """`tyro.cli(Config)`, `fire.Fire(main)`: the command line as fields of a class, or as arguments of a function."""
    words = machine.start.arguments or ()
    given = {flag.lstrip("-").replace("-", "_"): _from_line(values) for flag, values in _given(words).items() if flag}
    if isinstance(target, Function):
        if isinstance(target.node, ast.Lambda):
            return {}
        names = [argument.arg for argument in (*target.node.args.args, *target.node.args.kwonlyargs)]
        settings = {name: boxed(machine, value, line) for name, value in given.items() if name in names or target.node.args.kwarg}
        for name in names:
            if name not in settings and name not in target.defaults:
                settings[name] = Unknown(f"the command line decides --{name}", line)
        return settings
    return _object(machine, target, {name: boxed(machine, value, line) for name, value in given.items()}, line)
