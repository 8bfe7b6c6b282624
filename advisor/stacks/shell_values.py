"""Variables of a shell script as far as its text says them, and arithmetic on them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence

from advisor.stacks.syntax import expression_of

OPEN = "\ue000"
"""Stands before the text of what only running the script would show (Unicode's private use area: no script has it)."""
LARGEST_NUMBER = 10**18
_SIGNS: Mapping[str, str] = {"+": "+", "-": "-", "*": "*", "\\*": "*", "/": "//", "%": "%"}
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Values:
    """Variables by name. One that branches set differently is open."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._arrays: dict[str, tuple[str, ...]] = {}
        self.depth = 0
        """Branches and loops that are open around the next assignment."""
        self.made = 0
        """Characters that expansions have made so far."""

    def set(self, name: str, value: str) -> None:
        known = self._texts.get(name)
        unsure = self.depth > 0 and known is not None and known != value
        self._texts[name] = f"{OPEN}${name}" if unsure else value

    def known(self) -> Mapping[str, str]:
        """Every variable by name; open ones stand with their mark."""
        return self._texts

    def set_array(self, name: str, items: tuple[str, ...]) -> None:
        self._arrays[name] = items

    def is_array(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> tuple[str, ...]:
        return self._arrays.get(name, ())

    def text(self, name: str, index: str | None = None) -> str | None:
        """The variable's text, or the item of an array; None where the script does not say."""
        items = self._arrays.get(name)
        if items is None:
            return self._texts.get(name) if index in (None, "0") else None
        place = int(index) if index and index.isdecimal() else 0
        return items[place] if place < len(items) else None


def arithmetic(text: str, values: Values) -> str | None:
    """`$((4 * NGPU))` as a text; None where a name is open or it is no arithmetic of whole numbers."""
    try:
        result = _whole(expression_of(text.replace("${", "").replace("}", "").replace("$", "").strip()), values)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return str(result)


def of_expr(words: Sequence[str]) -> str | None:
    """`expr 32 / 4 / 2` as a text; None where it is no arithmetic."""
    text = " ".join(_SIGNS.get(word, word) for word in words)
    return arithmetic(text, Values())


def _whole(node: ast.expr, values: Values) -> int:
    """The whole number that an expression stands for. Raises ValueError for everything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) <= LARGEST_NUMBER:
        return node.value
    if isinstance(node, ast.Name):
        return int(values.text(node.id) or "open")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_whole(node.operand, values)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        result = _OPERATIONS[type(node.op)](_whole(node.left, values), _whole(node.right, values))
        if abs(result) <= LARGEST_NUMBER:
            return result
    raise ValueError("no arithmetic of whole numbers")
