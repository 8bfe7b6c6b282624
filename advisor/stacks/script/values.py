"""What the evaluator of scripts computes with: plain Python values, names of libraries, boxes that can change, and the unknown."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple, TypeGuard

Value = Any
"""None, bool, int, float, str and tuple as they are; everything else is one of the classes below."""

PLAIN = (type(None), bool, int, float, str)


class Unknown(NamedTuple):
    """A value that the text alone does not say, why, and at which line."""

    why: str
    line: int
    absent: bool = False
    """There may be nothing under its key."""


class Name(NamedTuple):
    """Something of a library by its dotted name, such as `torch.bfloat16`."""

    dotted: str

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.dotted.rpartition(".")[2]

    @property
    def library(self) -> str:
        """The first part of the name; empty for what the script did not import."""
        return self.dotted.partition(".")[0] if "." in self.dotted else ""

    @property
    def is_value(self) -> bool:
        """A constant of one of the libraries that scripts train with, and nothing that the script's author wrote elsewhere."""
        return self.dotted.partition(".")[0] in LIBRARIES


LIBRARIES = frozenset(["torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "accelerate", "datasets"])
"""Libraries whose names mean the same in every script."""


class Absent:
    """A slot that holds nothing."""


ABSENT = Absent()

SCOPE, DICT, LIST, OBJECT = "scope", "dict", "list", "object"
ITEMS = "*items"
"""Slot of a list that holds its elements as a tuple, or why they are not known."""
OPEN = "*open"
"""Slot of a mapping or call that may hold more than is known; its value says why."""


class Box:
    """What can change: a scope, a dict, a list or an object. `of` is what made an object."""

    __slots__ = ("kind", "line", "of", "serial", "slots")

    def __init__(self, kind: str, of: Value, slots: dict[Any, Value], serial: int, line: int) -> None:
        self.kind, self.of, self.slots, self.serial, self.line = kind, of, slots, serial, line

    @property
    def made_by(self) -> str:
        """Last part of the name of the class or function that made an object; empty for others."""
        return self.of.leaf if isinstance(self.of, Name) else self.of.name if isinstance(self.of, UserClass) else ""

    def get(self, key: Any, default: Value = None) -> Value:
        return self.slots.get(key, default)


class Function(NamedTuple):
    """A function or lambda of the script, with the scope that it sees and its defaults by parameter."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Box
    defaults: dict[str, Value]
    cls: Value = None
    """The class that it is a method of."""


class Either(NamedTuple):
    """One of several functions of the script, and why it is not known which."""

    functions: tuple[Function, ...]
    why: Unknown


class UserClass(NamedTuple):
    """A class of the script: its bases, what stands in it, and the names of its annotated fields in order."""

    name: str
    bases: tuple[Value, ...]
    slots: Box
    fields: tuple[str, ...]
    annotations: dict[str, str]
    is_dataclass: bool
    line: int


class Bound(NamedTuple):
    """An attribute that is a method, or that is not known: calling it may still say something."""

    holder: Value
    name: str
    line: int
    function: Function | None = None


def library_base(cls: UserClass) -> Name | None:
    """The first class of a library that a class of the script descends from."""
    for base in cls.bases:
        found = base if isinstance(base, Name) else library_base(base) if isinstance(base, UserClass) else None
        if found is not None:
            return found
    return None


def class_slot(cls: UserClass, name: str) -> Value:
    """What a class or its bases hold under a name; ABSENT where none does."""
    if name in cls.slots.slots:
        return cls.slots.slots[name]
    for base in cls.bases:
        found = class_slot(base, name) if isinstance(base, UserClass) else ABSENT
        if found is not ABSENT:
            return found
    return ABSENT


def fields_of(cls: UserClass) -> dict[str, str]:
    """Annotated fields of a class and its bases in the order of a dataclass, with their annotations as text."""
    found: dict[str, str] = {}
    for base in reversed(cls.bases):
        if isinstance(base, UserClass):
            found |= fields_of(base)
    return found | {name: cls.annotations.get(name, "") for name in cls.fields}


def is_list(value: Value) -> TypeGuard[Box]:
    return isinstance(value, Box) and value.kind == LIST


def is_dict(value: Value) -> TypeGuard[Box]:
    return isinstance(value, Box) and value.kind == DICT


def items_of(value: Value) -> tuple[Value, ...] | None:
    """Elements of a list or tuple; None for anything else, and for a list that is not known."""
    if isinstance(value, tuple) and not isinstance(value, (Unknown, Name, Function, Either, UserClass, Bound)):
        return value
    held = value.slots[ITEMS] if is_list(value) else None
    return None if held is None or isinstance(held, Unknown) else held


def may_lack(holder: Box) -> Unknown | None:
    """A slot of a dict that may not be there."""
    return next((value for value in holder.slots.values() if isinstance(value, Unknown) and value.absent), None)


def members(value: Value) -> tuple[Value, ...] | None:
    """What going through a value gives: elements, characters or keys; None where that is not known."""
    if is_dict(value):
        return None if OPEN in value.slots or may_lack(value) is not None else tuple(value.slots)
    return tuple(value) if isinstance(value, str) else items_of(value)


def is_pair(value: Value) -> bool:
    """A tuple of the script, and none of the classes here that are tuples too."""
    return items_of(value) is not None and not isinstance(value, Box)


def same(left: Value, right: Value, depth: int = 0) -> bool:
    """Whether two values are certainly equal."""
    if left is right:
        return True
    if type(left) is not type(right) or depth > MAX_DEPTH:
        return False
    if isinstance(left, Function):
        return left.node is right.node and left.scope is right.scope
    if isinstance(left, Box):
        return (
            left.kind == right.kind
            and left.of == right.of
            and left.slots.keys() == right.slots.keys()
            and all(same(value, right.slots[key], depth + 1) for key, value in left.slots.items())
        )
    if is_pair(left):
        return len(left) == len(right) and all(same(a, b, depth + 1) for a, b in zip(left, right, strict=True))
    return bool(left == right) if isinstance(left, (*PLAIN, Name)) else False


MAX_DEPTH = 8
"""How deep values are compared and copied. Judgement: arguments nest three or four levels."""


def plain(value: Value, depth: int = 0) -> Value:
    """The value as lists, dicts and texts, as a reader of settings takes it; an Unknown where a part is not known."""
    if isinstance(value, (Unknown, *PLAIN)):
        return value
    if depth > MAX_DEPTH:
        return Unknown("it nests too deeply", 0)
    items = items_of(value)
    if items is not None:
        return _whole([plain(item, depth + 1) for item in items])
    if isinstance(value, Name):
        return _spelled(value) if value.is_value else Unknown(f"{value.dotted} is not in the script", 0)
    if isinstance(value, Bound):
        return Unknown(f".{value.name} of it is not known", value.line)
    if is_list(value):
        return value.slots[ITEMS]
    if isinstance(value, Box) and value.kind != SCOPE:
        if OPEN in value.slots:
            return value.slots[OPEN]
        return {str(key): plain(inner, depth + 1) for key, inner in value.slots.items()}
    return Unknown("it is no plain value", getattr(value, "line", 0))


def _spelled(name: Name) -> str:
    """A type of torch by its name, a member of transformers' enumerations by its value: `IntervalStrategy.STEPS` is `steps`."""
    *_, holder, leaf = ("", *name.dotted.split("."))
    return leaf.lower() if holder in ("IntervalStrategy", "SaveStrategy", "OptimizerNames", "SchedulerType") else name.dotted


def _whole(parts: list[Value]) -> Value:
    return next((part for part in parts if isinstance(part, Unknown)), parts)
