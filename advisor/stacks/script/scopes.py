"""Scopes of a script: names that are looked up and bound."""

from __future__ import annotations

import ast

from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.values import ABSENT, Box, Unknown, Value, items_of

PARENT = "*parent"
"""Slot of a scope that holds the scope around it."""


def module_of(scope: Box) -> Box:
    """The outermost scope around a scope."""
    while PARENT in scope.slots:
        scope = scope.slots[PARENT]
    return scope


def look_up(scope: Box, name: str) -> Value:
    """What a name stands for; ABSENT where the script does not say."""
    found: Box | None = scope
    while found is not None:
        if name in found.slots:
            return found.slots[name]
        found = found.slots.get(PARENT)
    return ABSENT


def bind(machine: Machine, scope: Box, target: ast.expr, value: Value) -> None:
    """Binds a name, or several in a tuple. Attributes and elements are the statements' own."""
    if isinstance(target, ast.Name):
        machine.write(scope, target.id, value)
    elif isinstance(target, (ast.Tuple, ast.List)):
        for part, item in zip(target.elts, spread(value, len(target.elts), target), strict=True):
            bind(machine, scope, part.value if isinstance(part, ast.Starred) else part, item)


def spread(value: Value, count: int, target: ast.Tuple | ast.List) -> tuple[Value, ...]:
    """The value as `count` parts; with a starred target, or a value of another length, they are unknown."""
    items = items_of(value)
    if items is not None and len(items) == count and not any(isinstance(part, ast.Starred) for part in target.elts):
        return items
    return (unknown_of(value) or Unknown("it is taken apart in a way that is not followed", target.lineno),) * count
