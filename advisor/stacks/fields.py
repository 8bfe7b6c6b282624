"""Settings of a trainer's file, read by name: what is asked for is converted or refused, and what nobody asked for is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from advisor.errors import InvalidInputError
from advisor.json_files import parse_json
from advisor.values.request import MAX_COUNT

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("", "none", "null", "~")


class Fields:
    """A mapping whose readers remember what they read. The first of several names that is set counts."""

    def __init__(self, values: Mapping[str, Any], where: str, trail: str = "") -> None:
        self.where = where
        self._values = values
        self._trail = trail
        self._read: set[str] = set()
        self._groups: dict[str, Fields] = {}

    def raw(self, *names: str) -> Any:
        """The value as it stands in the file; None where it is not set."""
        self._read.update(names)
        return next((self._values[name] for name in names if self._values.get(name) is not None), None)

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def says_nothing(self, name: str) -> bool:
        """The file holds the name, and null for it."""
        return name in self._values and self._said(name) is None

    def flag(self, *names: str) -> bool | None:
        value = self._said(*names)
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
        if value is None or isinstance(value, bool):
            return value
        self.refuse(names, value, "true or false")

    def integer(self, *names: str) -> int | None:
        value = self._number(names, "a whole number")
        if value is not None and value != int(value):
            self.refuse(names, value, "a whole number")
        return None if value is None else int(value)

    def count(self, *names: str) -> int | None:
        """A whole number above 0."""
        value = self.integer(*names)
        if value is not None and not 0 < value <= MAX_COUNT:
            self.refuse(names, value, f"a whole number from 1 to {MAX_COUNT:,}")
        return value

    def number(self, *names: str) -> float | None:
        return self._number(names, "a number")

    def _number(self, names: tuple[str, ...], wanted: str) -> float | None:
        value = self._said(*names)
        if value is None:
            return None
        try:
            number = None if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or number != number or abs(number) == float("inf"):
            self.refuse(names, value, wanted)
        return number

    def text(self, *names: str) -> str | None:
        value = self._said(*names)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        self.refuse(names, value, "a text")

    def names(self, *names: str) -> tuple[str, ...] | None:
        """A list of names, or one text with commas or spaces between them."""
        value = self._said(*names)
        if value is None:
            return None
        if isinstance(value, str):
            value = value.strip("[]").replace(",", " ").split()
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
            self.refuse(names, value, "a list of names")
        return tuple(value) or None

    def group(self, *names: str) -> Fields:
        """The settings inside a setting, the same reader each time; empty where it is not set."""
        value, name = self.raw(*names), self.shown(names)
        if name in self._groups:
            return self._groups[name]
        if isinstance(value, str) and value.lstrip().startswith("{"):  # JSON, as on command lines
            value = parse_json(value, f"{self.where}: {name}")
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.refuse(names, value, "a group of settings")
        inner = Fields({str(key): entry for key, entry in value.items()}, self.where, f"{self._trail}{name}.")
        self._groups[name] = inner
        return inner

    def unread(self) -> Iterator[tuple[str, Any]]:
        """What is set and was not asked for, groups that were opened among it: `group.name`."""
        for name, value in self._values.items():
            if name not in self._read and value is not None:
                yield name, value
        for name, inner in self._groups.items():
            yield from ((f"{name}.{key}", value) for key, value in inner.unread())

    def close(self) -> None:
        """Count everything as asked for: what was left over has been said."""
        self._read.update(self._values)
        for inner in self._groups.values():
            inner.close()

    def asked(self) -> frozenset[str]:
        """Names that readers asked for, whether or not they are set."""
        return frozenset(self._read)

    def shown(self, names: tuple[str, ...]) -> str:
        """The name that the file uses."""
        return next((name for name in names if self._values.get(name) is not None), names[0])

    def refuse(self, names: tuple[str, ...], value: object, wanted: str) -> NoReturn:
        raise InvalidInputError(f"{self.where}: {self._trail}{self.shown(names)} is {_short(value)}; it must be {wanted}")

    def _said(self, *names: str) -> Any:
        value = self.raw(*names)
        return None if isinstance(value, str) and value.strip().lower() in _NOTHING else value


def value_at(values: Mapping[str, Any], dotted: str) -> Any:
    """The setting `a`, or `a.b` inside a group; None where it is not set."""
    found: Any = values
    for name in dotted.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _short(value: object) -> str:
    shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}" if isinstance(value, (dict, list)) else str(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}…"
