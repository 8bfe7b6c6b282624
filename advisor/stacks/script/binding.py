"""Targets of assignments: names, attributes, elements, and several of them at once."""

from __future__ import annotations

import ast

from advisor.stacks.script.attributes import set_attribute
from advisor.stacks.script.expressions import evaluate
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.scopes import bind, module_of, spread
from advisor.stacks.script.values import ITEMS, OPEN, PLAIN, Box, Name, Unknown, Value, is_dict, is_list, items_of

GLOBALS = "*globals"
"""Slot of a scope: names that are the module's."""


def bind_any(machine: Machine, scope: Box, target: ast.expr, value: Value) -> None:
    """Binds names, attributes and elements."""
    if isinstance(target, ast.Attribute):
        set_attribute(machine, evaluate(machine, scope, target.value), target.attr, value, target.lineno)
    elif isinstance(target, ast.Subscript):
        _set_element(machine, scope, target, value)
    elif isinstance(target, (ast.Tuple, ast.List)):
        for part, item in zip(target.elts, spread(value, len(target.elts), target), strict=True):
            bind_any(machine, scope, part, item)
    elif isinstance(target, ast.Starred):
        bind_any(machine, scope, target.value, value)
    elif isinstance(target, ast.Name) and target.id in scope.slots.get(GLOBALS, ()):
        machine.write(module_of(scope), target.id, value)
    else:
        bind(machine, scope, target, value)


def _set_element(machine: Machine, scope: Box, target: ast.Subscript, value: Value) -> None:
    holder = evaluate(machine, scope, target.value)
    key = Unknown("a slice", target.lineno) if isinstance(target.slice, ast.Slice) else evaluate(machine, scope, target.slice)
    if isinstance(holder, Name) and holder.dotted == "os.environ" and isinstance(key, str):
        if isinstance(value, str):
            machine.environment[key] = value
    elif is_dict(holder):
        if isinstance(key, PLAIN):
            machine.write(holder, key, value)
        else:
            machine.write(holder, OPEN, unknown_of(key) or Unknown("a key is not known", target.lineno))
    elif is_list(holder):
        items = items_of(holder) or ()
        changed: tuple[Value, ...] = (Unknown("an element was set", target.lineno),)
        if isinstance(key, int) and -len(items) <= key < len(items):
            place = key % len(items)
            changed = (*items[:place], value, *items[place + 1 :])
        machine.write(holder, ITEMS, machine.sized(changed, target.lineno))
