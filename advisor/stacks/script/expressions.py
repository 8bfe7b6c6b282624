"""Expressions of a script as values. Nothing is run: what the tree does not say is Unknown, with its line."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from advisor.stacks.script.attributes import PARAMETERS, attribute
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import binary, compare, element, formatted, truth, unary, unknown_of
from advisor.stacks.script.scopes import PARENT, bind, look_up
from advisor.stacks.script.values import ABSENT, OPEN, SCOPE, Box, Function, Name, Unknown, Value, is_dict, items_of, members


def evaluate(machine: Machine, scope: Box, node: ast.expr) -> Value:
    """The value of an expression. Raises UnsupportedError when the budget is spent."""
    machine.step(node.lineno)
    reader = _READERS.get(type(node))
    return Unknown(f"{type(node).__name__} is not followed", node.lineno) if reader is None else reader(machine, scope, node)


def _constant(machine: Machine, scope: Box, node: ast.Constant) -> Value:
    if isinstance(node.value, (str, bool, int, float, type(None))):
        return node.value
    return Unknown("it is no value of a setting", node.lineno)


def _name(machine: Machine, scope: Box, node: ast.Name) -> Value:
    found = look_up(scope, node.id)
    return Name(node.id) if found is ABSENT else found


def _attribute(machine: Machine, scope: Box, node: ast.Attribute) -> Value:
    holder = evaluate(machine, scope, node.value)
    found = attribute(machine, holder, node.attr, node.lineno)
    if isinstance(found, Unknown) and found.line == node.lineno and not isinstance(holder, Unknown):
        return Unknown(f"{ast.unparse(node)[:60]} is not known", node.lineno)
    return found


def _subscript(machine: Machine, scope: Box, node: ast.Subscript) -> Value:
    whole = evaluate(machine, scope, node.value)
    if isinstance(whole, Name) and whole.dotted == "os.environ":
        key = evaluate(machine, scope, node.slice)
        known = isinstance(key, str) and machine.environment.get(key)
        return known or Unknown(f"the environment's {key if isinstance(key, str) else 'variable'} is not known", node.lineno)
    if isinstance(whole, Name):  # an annotation such as list[str]
        return Name(whole.dotted)
    key = _slice(machine, scope, node.slice) if isinstance(node.slice, ast.Slice) else evaluate(machine, scope, node.slice)
    return element(machine, whole, key, node.lineno)


def _slice(machine: Machine, scope: Box, node: ast.Slice) -> Value:
    parts = [None if part is None else evaluate(machine, scope, part) for part in (node.lower, node.upper, node.step)]
    if all(part is None or isinstance(part, int) for part in parts) and parts[2] != 0:
        return slice(*parts)
    return unknown_of(*parts) or Unknown("its slice is not known", node.lineno)


def _binary(machine: Machine, scope: Box, node: ast.BinOp) -> Value:
    left, right = evaluate(machine, scope, node.left), evaluate(machine, scope, node.right)
    return binary(machine, node.op, left, right, node.lineno)


def _unary(machine: Machine, scope: Box, node: ast.UnaryOp) -> Value:
    return unary(node.op, evaluate(machine, scope, node.operand), node.lineno)


def _boolean(machine: Machine, scope: Box, node: ast.BoolOp) -> Value:
    """`and` and `or`, which stop at the first value that decides. After one that is not known, the others may run."""
    stops = isinstance(node.op, ast.Or)
    unsure: Unknown | None = None
    value: Value = None
    for part in node.values:
        if unsure is None:
            value = evaluate(machine, scope, part)
        else:
            paths: list[Callable[[], Value]] = [partial(evaluate, machine, scope, part), lambda: None]
            value = machine.try_each(paths, unsure, ast.unparse(node)[:200], lambda _: True)[0]
        true = truth(value)
        if isinstance(true, Unknown):
            unsure = unsure or true
        elif true == stops:
            return value if unsure is None or (value is stops) else unsure
    return value if unsure is None else unsure


def _compare(machine: Machine, scope: Box, node: ast.Compare) -> Value:
    left = evaluate(machine, scope, node.left)
    for kind, part in zip(node.ops, node.comparators, strict=True):
        right = evaluate(machine, scope, part)
        found = compare(kind, left, right, node.lineno)
        if found is not True:
            return found
        left = right
    return True


def _choice(machine: Machine, scope: Box, node: ast.IfExp) -> Value:
    test = truth(evaluate(machine, scope, node.test))
    if not isinstance(test, Unknown):
        return evaluate(machine, scope, node.body if test else node.orelse)
    why = Unknown(f"it depends on {ast.unparse(node.test)[:60]}: {test.why}", node.lineno)
    paths: list[Callable[[], Value]] = [lambda: evaluate(machine, scope, node.body), lambda: evaluate(machine, scope, node.orelse)]
    left, right = machine.try_each(paths, why, ast.unparse(node.test)[:200], lambda _: True)
    return machine.join(left, right, why)


def _text(machine: Machine, scope: Box, node: ast.JoinedStr) -> Value:
    parts = []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            parts.append(str(piece.value))
            continue
        assert isinstance(piece, ast.FormattedValue)
        value = evaluate(machine, scope, piece.value)
        spec = "" if piece.format_spec is None else evaluate(machine, scope, piece.format_spec)
        shown = formatted(value, piece.conversion, spec) if isinstance(spec, str) else None
        if shown is None:
            return unknown_of(value, spec) or Unknown("it is a text with a part that is not known", node.lineno)
        parts.append(shown)
    return machine.sized("".join(parts), node.lineno)


def elements(machine: Machine, scope: Box, nodes: list[ast.expr]) -> tuple[Value, ...] | Unknown:
    """The elements of a display, with `*rest` written out."""
    found: list[Value] = []
    for node in nodes:
        if not isinstance(node, ast.Starred):
            found.append(evaluate(machine, scope, node))
            continue
        rest = evaluate(machine, scope, node.value)
        items = items_of(rest)
        if items is None:
            return unknown_of(rest) or Unknown("a part of the list is not known", node.lineno)
        found.extend(items)
    held: tuple[Value, ...] | Unknown = machine.sized(tuple(found), nodes[0].lineno if nodes else 0)
    return held


def _list(machine: Machine, scope: Box, node: ast.List | ast.Set) -> Value:
    found = elements(machine, scope, node.elts)
    return found if isinstance(found, Unknown) else machine.new_list(found, node.lineno)


def _tuple(machine: Machine, scope: Box, node: ast.Tuple) -> Value:
    return elements(machine, scope, node.elts)


def _dict(machine: Machine, scope: Box, node: ast.Dict) -> Value:
    slots: dict[Any, Value] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        value = evaluate(machine, scope, value_node)
        if key_node is None:
            _unpack(slots, value, node.lineno)
            continue
        key = evaluate(machine, scope, key_node)
        if isinstance(key, (str, int, float, bool, type(None))):
            slots[key] = value
        else:
            slots[OPEN] = unknown_of(key) or Unknown("a key is not known", node.lineno)
    return machine.new_dict(slots, node.lineno)


def _unpack(slots: dict[Any, Value], value: Value, line: int) -> None:
    """`**value` into slots; what cannot be looked into leaves them open."""
    if is_dict(value):
        slots.update(value.slots)
    else:
        slots[OPEN] = unknown_of(value) or Unknown("what is unpacked is not known", line)


def _call(machine: Machine, scope: Box, node: ast.Call) -> Value:
    called = evaluate(machine, scope, node.func)
    positional: list[Value] = []
    named: dict[str, Value] = {}
    for part in node.args:
        if isinstance(part, ast.Starred):
            rest = evaluate(machine, scope, part.value)
            items = items_of(rest)
            if items is None:
                named[OPEN] = unknown_of(rest) or Unknown("what is unpacked is not known", part.lineno)
            else:
                positional.extend(items)
        else:
            positional.append(evaluate(machine, scope, part))
    for keyword in node.keywords:
        value = evaluate(machine, scope, keyword.value)
        if keyword.arg is None:
            _unpack(named, value, node.lineno)
        else:
            named[keyword.arg] = value
    machine.line = node.lineno
    result = machine.call(called, positional, named, node.lineno)
    if isinstance(result, Unknown) and result.line == node.lineno and result.why == "":
        return Unknown(f"{ast.unparse(node.func)[:60]}(…) is not known", node.lineno)
    return result


def _function(machine: Machine, scope: Box, node: ast.Lambda) -> Value:
    return Function("lambda", node, scope, defaults_of(machine, scope, node.args))


def defaults_of(machine: Machine, scope: Box, described: ast.arguments) -> dict[str, Value]:
    """Defaults of a function's parameters, which are evaluated where it stands."""
    names = [argument.arg for argument in (*described.posonlyargs, *described.args)]
    last = names[len(names) - len(described.defaults) :]
    defaults = {name: evaluate(machine, scope, value) for name, value in zip(last, described.defaults, strict=True)}
    for argument, given in zip(described.kwonlyargs, described.kw_defaults, strict=True):
        if given is not None:
            defaults[argument.arg] = evaluate(machine, scope, given)
    return defaults


def _named(machine: Machine, scope: Box, node: ast.NamedExpr) -> Value:
    value = evaluate(machine, scope, node.value)
    machine.write(scope, node.target.id, value)
    return value


def _comprehension(machine: Machine, scope: Box, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
    inner = machine.box(SCOPE, None, {PARENT: scope})
    if isinstance(node, ast.DictComp):
        slots: dict[Any, Value] = {}
        for unsure in _rounds(machine, inner, node.generators):
            key = unsure or evaluate(machine, inner, node.key)
            if not isinstance(key, (str, int, float, bool, type(None))):
                return machine.new_dict({OPEN: unknown_of(key) or Unknown("a key is not known", node.lineno)}, node.lineno)
            slots[key] = evaluate(machine, inner, node.value)
        return machine.new_dict(slots, node.lineno)
    whole = evaluate(machine, inner, node.generators[0].iter)
    if isinstance(whole, Box) and whole.of == PARAMETERS:
        which = " and ".join(ast.unparse(condition) for generator in node.generators for condition in generator.ifs)
        return machine.new_object(PARAMETERS, {**whole.slots, "*which": which}, node.lineno)
    found: list[Value] = []
    for unsure in _rounds(machine, inner, node.generators):
        if unsure is not None:
            machine.try_each([partial(evaluate, machine, inner, node.elt), lambda: None], unsure, "a comprehension", lambda _: True)
            return unsure
        found.append(evaluate(machine, inner, node.elt))
    return machine.new_list(found, node.lineno)


def _rounds(machine: Machine, scope: Box, generators: list[ast.comprehension]) -> Iterator[Unknown | None]:
    """One pass for each element that the conditions keep, with the targets bound; an Unknown where that is not known."""
    first, *rest = generators
    whole = evaluate(machine, scope, first.iter)
    items = members(whole)
    if items is None:
        missing = unknown_of(whole) or Unknown("what it goes through is not known", first.iter.lineno)
        bind(machine, scope, first.target, missing)
        yield missing
        return
    for item in items:
        bind(machine, scope, first.target, item)
        kept = [truth(evaluate(machine, scope, condition)) for condition in first.ifs]
        unsure = unknown_of(*kept)
        if unsure is not None:
            yield unsure
        elif all(kept):
            if rest:
                yield from _rounds(machine, scope, rest)
            else:
                yield None


_READERS: dict[type[ast.expr], Callable[[Machine, Box, Any], Value]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _choice,
    ast.JoinedStr: _text,
    ast.List: _list,
    ast.Set: _list,
    ast.Tuple: _tuple,
    ast.Dict: _dict,
    ast.Call: _call,
    ast.Lambda: _function,
    ast.NamedExpr: _named,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _comprehension,
    ast.Await: lambda machine, scope, node: evaluate(machine, scope, node.value),
}
