"""Calls of the script's own functions and classes."""

from __future__ import annotations

import ast
from typing import Any

from advisor.stacks.script.expressions import evaluate
from advisor.stacks.script.flow import value_of
from advisor.stacks.script.machine import MAX_CALLS, Machine
from advisor.stacks.script.scopes import PARENT
from advisor.stacks.script.sightings import PLACES, is_arguments, is_trainer, seen_object
from advisor.stacks.script.values import (
    ABSENT,
    OPEN,
    SCOPE,
    Box,
    Function,
    Name,
    Unknown,
    UserClass,
    Value,
    class_slot,
    fields_of,
    library_base,
    same,
)

REQUIRED = Name("*required")
"""Default of a field that has none."""
_ALL_LINEAR = "all-linear"


def call_function(machine: Machine, function: Function, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """What a function of the script hands back."""
    if machine.depth >= MAX_CALLS:
        return Unknown(f"{function.name}() calls itself too deeply to be followed", line)
    scope = machine.box(SCOPE, None, {PARENT: function.scope})
    scope.slots.update(_bound(machine, function, positional, named, line))
    machine.depth += 1
    try:
        if isinstance(function.node, ast.Lambda):
            return evaluate(machine, scope, function.node.body)
        flow = machine.run(scope, function.node.body)
    finally:
        machine.depth -= 1
    result = value_of(machine, flow, Unknown(f"{function.name}() hands back one of several values", line))
    return _linear_names(machine, function, result, line)


def _linear_names(machine: Machine, function: Function, result: Value, line: int) -> Value:
    """A helper that lists the model's linear layers, as QLoRA's script brought it up: what it finds is every linear layer."""
    lists = not isinstance(function.node, ast.Lambda) and "linear" in function.name.lower() and isinstance(result, (Unknown, Box))
    if lists and any(getattr(node, "attr", "") == "named_modules" for node in ast.walk(function.node)):
        machine.seen.taken.append(f"{function.name}() (line {line}) lists the model's linear layers: taken as all-linear")
        return _ALL_LINEAR
    return result


def _bound(machine: Machine, function: Function, positional: list[Value], named: dict[str, Value], line: int) -> dict[str, Value]:
    """Parameters by name. One that is not given and has no default is unknown."""
    described = function.node.args
    names = [argument.arg for argument in (*described.posonlyargs, *described.args)]
    bound = dict(zip(names, positional, strict=False))
    rest = dict(named)
    for name in (*names, *(argument.arg for argument in described.kwonlyargs)):
        if name in rest:
            bound[name] = rest.pop(name)
        elif name not in bound:
            missing = rest.get(OPEN) or Unknown(f"{function.name}() is not given {name}", line)
            bound[name] = missing if OPEN in rest else function.defaults.get(name, missing)
    if described.vararg is not None:
        bound[described.vararg.arg] = tuple(positional[len(names) :])
    if described.kwarg is not None:
        bound[described.kwarg.arg] = machine.new_dict(rest, line)
    return bound


def instantiate(machine: Machine, cls: UserClass, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """An object of a class of the script."""
    base = library_base(cls)
    box = machine.new_object(cls, {}, line)
    if base is not None and is_trainer(base):
        return seen_object(machine, machine.new_object(cls, _named_slots(base, positional, named), line))
    start = class_slot(cls, "__init__")
    if isinstance(start, Function):
        call_function(machine, start, [box, *positional], named, line)
        return box
    given = dict(zip(fields_of(cls), positional, strict=False)) | named
    for name in fields_of(cls):
        if name not in given and (cls.is_dataclass or base is not None):
            default = class_slot(cls, name)
            given[name] = Unknown(f"{cls.name}.{name} is not given", line) if default is ABSENT or same(default, REQUIRED) else default
    if base is not None and not is_arguments(base):
        given |= {str(place): value for place, value in enumerate(positional)} if not fields_of(cls) else {}
    for name, value in given.items():
        machine.write(box, name, value)
    after = class_slot(cls, "__post_init__")
    if isinstance(after, Function):
        call_function(machine, after, [box], {}, line)
    return seen_object(machine, box)


def _named_slots(base: Name, positional: list[Value], named: dict[str, Value]) -> dict[Any, Value]:
    places = PLACES.get(base.leaf, PLACES["Trainer"])
    given: dict[Any, Value] = dict(zip(places, positional, strict=False))
    return given | named
