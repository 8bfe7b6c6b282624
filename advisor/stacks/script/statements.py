"""Statements of a script, followed in order. A condition that is not known is followed both ways, and what differs is unknown."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from advisor.stacks.script.attributes import PARAMETERS, set_attribute
from advisor.stacks.script.definitions import define_class, define_function, import_module, import_names
from advisor.stacks.script.expressions import evaluate
from advisor.stacks.script.functions import Return, Stop
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import binary, truth, unknown_of
from advisor.stacks.script.scopes import bind, module_of, spread
from advisor.stacks.script.values import (
    ABSENT,
    ITEMS,
    OPEN,
    PLAIN,
    Box,
    Name,
    Unknown,
    Value,
    is_dict,
    is_list,
    members,
)

Flow = Return | Stop | None
"""How a block ended; None where it ran to its end."""
MAX_ROUNDS = 2_000
"""Passes of one loop. Judgement: loops that set up a training are short."""
_ENDS = ("sys.exit", "exit", "quit", "os._exit")


def run(machine: Machine, scope: Box, body: list[ast.stmt]) -> Flow:
    """Follows the statements of a block."""
    for node in body:
        machine.step(node.lineno)
        runner = _RUNNERS.get(type(node))
        flow = None if runner is None else runner(machine, scope, node)
        if flow is not None:
            return flow
    return None


def _alive(flow: Flow) -> bool:
    return not (isinstance(flow, Stop) and flow.kind == "raise")


def _branches(machine: Machine, scope: Box, bodies: list[list[ast.stmt]], why: Unknown, condition: str) -> Flow:
    """Follows each of several blocks of which one runs, and goes on with what they have in common."""

    def path(body: list[ast.stmt]) -> Callable[[], Flow]:
        return lambda: run(machine, scope, body)

    flows: list[Flow] = machine.try_each([path(body) for body in bodies], why, condition, _alive)
    living = [flow for flow in flows if _alive(flow)]
    if not living:
        return flows[0]
    returned = [flow.value for flow in living if isinstance(flow, Return)]
    if len(returned) == len(living):
        result = returned[0]
        for value in returned[1:]:
            result = machine.join(result, value, why)
        return Return(result)
    if machine.returns:
        machine.returns[-1].extend(returned)
    stops = [flow for flow in living if isinstance(flow, Stop)]
    return stops[0] if len(stops) == len(living) else None


def _if(machine: Machine, scope: Box, node: ast.If) -> Flow:
    test = truth(evaluate(machine, scope, node.test))
    if not isinstance(test, Unknown):
        return run(machine, scope, node.body if test else node.orelse)
    text = ast.unparse(node.test)
    why = Unknown(f"it depends on {text[:60]}, and {test.why}", node.lineno)
    return _branches(machine, scope, [node.body, node.orelse], why, text[:200])


def _match(machine: Machine, scope: Box, node: ast.Match) -> Flow:
    subject = evaluate(machine, scope, node.subject)
    for case in node.cases:
        pattern = case.pattern
        if isinstance(pattern, ast.MatchAs) and pattern.pattern is None and case.guard is None:
            return run(machine, scope, case.body)
        if isinstance(pattern, ast.MatchValue) and isinstance(subject, PLAIN) and case.guard is None:
            if evaluate(machine, scope, pattern.value) == subject:
                return run(machine, scope, case.body)
            continue
        why = unknown_of(subject) or Unknown("it depends on a match that is not followed", node.lineno)
        return _branches(machine, scope, [case.body for case in node.cases], why, "match")
    return None


def _for(machine: Machine, scope: Box, node: ast.For) -> Flow:
    whole = evaluate(machine, scope, node.iter)
    items = _elements(whole, node.lineno)
    if items is None or len(items) > MAX_ROUNDS:
        why = unknown_of(whole) or Unknown(f"it is changed in a loop over {ast.unparse(node.iter)[:60]}", node.lineno)
        bind_any(machine, scope, node.target, why)
        return _maybe(machine, scope, node.body, why, ast.unparse(node.iter)[:200])
    for item in items:
        bind_any(machine, scope, node.target, item)
        flow = run(machine, scope, node.body)
        if isinstance(flow, Stop) and flow.kind == "continue":
            continue
        if isinstance(flow, Stop) and flow.kind == "break":
            return None
        if flow is not None:
            return flow
    return run(machine, scope, node.orelse)


def _elements(whole: Value, line: int) -> tuple[Value, ...] | None:
    if isinstance(whole, Box) and whole.of == PARAMETERS:
        return ((Unknown("the name of a parameter", line), whole),) if whole.slots.get("*named") else (whole,)
    return members(whole)


def _maybe(machine: Machine, scope: Box, body: list[ast.stmt], why: Unknown, condition: str) -> Flow:
    """Follows a block that runs any number of times, once and not at all."""
    flow = _branches(machine, scope, [body, []], why, condition)
    return None if isinstance(flow, Stop) else flow


def _while(machine: Machine, scope: Box, node: ast.While) -> Flow:
    for _ in range(MAX_ROUNDS):
        test = truth(evaluate(machine, scope, node.test))
        if isinstance(test, Unknown):
            return _maybe(
                machine, scope, node.body, Unknown(f"it is changed in a loop, and {test.why}", node.lineno), ast.unparse(node.test)[:200]
            )
        if not test:
            return None
        flow = run(machine, scope, node.body)
        if isinstance(flow, Stop) and flow.kind == "break":
            return None
        if flow is not None and not (isinstance(flow, Stop) and flow.kind == "continue"):
            return flow
    return None


def _try(machine: Machine, scope: Box, node: ast.Try) -> Flow:
    """The body as if it went well, then as if it failed: what a handler would change is unknown."""
    flow = run(machine, scope, node.body)
    failed = not _alive(flow)
    for handler in node.handlers:
        if handler.name:
            machine.write(scope, handler.name, Unknown("an exception", handler.lineno))
        why = Unknown("it depends on whether what is tried goes well", handler.lineno)
        if failed:
            flow = run(machine, scope, handler.body)
            break
        _branches(machine, scope, [handler.body, []], why, "an exception")
    if not failed and flow is None:
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
    elif isinstance(target, ast.Name) and target.id in scope.slots.get(_GLOBALS, ()):
        machine.write(module_of(scope), target.id, value)
    else:
        bind(machine, scope, target, value)


_GLOBALS = "*globals"


def _global(machine: Machine, scope: Box, node: ast.Global | ast.Nonlocal) -> Flow:
    machine.write(scope, _GLOBALS, (*scope.slots.get(_GLOBALS, ()), *node.names))
    return None


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
        items = holder.slots[ITEMS]
        changed: tuple[Value, ...] = (Unknown("an element was set", target.lineno),)
        if isinstance(key, int) and -len(items) <= key < len(items):
            place = key % len(items)
            changed = (*items[:place], value, *items[place + 1 :])
        machine.write(holder, ITEMS, machine.sized(changed, target.lineno))


def _expression(machine: Machine, scope: Box, node: ast.Expr) -> Flow:
    evaluate(machine, scope, node.value)
    call = node.value
    return Stop("raise") if isinstance(call, ast.Call) and ast.unparse(call.func) in _ENDS and machine.conditions else None


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
    return Stop("raise") if machine.conditions else None


_RUNNERS: dict[type[ast.stmt], Callable[[Machine, Box, Any], Flow]] = {
    ast.If: _if,
    ast.Match: _match,
    ast.For: _for,
    ast.AsyncFor: _for,
    ast.While: _while,
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
    ast.Break: lambda machine, scope, node: Stop("break"),
    ast.Continue: lambda machine, scope, node: Stop("continue"),
}
