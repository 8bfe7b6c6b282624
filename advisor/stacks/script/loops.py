"""Branches and loops of a script: a condition that is not known is followed both ways, a loop that is not known in passes that may run."""

from __future__ import annotations

import ast
from functools import partial

from advisor.stacks.script.attributes import PARAMETERS
from advisor.stacks.script.binding import bind_any
from advisor.stacks.script.expressions import evaluate
from advisor.stacks.script.flow import BREAK, CONTINUE, Flow, Return, alive, combine, parts_of
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import truth, unknown_of
from advisor.stacks.script.values import PLAIN, Box, Unknown, Value, members

MAX_ROUNDS = 2_000
"""Passes of one loop. Judgement: loops that set up a training are short."""
PASSES = 2
"""Passes of a loop over what is not known: what the first leaves open, the second spreads to what is computed from it."""


def branches(machine: Machine, scope: Box, bodies: list[list[ast.stmt]], why: Unknown, condition: str) -> Flow:
    """Follows each of several blocks of which one runs, and goes on with what they have in common."""
    flows = machine.try_each([partial(machine.run, scope, body) for body in bodies], why, condition, alive)
    return combine(machine, flows, why)


def follow_match(machine: Machine, scope: Box, node: ast.Match) -> Flow:
    """`match` over plain values."""
    subject = evaluate(machine, scope, node.subject)
    for case in node.cases:
        pattern = case.pattern
        if isinstance(pattern, ast.MatchAs) and pattern.pattern is None and pattern.name is None and case.guard is None:
            return _run(machine, scope, case.body)
        if isinstance(pattern, ast.MatchValue) and isinstance(subject, PLAIN) and case.guard is None:
            if evaluate(machine, scope, pattern.value) == subject:
                return _run(machine, scope, case.body)
            continue
        why = unknown_of(subject) or Unknown("it depends on a match that is not followed", node.lineno)
        return branches(machine, scope, [*(case.body for case in node.cases), []], why, "match")
    return None


def _run(machine: Machine, scope: Box, body: list[ast.stmt]) -> Flow:
    flow: Flow = machine.run(scope, body)
    return flow


def follow_for(machine: Machine, scope: Box, node: ast.For) -> Flow:
    """A loop over elements that are known, one by one; over others as passes that may run."""
    whole = evaluate(machine, scope, node.iter)
    items = _elements(whole, node.lineno)
    if items is not None and len(items) <= MAX_ROUNDS:
        return _passes(machine, scope, node, items)
    why = unknown_of(whole) or Unknown(f"it is changed in a loop over {ast.unparse(node.iter)[:60]}", node.lineno)
    bind_any(machine, scope, node.target, why)
    return _maybe(machine, scope, node.body, why, ast.unparse(node.iter)[:200])


def _elements(whole: Value, line: int) -> tuple[Value, ...] | None:
    if isinstance(whole, Box) and whole.of == PARAMETERS:
        return ((Unknown("the name of a parameter", line), whole),) if whole.slots.get("*named") else (whole,)
    return members(whole)


def _passes(machine: Machine, scope: Box, node: ast.For, items: tuple[Value, ...]) -> Flow:
    """Passes over the elements. Once one may have left the loop, the others may run."""
    for number, item in enumerate(items):
        bind_any(machine, scope, node.target, item)
        parts = parts_of(_run(machine, scope, node.body))
        leaving = [part for part in parts if part not in (None, CONTINUE)]
        if not leaving:
            continue
        ends: list[Flow] = [None if part == BREAK else part for part in leaving]
        why = Unknown("it depends on whether a loop was left before", node.lineno)
        if len(leaving) < len(parts):
            rest = partial(_passes, machine, scope, node, items[number + 1 :])
            ends.append(machine.try_each([rest, lambda: None], why, "an earlier pass", alive)[0])
        return combine(machine, ends, why)
    return _run(machine, scope, node.orelse)


def _maybe(machine: Machine, scope: Box, body: list[ast.stmt], why: Unknown, condition: str) -> Flow:
    """Follows a block that runs any number of times, or not at all."""
    ends: list[Flow] = [None]
    for _ in range(PASSES):
        flow = branches(machine, scope, [body, []], why, condition)
        ends.extend(part for part in parts_of(flow) if isinstance(part, Return))
    return combine(machine, ends, why)


def follow_while(machine: Machine, scope: Box, node: ast.While) -> Flow:
    """A loop whose condition is known, pass by pass; from where it is not, as passes that may run."""
    for _ in range(MAX_ROUNDS):
        test = truth(evaluate(machine, scope, node.test))
        if test is False:
            return None
        text = ast.unparse(node.test)[:200]
        if isinstance(test, Unknown):
            return _maybe(machine, scope, node.body, Unknown(f"it is changed in a loop, and {test.why}", node.lineno), text)
        parts = parts_of(_run(machine, scope, node.body))
        leaving = [part for part in parts if part not in (None, CONTINUE)]
        if not leaving:
            continue
        why = Unknown("it depends on whether a loop was left before", node.lineno)
        ends: list[Flow] = [None if part == BREAK else part for part in leaving]
        if len(leaving) < len(parts):
            ends.append(_maybe(machine, scope, node.body, why, text))
        return combine(machine, ends, why)
    return None
