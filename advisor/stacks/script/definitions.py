"""Functions, classes and imports of a script."""

from __future__ import annotations

import ast
from pathlib import Path

from advisor.bounded import is_file
from advisor.errors import AdvisorError
from advisor.stacks.files import read_text
from advisor.stacks.script.expressions import defaults_of, evaluate
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.scopes import PARENT, module_of
from advisor.stacks.script.values import ABSENT, SCOPE, Box, Function, Name, UserClass, Value
from advisor.stacks.syntax import tree_of

_MODULES = "*modules"
MAX_MODULES = 8
"""Modules of the script's own folder that are followed. Judgement: published training scripts have one or two."""


def define_function(machine: Machine, scope: Box, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Binds a function to its name. A cell of a marimo notebook is a function too: its body runs where it stands."""
    if any(ast.unparse(decorator).startswith("app.cell") for decorator in node.decorator_list):
        machine.run(scope, node.body)
    else:
        machine.write(scope, node.name, make_function(machine, scope, node))


def make_function(machine: Machine, scope: Box, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    """A function with its defaults, and those that decorators of click give its parameters."""
    defaults = defaults_of(machine, scope, node.args)
    for decorator in node.decorator_list:
        defaults |= _option_of_click(machine, scope, decorator)
    return Function(node.name, node, scope, defaults)


def _option_of_click(machine: Machine, scope: Box, node: ast.expr) -> dict[str, Value]:
    """`@click.option("--batch-size", default=4)`: a parameter with its default."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("click.option", "click.argument", "option"):
        return {}
    texts = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    name = next((text.lstrip("-").replace("-", "_") for text in texts if text.startswith("--")), "")
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    return {name: evaluate(machine, scope, given["default"])} if name and "default" in given else {}


def define_class(machine: Machine, scope: Box, node: ast.ClassDef) -> None:
    """Binds a class to its name, with what stands in it."""
    slots = machine.box(SCOPE, None, {PARENT: scope})
    machine.run(slots, node.body)
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    annotations = {part.target.id: ast.unparse(part.annotation) for part in fields if isinstance(part.target, ast.Name)}
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    bases = tuple(evaluate(machine, scope, base) for base in node.bases)
    is_dataclass = any("dataclass" in text or "chz" in text or "define" in text for text in decorators)
    own = machine.box(SCOPE, None, {key: value for key, value in slots.slots.items() if key != PARENT})
    machine.write(scope, node.name, UserClass(node.name, bases, own, tuple(annotations), annotations, is_dataclass, node.lineno))


def import_module(machine: Machine, scope: Box, node: ast.Import) -> None:
    """`import a.b as c`."""
    for alias in node.names:
        machine.seen.imports.add(alias.name.partition(".")[0])
        first = alias.name.partition(".")[0]
        machine.write(scope, alias.asname or first, Name(alias.name if alias.asname else first))


def import_names(machine: Machine, scope: Box, node: ast.ImportFrom) -> None:
    """`from a import b`: of a module that lies beside the script, what it holds; of a library, its name."""
    module = node.module or ""
    machine.seen.imports.add(module.partition(".")[0])
    own = _own_module(machine, scope, module) if module else None
    for alias in node.names:
        if alias.name == "*":
            for name, value in (own.slots if own is not None else {}).items():
                if not str(name).startswith("*"):
                    machine.write(scope, name, value)
            continue
        found = own.slots.get(alias.name, ABSENT) if own is not None else ABSENT
        machine.write(scope, alias.asname or alias.name, Name(f"{module}.{alias.name}") if found is ABSENT else found)


def _own_module(machine: Machine, scope: Box, module: str) -> Box | None:
    """A module of the script's own folder, followed once."""
    path = Path(machine.folder, *module.split(".")).with_suffix(".py")
    modules = module_of(scope).slots.setdefault(_MODULES, {})
    if module in modules:
        held: Box | None = modules[module]
        return held
    if len(modules) >= MAX_MODULES or not is_file(path):
        return None
    modules[module] = None
    try:
        tree = tree_of(read_text(path))
    except (AdvisorError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    inner = machine.box(SCOPE, None, {"__name__": module, _MODULES: modules})
    machine.run(inner, tree.body)
    modules[module] = inner
    return inner
