"""Settings of a script as they are gathered: what is known, what is not, and what has to be told."""

from __future__ import annotations

from typing import Any

from advisor.stacks.reading import Remark, Way
from advisor.stacks.script.values import OPEN, Box, Unknown, Value, plain


class Gathered:
    """Settings as they are gathered."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values: dict[str, Any] = {}
        self.unknown: dict[str, Unknown] = {}
        self.remarks: list[Remark] = []
        self.taken: list[str] = []

    def put(self, name: str, value: Value) -> None:
        """One setting; `None` is left out."""
        held = plain(value)
        self.values.pop(name, None)
        self.unknown.pop(name, None)
        if isinstance(held, Unknown):
            self.unknown[name] = held
        elif isinstance(held, dict):
            self.unknown |= {f"{name}.{key}": inner for key, inner in held.items() if isinstance(inner, Unknown)}
            self.values[name] = {key: inner for key, inner in held.items() if not isinstance(inner, Unknown)}
        elif held is not None:
            self.values[name] = held

    def put_group(self, name: str, box: Box, **more: Any) -> None:
        """A setting that holds settings: what is unknown in it is kept apart."""
        group: dict[str, Any] = dict(more)
        for key, value in box.slots.items():
            held = plain(value)
            if key == OPEN:
                self.unknown[f"{name}.*"] = value
            elif isinstance(held, Unknown):
                self.unknown[f"{name}.{key}"] = held
            elif not str(key).startswith("*"):
                group[str(key)] = held
        self.values[name] = group

    def remark(self, key: str, text: str, way: Way | None = Way.EITHER, hint: str = "") -> None:
        self.remarks.append(Remark("not-priced", key, text, hint, way))
