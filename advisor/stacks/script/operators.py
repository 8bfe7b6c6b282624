"""Operators of Python on values that are known, with bounds: what would be too large, or would fail, is unknown."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from advisor.stacks.script.machine import MAX_SIZE, Machine
from advisor.stacks.script.values import (
    DICT,
    ITEMS,
    OBJECT,
    OPEN,
    PLAIN,
    Bound,
    Box,
    Either,
    Name,
    Unknown,
    Value,
    is_dict,
    is_list,
    is_pair,
    items_of,
    may_lack,
    same,
)

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_DROPPED = ("evaluation_strategy", "tokenizer", "max_seq_length", "no_cuda", "torch_dtype")
"""Parameters that transformers 5 and trl 1 have no longer, for scripts that ask `inspect.signature` what there is."""
_LARGEST = 10**30
"""Judgement: no count of a training comes near it; it bounds powers and products."""


def unknown_of(*values: Value) -> Unknown | None:
    """The first of them that is not known."""
    for value in values:
        if isinstance(value, Unknown):
            return value
        if isinstance(value, Bound) and value.function is None:
            return Unknown(f".{value.name} of it is not known", value.line)
        if is_list(value) and isinstance(value.slots[ITEMS], Unknown):
            why: Unknown = value.slots[ITEMS]
            return why
        if isinstance(value, Either):
            return value.why
        if isinstance(value, Name) and not value.is_value:
            return Unknown(f"{value.dotted} is not in the script", 0)
    return None


def truth(value: Value) -> bool | Unknown:
    """Whether a value counts as true."""
    missing = unknown_of(value)
    if missing is not None:
        return missing
    items = items_of(value)
    if items is not None:
        return bool(items)
    if isinstance(value, Box) and value.kind == DICT:
        if OPEN in value.slots:
            return value.slots[OPEN] if len(value.slots) == 1 else True
        certain = [held for held in value.slots.values() if not (isinstance(held, Unknown) and held.absent)]
        return bool(certain) or may_lack(value) or False
    return bool(value) if isinstance(value, PLAIN) else True


def binary(machine: Machine, kind: ast.operator, left: Value, right: Value, line: int) -> Value:
    """`left kind right`."""
    missing = unknown_of(left, right)
    if missing is not None:
        return missing
    first, second = items_of(left), items_of(right)
    if isinstance(kind, ast.Add) and first is not None and second is not None:
        return machine.new_list(first + second, line) if is_list(left) else machine.sized(first + second, line)
    if isinstance(kind, ast.BitOr) and is_dict(left) and is_dict(right):
        return machine.new_dict({**left.slots, **right.slots}, line)
    if isinstance(kind, ast.Mult) and first is not None and isinstance(right, int):
        return _repeated(machine, left, first, right, line)
    if isinstance(kind, ast.Div) and isinstance(left, str) and isinstance(right, str):
        return machine.sized(f"{left}/{right}", line)  # paths are held as texts
    return _number(machine, kind, left, right, line)


def _repeated(machine: Machine, whole: Value, items: tuple[Value, ...], times: int, line: int) -> Value:
    if len(items) * max(times, 0) > MAX_SIZE:
        return Unknown("it is too long to be followed", line)
    return machine.new_list(items * times, line) if is_list(whole) else machine.sized(items * times, line)


def _number(machine: Machine, kind: ast.operator, left: Value, right: Value, line: int) -> Value:
    if not isinstance(left, (bool, int, float, str)) or not isinstance(right, (bool, int, float, str)):
        return Unknown("it is computed from what the text does not say", line)
    compute: Callable[[Any, Any], Any]
    if isinstance(kind, ast.Pow):
        small = isinstance(left, (int, float)) and isinstance(right, (int, float)) and abs(left) <= 10**6 and abs(right) <= 64
        if not small:
            return Unknown("it is too large to be followed", line)
        compute = operator.pow
    elif isinstance(kind, ast.BitOr):
        compute = operator.or_
    elif isinstance(kind, ast.Mod) and isinstance(left, str):
        if not _plain_percent(left):
            return Unknown("it is a text put together with %", line)
        compute = operator.mod
    elif isinstance(kind, ast.Mult) and (isinstance(left, str) or isinstance(right, str)):
        text, times = (left, right) if isinstance(left, str) else (right, left)
        if not isinstance(times, int) or len(str(text)) * max(times, 0) > MAX_SIZE:
            return Unknown("it is too long to be followed", line)
        compute = operator.mul
    elif type(kind) in _ARITHMETIC:
        compute = _ARITHMETIC[type(kind)]
    else:
        return Unknown("it is computed with an operator that is not followed", line)
    return _computed(machine, compute, left, right, line)


def _computed(machine: Machine, compute: Callable[[Any, Any], Any], left: Value, right: Value, line: int) -> Value:
    try:
        result = compute(left, right)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return Unknown("computing it would fail", line)
    if isinstance(result, complex) or (isinstance(result, (int, float)) and not -_LARGEST < result < _LARGEST):
        return Unknown("it is too large to be followed", line)
    return machine.sized(result, line)


def _plain_percent(template: str) -> bool:
    """Only %s, %d and %%: widths could make texts of any length."""
    rest = template.replace("%%", "").replace("%s", "").replace("%d", "").replace("%i", "")
    return "%" not in rest


def unary(kind: ast.unaryop, value: Value, line: int) -> Value:
    if isinstance(value, Unknown):
        return value
    if isinstance(kind, ast.Not):
        found = truth(value)
        return found if isinstance(found, Unknown) else not found
    if isinstance(value, (int, float)):
        return -value if isinstance(kind, ast.USub) else +value if isinstance(kind, ast.UAdd) else ~int(value)
    return Unknown("it is computed from what the text does not say", line)


def compare(kind: ast.cmpop, left: Value, right: Value, line: int) -> Value:
    """`left kind right` as True or False, or why that is not known."""
    missing = unknown_of(left, right)
    if isinstance(kind, (ast.Is, ast.IsNot)) and missing is None and (left is None or right is None):
        return (left is right) == isinstance(kind, ast.Is)
    if missing is not None:
        return missing
    if isinstance(kind, (ast.Eq, ast.Is)):
        return _equal(left, right, line)
    if isinstance(kind, (ast.NotEq, ast.IsNot)):
        found = _equal(left, right, line)
        return found if isinstance(found, Unknown) else not found
    if isinstance(kind, (ast.In, ast.NotIn)):
        found = _contains(right, left, line)
        return found if isinstance(found, Unknown) else found == isinstance(kind, ast.In)
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if numbers or (isinstance(left, str) and isinstance(right, str)) or (is_pair(left) and is_pair(right)):
        try:
            return bool(_ORDER[type(kind)](left, right))
        except TypeError:
            return Unknown("the comparison is not known", line)
    return Unknown("the comparison is not known", line)


def _equal(left: Value, right: Value, line: int) -> bool | Unknown:
    if isinstance(left, (bool, int, float)) and isinstance(right, (bool, int, float)):
        return left == right
    if same(left, right):
        return True
    for value in (left, right):
        if isinstance(value, Box) and (value.kind == OBJECT or OPEN in value.slots):
            return False if left is None or right is None else Unknown("the comparison is not known", line)
    if isinstance(left, Name) != isinstance(right, Name) and isinstance(left, (str, Name)) and isinstance(right, (str, Name)):
        return Unknown("the comparison is not known", line)
    inside = (*(items_of(left) or ()), *(items_of(right) or ()))
    return unknown_of(*inside) or False


def _contains(whole: Value, part: Value, line: int) -> bool | Unknown:
    if isinstance(whole, str):
        return part in whole if isinstance(part, str) else Unknown("the comparison is not known", line)
    items = items_of(whole)
    if items is not None:
        return any(same(part, item) for item in items) or unknown_of(*items) or False
    if isinstance(whole, Box) and whole.made_by == "signature":
        return part not in _DROPPED
    if is_dict(whole) and isinstance(part, (str, int)):
        held = whole.slots.get(part)
        if isinstance(held, Unknown) and held.absent:
            return held
        return part in whole.slots or whole.slots.get(OPEN) or False
    return Unknown("what it holds is not known", line)


def element(machine: Machine, whole: Value, key: Value, line: int) -> Value:
    """`whole[key]`."""
    missing = unknown_of(whole, key)
    if missing is not None:
        return missing
    items = items_of(whole)
    sequence = whole if isinstance(whole, str) else items
    if sequence is not None:
        if isinstance(key, slice):
            part = sequence[key]
            return machine.new_list(part, line) if is_list(whole) else machine.sized(part, line)
        if isinstance(key, int) and -len(sequence) <= key < len(sequence):
            return sequence[key]
        return Unknown("no such element", line)
    if is_dict(whole):
        if isinstance(key, (str, int, float, bool, type(None))):
            return whole.slots.get(key, whole.slots.get(OPEN, Unknown(f"there is no {str(key)[:40]!r} in it", line)))
        return Unknown("its key is not known", line)
    return Unknown("it is an element of what the text does not say", line)


def formatted(value: Value, conversion: int, spec: str) -> str | None:
    """A part of an f-string; None where the text is not known."""
    if isinstance(value, Name) and not spec:
        return value.dotted
    if not isinstance(value, (str, bool, int, float, type(None))) or sum(map(str.isdigit, spec)) > 2:
        return None
    shown = repr(value) if conversion == ord("r") else value
    try:
        return format(shown, spec)
    except (ValueError, TypeError):
        return None
