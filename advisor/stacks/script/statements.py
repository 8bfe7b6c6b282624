"""Statements of a script, followed in order. A condition that is not known is followed both ways, and what differs is unknown."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from advisor.stacks.script.binding import GLOBALS, bind_any
from advisor.stacks.script.definitions import define_class, define_function, import_module, import_names
from advisor.stacks.script.expressions import evaluate
from advisor.stacks.script.flow import BREAK, CONTINUE, RAISE, Flow, Mixed, Return, combine, parts_of
from advisor.stacks.script.loops import branches, follow_for, follow_match, follow_while
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import binary, truth
from advisor.stacks.script.values import ABSENT, ITEMS, PLAIN, Box, Unknown, is_dict, is_list

_ENDS = ("sys.exit", "exit", "quit", "os._exit")


def run(machine: Machine, scope: Box, body: list[ast.stmt]) -> Flow:
    """Follows the statements of a block."""
    for number, node in enumerate(body):
        machine.step(node.lineno)
        after = body[number + 1 :]
        if isinstance(node, ast.If) and after and _leaves(node):
            return _if(machine, scope, node, after)
        runner = _RUNNERS.get(type(node))
        flow = None if runner is None else runner(machine, scope, node)
        if isinstance(flow, Mixed) and None in flow.parts and after:
            return _after(machine, scope, flow, after)
        if flow is not None:
            return flow
    return None


def _leaves(node: ast.If) -> bool:
    """One of the branches certainly leaves the block: what follows belongs to the other alone."""
    return any(branch and isinstance(branch[-1], (ast.Return, ast.Break, ast.Continue)) for branch in (node.body, node.orelse))


def _after(machine: Machine, scope: Box, flow: Mixed, after: list[ast.stmt]) -> Flow:
    """Follows the rest of a block that may have been left before."""
    why = Unknown("it depends on whether the block was left before", after[0].lineno)
    followed = branches(machine, scope, [after, []], why, "an earlier condition")
    return combine(machine, (*(part for part in flow.parts if part is not None), followed), why)


def _if(machine: Machine, scope: Box, node: ast.If, after: list[ast.stmt] | None = None) -> Flow:
    """Follows the branch that runs, with the statements after it where they are handed over; else both."""
    rest = after or []
    test = truth(evaluate(machine, scope, node.test))
    if not isinstance(test, Unknown):
        return run(machine, scope, [*(node.body if test else node.orelse), *rest])
    text = ast.unparse(node.test)
    why = Unknown(f"it depends on {text[:60]}, and {test.why}", node.lineno)
    return branches(machine, scope, [[*node.body, *rest], [*node.orelse, *rest]], why, text[:200])


def _try(machine: Machine, scope: Box, node: ast.Try) -> Flow:
    """The body as if it went well, then each handler as if it had not: what a handler would change is unknown."""
    flow = run(machine, scope, node.body)
    for handler in node.handlers:
        if handler.name:
            machine.write(scope, handler.name, Unknown("an exception", handler.lineno))
        if flow == RAISE:
            flow = run(machine, scope, handler.body)
            break
        why = Unknown("it depends on whether what is tried goes well", handler.lineno)
        handled = branches(machine, scope, [handler.body, []], why, "an exception")
        flow = combine(machine, (flow, *(part for part in parts_of(handled) if part is not None)), why)
    if flow is None:
        flow = run(machine, scope, node.orelse)
    return run(machine, scope, node.finalbody) or flow


def _with(machine: Machine, scope: Box, node: ast.With | ast.AsyncWith) -> Flow:
    for item in node.items:
        value = evaluate(machine, scope, item.context_expr)
        if item.optional_vars is not None:
            bind_any(machine, scope, item.optional_vars, value)
    return run(machine, scope, node.body)


def _assign(machine: Machine, scope: Box, node: ast.Assign) -> Flow:
    value = evaluate(machine, scope, node.value)
    for target in node.targets:
        bind_any(machine, scope, target, value)
    return None


def _annotated(machine: Machine, scope: Box, node: ast.AnnAssign) -> Flow:
    if node.value is not None:
        bind_any(machine, scope, node.target, evaluate(machine, scope, node.value))
    return None


def _augmented(machine: Machine, scope: Box, node: ast.AugAssign) -> Flow:
    before = evaluate(machine, scope, node.target)
    after = binary(machine, node.op, before, evaluate(machine, scope, node.value), node.lineno)
    if is_list(before) and is_list(after):
        machine.write(before, ITEMS, after.slots[ITEMS])
        return None
    bind_any(machine, scope, node.target, after)
    return None


def _global(machine: Machine, scope: Box, node: ast.Global | ast.Nonlocal) -> Flow:
    machine.write(scope, GLOBALS, (*scope.slots.get(GLOBALS, ()), *node.names))
    return None


def _expression(machine: Machine, scope: Box, node: ast.Expr) -> Flow:
    evaluate(machine, scope, node.value)
    call = node.value
    return RAISE if isinstance(call, ast.Call) and ast.unparse(call.func) in _ENDS and machine.conditions else None


def _return(machine: Machine, scope: Box, node: ast.Return) -> Flow:
    return Return(None if node.value is None else evaluate(machine, scope, node.value))


def _delete(machine: Machine, scope: Box, node: ast.Delete) -> Flow:
    for target in node.targets:
        if isinstance(target, ast.Name):
            machine.write(scope, target.id, ABSENT)
        elif isinstance(target, ast.Subscript):
            holder, key = evaluate(machine, scope, target.value), evaluate(machine, scope, target.slice)
            if is_dict(holder) and isinstance(key, PLAIN):
                machine.write(holder, key, ABSENT)
    return None


def _raise(machine: Machine, scope: Box, node: ast.Raise) -> Flow:
    """Ends a path that may not be taken. Where it certainly is, the script is read on: what it complains of is its arguments."""
    return RAISE if machine.conditions else None


_RUNNERS: dict[type[ast.stmt], Callable[[Machine, Box, Any], Flow]] = {
    ast.If: _if,
    ast.Match: follow_match,
    ast.For: follow_for,
    ast.AsyncFor: follow_for,
    ast.While: follow_while,
    ast.Try: _try,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Expr: _expression,
    ast.Return: _return,
    ast.FunctionDef: define_function,
    ast.AsyncFunctionDef: define_function,
    ast.ClassDef: define_class,
    ast.Import: import_module,
    ast.ImportFrom: import_names,
    ast.Global: _global,
    ast.Nonlocal: _global,
    ast.Delete: _delete,
    ast.Raise: _raise,
    ast.Break: lambda machine, scope, node: BREAK,
    ast.Continue: lambda machine, scope, node: CONTINUE,
}
