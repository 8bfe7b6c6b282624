"""Reads a config.json field by field: every value comes out with its type checked, or the error names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from advisor.errors import InvalidInputError

# Sizes above these are taken for mistakes, not models. Judgement: well over ten times the largest model known (Llama-3.1-405B is
# 16,384 wide and 126 layers deep; Kimi-K2 has 384 experts; Gemma 3 has 262,208 tokens).
MAX_WIDTH = 1 << 20
MAX_LAYERS = 2_000
MAX_VOCAB = 1 << 24
MAX_EXPERTS = 1 << 14
MAX_POSITIONS = 1 << 32


class Config(NamedTuple):
    """A config.json and where it came from. Keys that are null count as missing, as in transformers."""

    values: Mapping[str, object]
    where: str

    def raw(self, *keys: str) -> object:
        """First value among `keys` (a field's name and the other names that transformers' `attribute_map` allows), or None."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    def count(self, *keys: str, default: int | None = None, limit: int = MAX_WIDTH) -> int:
        """A positive integer up to `limit`; an error when it is missing and has no default."""
        value = self.raw(*keys)
        if value is None and default is not None:
            return default
        return self._checked(value, keys[0], 1, limit)

    def optional_count(self, *keys: str, default: int | None = None, limit: int = MAX_WIDTH) -> int | None:
        """A positive integer, or None where the file says null; `default` where the file says nothing."""
        value = self.raw(*keys)
        if value is None:
            return None if any(key in self.values for key in keys) else default
        return self._checked(value, keys[0], 1, limit)

    def count_or_zero(self, *keys: str, default: int, limit: int = MAX_WIDTH) -> int:
        value = self.raw(*keys)
        return default if value is None else self._checked(value, keys[0], 0, limit)

    def _checked(self, value: object, key: str, low: int, limit: int) -> int:
        if value is None:
            raise self.bad(key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(key, f"must be a whole number, not {_shown(value)}")
        if value < low:
            raise self.bad(key, f"must be {'positive' if low else 'at least 0'}, not {_shown(value)}")
        if value > limit:
            raise self.bad(key, f"is {_shown(value)}, beyond any known model (at most {limit:,} is accepted)")
        return value

    def flag(self, *keys: str, default: bool) -> bool:
        value = self.raw(*keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.bad(keys[0], f"must be true or false, not {_shown(value)}")
        return value

    def text(self, *keys: str, default: str) -> str:
        value = self.raw(*keys)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > 200:
            raise self.bad(keys[0], f"must be a short text, not {_shown(value)}")
        return value

    def fraction(self, *keys: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.raw(*keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self.bad(keys[0], f"must be a number from 0 to 1, not {_shown(value)}")
        return float(value)

    def is_number(self, key: str, default: bool) -> bool:
        """Whether the field holds a number (a soft-cap, say) rather than null; `default` where the file says nothing."""
        if key not in self.values:
            return default
        value = self.values[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise self.bad(key, f"must be a number or null, not {_shown(value)}")
        return value is not None

    def words(self, key: str, length: int) -> tuple[str, ...] | None:
        """A list of exactly `length` texts, or None when missing."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.bad(key, f"must be a list of texts, not {_shown(value)}")
        if len(value) != length:
            raise self.bad(key, f"has {len(value):,} entries for {length:,} layers")
        return tuple(value)

    def numbers(self, key: str) -> tuple[int, ...] | None:
        """A list of whole numbers from 0, or None when missing."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in value):
            raise self.bad(key, f"must be a list of whole numbers, not {_shown(value)}")
        return tuple(value)

    def nested(self, key: str) -> Mapping[str, object]:
        """An object inside the file; empty when missing."""
        value = self.raw(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.bad(key, f"must be an object, not {_shown(value)}")
        return value

    def bad(self, key: str, what: str) -> InvalidInputError:
        return InvalidInputError(f"{self.where}: {key} {what}")

    def check_divides(self, small: str, small_value: int, large: str, large_value: int) -> None:
        if large_value % small_value:
            raise self.bad(large, f"({large_value:,}) must be a multiple of {small} ({small_value:,})")


def _shown(value: object) -> str:
    """A value as an error shows it: short, whatever it is."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number beyond 10^18"
    text = json.dumps(value, ensure_ascii=True) if isinstance(value, (str, bool)) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
