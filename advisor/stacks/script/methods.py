"""Methods of texts, lists and dicts on values that are known."""

from __future__ import annotations

import re
from typing import Any

from advisor.stacks.script.builtin import computed, make_dict
from advisor.stacks.script.known import TEXT_METHODS
from advisor.stacks.script.machine import MAX_SIZE, Machine
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.values import ABSENT, ITEMS, OPEN, PLAIN, Box, Unknown, Value, is_dict, is_list, items_of, may_lack, plain

_PLAIN_FORMAT = re.compile(r"^(?:[^{}]|\{\{|\}\}|\{\w*\})*$")


def call_method(machine: Machine, holder: Value, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A method of a text, a list, a tuple or a dict."""
    if isinstance(holder, str):
        return _of_text(machine, holder, name, positional, named, line)
    if is_list(holder):
        return _of_list(machine, holder, name, positional, line)
    if is_dict(holder):
        return _of_dict(machine, holder, name, positional, named, line)
    return unknown_of(holder) or Unknown("", line)


def _of_text(machine: Machine, text: str, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    missing = unknown_of(*positional, *named.values())
    if missing is not None:
        return missing
    if name == "join" and len(positional) == 1:
        items = items_of(positional[0]) or ()
        if not all(isinstance(item, str) for item in items) or sum(len(item) + len(text) for item in items) > MAX_SIZE:
            return unknown_of(*items) or Unknown("", line)
        return machine.sized(text.join(items), line)
    if not all(isinstance(value, PLAIN) or items_of(value) is not None for value in (*positional, *named.values())):
        return Unknown("", line)
    if name == "replace" and len(positional) == 2 and all(isinstance(part, str) for part in positional):
        grown = len(text) + (text.count(positional[0]) if positional[0] else len(text) + 1) * len(positional[1])
        return machine.sized(text.replace(*positional), line) if grown <= MAX_SIZE else Unknown("it is too long to be followed", line)
    if name == "format" and _PLAIN_FORMAT.match(text) and len(text) < MAX_SIZE:
        return computed(machine, lambda: text.format(*map(str, positional), **{key: str(value) for key, value in named.items()}), line)
    if name in TEXT_METHODS:
        arguments = [tuple(plain(value)) if items_of(value) is not None else value for value in positional]
        return computed(machine, lambda: getattr(text, name)(*arguments, **named), line)
    return Unknown("", line)


def _of_list(machine: Machine, holder: Box, name: str, positional: list[Value], line: int) -> Value:
    items = items_of(holder)
    if items is None:
        return unknown_of(holder) or Unknown("", line)
    first = positional[0] if positional else None
    more = items_of(first)
    if name in ("append", "add"):
        changed = (*items, first)
    elif name in ("extend", "update") and more is not None:
        changed = (*items, *more)
    elif name in ("remove", "discard") and isinstance(first, PLAIN):
        changed = tuple(item for item in items if item != first)
    elif name == "insert" and isinstance(first, int) and len(positional) == 2:
        changed = (*items[:first], positional[1], *items[first:])
    elif name == "copy":
        return machine.new_list(items, line)
    elif name == "index" and first in items:
        return items.index(first)
    elif name == "pop" and items and first in (None, 0, -1):
        machine.write(holder, ITEMS, items[1:] if first == 0 else items[:-1])
        return items[0] if first == 0 else items[-1]
    elif name in ("extend", "update", "insert", "pop", "clear", "remove", "discard"):
        changed = (unknown_of(first) or Unknown("the list was changed in a way that is not followed", line),)
    else:
        return None if name in ("sort", "reverse") else Unknown("", line)
    held = machine.sized(changed, line)
    machine.write(holder, ITEMS, (held,) if isinstance(held, Unknown) else held)
    return None


def _of_dict(machine: Machine, holder: Box, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    key = positional[0] if positional else None
    default = positional[1] if len(positional) > 1 else None
    if name in ("get", "pop", "setdefault"):
        if not isinstance(key, PLAIN):
            return unknown_of(key) or Unknown("", line)
        found = holder.slots.get(key, holder.slots.get(OPEN, default))
        if name == "pop":
            machine.write(holder, key, ABSENT)
        elif name == "setdefault":
            machine.write(holder, key, found)
        return found
    if name == "update":
        made = make_dict(machine, positional, named, line)
        for changed, value in made.slots.items():
            machine.write(holder, changed, value)
        return None
    if OPEN in holder.slots or (name != "copy" and may_lack(holder) is not None):
        return holder.slots.get(OPEN, may_lack(holder))
    if name in ("items", "keys", "values"):
        views: dict[str, Any] = {"items": holder.slots.items(), "keys": holder.slots, "values": holder.slots.values()}
        return machine.new_list(views[name], line)
    return machine.new_dict(dict(holder.slots), line) if name == "copy" else Unknown("", line)
