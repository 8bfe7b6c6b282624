"""Functions of Python itself, on values that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from advisor.stacks.script.attributes import attribute, set_attribute
from advisor.stacks.script.defaults import TABLES
from advisor.stacks.script.machine import MAX_SIZE, Machine
from advisor.stacks.script.operators import truth, unknown_of
from advisor.stacks.script.values import (
    ABSENT,
    ITEMS,
    OBJECT,
    OPEN,
    PLAIN,
    Bound,
    Box,
    Name,
    Unknown,
    UserClass,
    Value,
    is_dict,
    is_list,
    items_of,
    library_base,
    members,
)

_NUMBERS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "round": round,
    "abs": abs,
    "str": str,
    "repr": repr,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.log2": math.log2,
    "math.sqrt": math.sqrt,
}
_OVER_ITEMS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "sum": sum, "sorted": sorted}


def call_builtin(machine: Machine, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A function of Python by its name; ABSENT where it is none that is followed."""
    if name in _NUMBERS:
        missing = unknown_of(*positional, *named.values())
        if missing is not None or not all(isinstance(value, PLAIN) for value in positional):
            return missing or Unknown("", line)
        return computed(machine, lambda: _NUMBERS[name](*positional, **named), line)
    if name in _OVER_ITEMS:
        return _over_items(machine, name, positional, named, line)
    if name in _OWN:
        return _OWN[name](machine, positional, named, line)
    return ABSENT


def computed(machine: Machine, compute: Callable[[], Any], line: int) -> Value:
    """What a function of Python makes of known values, as a value; an Unknown where it fails."""
    try:
        result = compute()
    except (TypeError, ValueError, OverflowError, ArithmeticError, LookupError):
        return Unknown("computing it would fail", line)
    if isinstance(result, list):
        return machine.new_list(result, line)
    return machine.sized(result, line) if isinstance(result, (*PLAIN, tuple)) else Unknown("", line)


def _over_items(machine: Machine, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    items = items_of(positional[0]) if len(positional) == 1 else tuple(positional)
    if items is None or named or unknown_of(*items) is not None or not all(isinstance(item, PLAIN) for item in items):
        return unknown_of(*positional, *(items or ())) or Unknown("", line)
    return computed(machine, lambda: _OVER_ITEMS[name](items), line)


def _length(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    items = members(positional[0]) if positional else None
    return len(items) if items is not None else unknown_of(*positional) or Unknown("", line)


def _bool(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return truth(positional[0]) if positional else False


def _list(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    whole = positional[0] if positional else ()
    items = members(whole)
    if isinstance(whole, Box) and whole.kind == OBJECT:
        return whole  # the parameters of a model
    return machine.new_list(items, line) if items is not None else unknown_of(whole) or Unknown("", line)


def _tuple(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    found: Value = _list(machine, positional, named, line)
    return found.slots[ITEMS] if is_list(found) else found


def make_dict(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Box:
    """`dict(mapping, name=value)`."""
    slots: dict[Any, Value] = {}
    for whole in positional:
        pairs = items_of(whole)
        if is_dict(whole):
            slots.update(whole.slots)
        elif pairs is not None and all(len(items_of(pair) or ()) == 2 for pair in pairs):
            slots.update({key: value for key, value in map(items_of, pairs) if isinstance(key, PLAIN)})  # type: ignore[misc]
        else:
            slots[OPEN] = unknown_of(whole) or Unknown("what it holds is not known", line)
    return machine.new_dict(slots | named, line)


def _range(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    if not all(isinstance(value, int) for value in positional) or not 1 <= len(positional) <= 3 or 0 in positional[2:]:
        return unknown_of(*positional) or Unknown("", line)
    numbers = range(*positional)
    return machine.new_list(numbers, line) if len(numbers) <= MAX_SIZE else Unknown("it is too long to be followed", line)


def _enumerate(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    items = items_of(positional[0]) if positional else None
    return machine.new_list(enumerate(items), line) if items is not None else unknown_of(*positional) or Unknown("", line)


def _zip(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    columns = [items_of(value) for value in positional]
    known = [column for column in columns if column is not None]
    return machine.new_list(zip(*known, strict=False), line) if len(known) == len(columns) else unknown_of(*positional) or Unknown("", line)


def _any(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return _decided(positional, True, line)


def _all(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return _decided(positional, False, line)


def _decided(positional: list[Value], by: bool, line: int) -> Value:
    items = items_of(positional[0]) if positional else None
    if items is None:
        return unknown_of(*positional) or Unknown("", line)
    found = [truth(item) for item in items]
    return by if by in found else unknown_of(*found) or not by


def _getattr(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    holder, name, *default = (*positional, None, None)[: max(2, len(positional))]
    if not isinstance(name, str):
        return unknown_of(holder, name) or Unknown("", line)
    found = attribute(machine, holder, name, line)
    nothing = isinstance(found, Bound) and found.function is None and isinstance(holder, Box) and OPEN not in holder.slots
    own = (nothing and holder.made_by in ("Namespace", "SimpleNamespace")) or (nothing and not isinstance(holder.of, Name))
    return default[0] if own and default else found


def _hasattr(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    if len(positional) != 2 or not isinstance(positional[0], Box) or not isinstance(positional[1], str):
        return unknown_of(*positional) or Unknown("", line)
    found = attribute(machine, positional[0], positional[1], line)
    return Unknown("", line) if isinstance(found, (Bound, Unknown)) else True


def _setattr(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    if len(positional) == 3 and isinstance(positional[1], str):
        set_attribute(machine, positional[0], positional[1], positional[2], line)
    elif positional and isinstance(positional[0], Box):
        machine.write(positional[0], OPEN, Unknown("it is set under a name that is not known", line))
    return None


def _isinstance(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    kinds = {"str": str, "int": int, "float": (int, float), "bool": bool}
    if len(positional) == 2 and isinstance(positional[0], PLAIN) and isinstance(positional[1], Name) and positional[1].dotted in kinds:
        return isinstance(positional[0], kinds[positional[1].dotted])  # type: ignore[arg-type]
    if len(positional) == 2 and is_list(positional[0]) and isinstance(positional[1], Name):
        return positional[1].dotted in ("list", "typing.List")
    return Unknown("", line)


def _vars(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    holder = positional[0] if positional else None
    if not isinstance(holder, Box) or holder.kind != OBJECT:
        return Unknown("", line)
    kind = library_base(holder.of) if isinstance(holder.of, UserClass) else holder.of
    return machine.new_dict({**TABLES.get(kind.leaf if isinstance(kind, Name) else "", {}), **holder.slots}, line)


def _nothing(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return None


def _eval(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    return Unknown("it is computed by eval", line)


_OWN: dict[str, Callable[[Machine, list[Value], dict[str, Value], int], Value]] = {
    "len": _length,
    "bool": _bool,
    "list": _list,
    "set": _list,
    "frozenset": _list,
    "tuple": _tuple,
    "dict": make_dict,
    "OrderedDict": make_dict,
    "range": _range,
    "enumerate": _enumerate,
    "zip": _zip,
    "any": _any,
    "all": _all,
    "getattr": _getattr,
    "hasattr": _hasattr,
    "setattr": _setattr,
    "isinstance": _isinstance,
    "vars": _vars,
    "asdict": _vars,
    "print": _nothing,
    "eval": _eval,
    "exec": _eval,
}
