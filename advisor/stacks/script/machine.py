"""The state of one evaluation: a budget, writes that can be taken back, what was seen of models and trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from advisor.errors import UnsupportedError
from advisor.stacks.script.values import (
    ABSENT,
    DICT,
    ITEMS,
    LIST,
    MAX_DEPTH,
    OBJECT,
    SCOPE,
    Box,
    Either,
    Function,
    Unknown,
    Value,
    items_of,
    same,
)

MAX_STEPS = 100_000
"""Nodes of the syntax tree that are evaluated. Judgement: published training scripts take under 5,000."""
MAX_CELLS = 2_000_000
"""Characters and elements that an evaluation makes in all. Judgement, as above; it bounds memory."""
MAX_SIZE = 50_000
"""Characters or elements of one value that an operation makes. Judgement: the longest chat templates have some 10,000."""
MAX_CALLS = 40
"""How deep functions of the script call each other. Judgement."""


class Start(NamedTuple):
    """What starts the script: its arguments, what stands in its environment, and the card that it would see."""

    arguments: tuple[str, ...] | None = None
    """None: nobody said how it is started, and it is read as if without arguments."""
    environment: tuple[tuple[str, str], ...] = ()
    bf16: bool = True
    """Whether the card computes in bf16."""


class Change(NamedTuple):
    """What is done to parameters of a model, one by one."""

    model: Box
    what: str
    value: Value
    condition: str
    """Text of the conditions under which it is done; empty for all of them."""
    line: int


class Seen:
    """What an evaluation came across and that decides which training it is."""

    def __init__(self) -> None:
        self.trainers: list[Box] = []
        self.trained: list[Box] = []
        self.arguments: list[Box] = []
        self.adapters: list[Box] = []
        self.models: list[Box] = []
        self.backward: int | None = None
        """Line of a `loss.backward()`."""
        self.lengths: list[tuple[Value, int]] = []
        """Tokens that a tokenizer cuts to, with the line."""
        self.imports: set[str] = set()
        self.parsed: list[Box] = []
        """Objects that a command line was parsed into."""
        self.changes: list[Change] = []
        self.touched: list[tuple[str, int]] = []
        """Calls that were handed a model and are not known."""
        self.taken: list[str] = []
        """What was taken for granted, one line each."""


class Machine:
    """Budget, journal and sightings of one evaluation. `call` and `run` are set by the interpreter that owns it."""

    def __init__(self, start: Start, folder: str) -> None:
        self.start, self.folder = start, folder
        self.seen = Seen()
        self.steps = self.cells = self.depth = 0
        self.line = 0
        self.conditions: list[str] = []
        """Texts of the open conditions that are not known."""
        self.call: Callable[[Value, list[Value], dict[str, Value], int], Value]
        self.run: Callable[[Box, list[Any]], Value]
        self.environment = dict(start.environment)
        self._serial = 0
        self._journals: list[tuple[int, dict[tuple[int, Any], tuple[Box, Any, Value]]]] = []

    def step(self, line: int | None = None) -> None:
        """Counts one node. Raises UnsupportedError when the script takes too many."""
        self.steps += 1
        if line:
            self.line = line
        if self.steps > MAX_STEPS:
            raise UnsupportedError(f"the script runs too long to be followed (line {self.line})")

    def sized(self, value: Value, line: int) -> Value:
        """The value, charged to the budget; an Unknown where it is too large."""
        size = len(value) if isinstance(value, (str, tuple)) else 1
        self.cells += size
        if self.cells > MAX_CELLS:
            raise UnsupportedError(f"the script makes too many values to be followed (line {self.line})")
        return value if size <= MAX_SIZE else Unknown("it is too long to be followed", line)

    def box(self, kind: str, of: Value = None, slots: dict[Any, Value] | None = None, line: int = 0) -> Box:
        self._serial += 1
        self.sized("", line)
        return Box(kind, of, {} if slots is None else slots, self._serial, line)

    def new_list(self, items: Any, line: int = 0) -> Value:
        held = self.sized(tuple(items), line)
        return held if isinstance(held, Unknown) else self.box(LIST, None, {ITEMS: held}, line)

    def new_dict(self, slots: dict[Any, Value], line: int = 0) -> Box:
        return self.box(DICT, None, slots, line)

    def new_object(self, of: Value, slots: dict[Any, Value], line: int = 0) -> Box:
        return self.box(OBJECT, of, slots, line)

    def write(self, box: Box, key: Any, value: Value) -> None:
        """Sets a slot, or empties it with ABSENT; noted so that it can be taken back."""
        for serial, journal in self._journals[-1:]:
            if box.serial <= serial and (id(box), key) not in journal:
                journal[id(box), key] = (box, key, box.slots.get(key, ABSENT))
        if value is ABSENT:
            box.slots.pop(key, None)
        else:
            box.slots[key] = value

    @property
    def certain(self) -> bool:
        """No condition that is not known is open."""
        return not self.conditions

    @contextmanager
    def under(self, condition: str) -> Iterator[None]:
        self.conditions.append(condition)
        try:
            yield
        finally:
            self.conditions.pop()

    def try_each(self, paths: list[Callable[[], Any]], why: Unknown, condition: str, alive: Callable[[Any], bool]) -> list[Any]:
        """Runs each path from the same state, then joins what the living ones wrote: what differs becomes unknown.

        Hands back what each path came to. Where none lives, what the last one wrote stays.
        """
        outcomes, written = [], []
        for path in paths:
            self._journals.append((self._serial, {}))
            try:
                with self.under(condition):
                    outcomes.append(path())
            finally:
                _, journal = self._journals.pop()
                after = {slot: (box, key, box.slots.get(key, ABSENT)) for slot, (box, key, _) in journal.items()}
                for box, key, before in journal.values():
                    _restore(box, key, before)
            written.append(after)
        living = [after for outcome, after in zip(outcomes, written, strict=True) if alive(outcome)] or written[-1:]
        slots = {slot: (box, key) for after in living for slot, (box, key, _) in after.items()}
        for slot, (box, key) in slots.items():
            before = box.slots.get(key, ABSENT)
            values = [after[slot][2] if slot in after else before for after in living]
            joined = values[0]
            for value in values[1:]:
                joined = self.join(joined, value, why, box.kind == SCOPE)
            self.write(box, key, joined)
        return outcomes

    def join(self, left: Value, right: Value, why: Unknown, in_scope: bool = False, depth: int = 0) -> Value:
        """What is certain of a value that is one of two."""
        self.step()
        if same(left, right):
            return left
        if in_scope and ABSENT in (left, right):
            return right if left is ABSENT else left
        for value in (left, right):
            if isinstance(value, Unknown):
                return value._replace(absent=any(other is ABSENT or getattr(other, "absent", False) for other in (left, right)))
        if ABSENT in (left, right):
            return why._replace(absent=True)
        if isinstance(left, Box) and isinstance(right, Box) and depth < MAX_DEPTH:
            return self._join_boxes(left, right, why, depth)
        functions = (*_functions_of(left), *_functions_of(right))
        if len(functions) >= 2 and isinstance(left, (Function, Either)) and isinstance(right, (Function, Either)):
            return Either(functions, why)
        first, second = items_of(left), items_of(right)
        if isinstance(left, tuple) and isinstance(right, tuple) and first is not None and second is not None and len(first) == len(second):
            return tuple(self.join(a, b, why, False, depth + 1) for a, b in zip(first, second, strict=True))
        return why

    def _join_boxes(self, left: Box, right: Box, why: Unknown, depth: int) -> Value:
        if left.kind != right.kind or left.of != right.of or left.kind == LIST:
            return why
        slots: dict[Any, Value] = {}
        for key in {**left.slots, **right.slots}:
            slots[key] = self.join(left.slots.get(key, ABSENT), right.slots.get(key, ABSENT), why, False, depth + 1)
        joined = self.box(left.kind, left.of, slots, left.line)
        for kept in (self.seen.trainers, self.seen.models):
            if left in kept or right in kept:
                kept.append(joined)
        return joined


def _functions_of(value: Value) -> tuple[Function, ...]:
    return (value,) if isinstance(value, Function) else value.functions if isinstance(value, Either) else ()


def _restore(box: Box, key: Any, before: Value) -> None:
    if before is ABSENT:
        box.slots.pop(key, None)
    else:
        box.slots[key] = before
