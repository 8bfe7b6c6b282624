"""Follows a whole script and hands back what was seen of models, arguments and trainers."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

from advisor.errors import UnsupportedError
from advisor.stacks.script.functions import call_function, instantiate
from advisor.stacks.script.library import call_bound, call_name, note_length, try_functions
from advisor.stacks.script.machine import Machine, Seen, Start
from advisor.stacks.script.methods import call_method
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.parsers import parse_class
from advisor.stacks.script.statements import run
from advisor.stacks.script.values import OBJECT, SCOPE, Bound, Box, Either, Function, Name, Unknown, UserClass, Value


def follow(tree: ast.Module, start: Start, folder: str) -> tuple[Seen, Box]:
    """What is seen when the script is followed from its top, and the module's names.

    Where nothing is trained from the top, functions that were not called are followed with unknown arguments: another file calls them.
    Raises UnsupportedError when the script is too long to be followed.
    """
    machine = Machine(start, folder)
    called: set[str] = set()

    def call(target: Value, positional: list[Value], named: dict[str, Value], line: int) -> Value:
        if isinstance(target, Function):
            called.add(target.name)
        return _call(machine, target, positional, named, line)

    machine.call = call
    machine.run = lambda scope, body: run(machine, scope, body)
    module = machine.box(SCOPE, None, {"__name__": "__main__", "__file__": "script.py"})
    try:
        run(machine, module, tree.body)
        for value in _entries(tree, module):
            if machine.seen.trainers or machine.seen.arguments:
                break
            if value.name not in called:
                given = parse_class(machine, value, value.node.lineno)
                call(value, [], given if isinstance(given, dict) else {}, value.node.lineno)
    except RecursionError:
        raise UnsupportedError("the script nests too deeply to be followed") from None
    return machine.seen, module


def _entries(tree: ast.Module, module: Box) -> list[Function]:
    """Functions of the module, first those that no other function of it names."""
    functions = [value for value in module.slots.values() if isinstance(value, Function)]
    named = {
        node.id
        for body in tree.body
        for node in ast.walk(body)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != getattr(body, "name", "")
    }
    return sorted(functions, key=lambda function: function.name in named)


def _call(machine: Machine, target: Value, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """What a call comes to."""
    if isinstance(target, Function):
        return call_function(machine, target, positional, named, line)
    if isinstance(target, Either):
        calls: list[Callable[[], Value]] = [
            partial(call_function, machine, function, positional, named, line) for function in target.functions
        ]
        results = machine.try_each(calls, target.why, "one of several functions", lambda _: True)
        joined = results[0]
        for result in results[1:]:
            joined = machine.join(joined, result, target.why)
        return joined
    if isinstance(target, UserClass):
        return instantiate(machine, target, positional, named, line)
    if isinstance(target, Name):
        return call_name(machine, target, positional, named, line)
    if isinstance(target, Bound):
        return _call_bound(machine, target, positional, named, line)
    note_length(machine, named, line)
    try_functions(machine, (*positional, *named.values()), line)
    return unknown_of(target) or Unknown("", line)


def _call_bound(machine: Machine, target: Bound, positional: list[Value], named: dict[str, Any], line: int) -> Value:
    holder = target.holder
    if target.function is not None:
        return call_function(machine, target.function, [holder, *positional], named, line)
    if isinstance(holder, Function):  # modal's train.remote(...), ray's, a task queue's
        called = target.name in ("remote", "local", "delay", "spawn", "main")
        return call_function(machine, holder, positional, named, line) if called else None
    if isinstance(holder, (Name, UserClass)) or (isinstance(holder, Box) and holder.kind == OBJECT):
        return call_bound(machine, holder, target.name, positional, named, line)
    return call_method(machine, holder, target.name, positional, named, line)
