"""Bytes that depend on the shape of a batch."""

from __future__ import annotations

from typing import NamedTuple

_new = tuple.__new__  # half of a named tuple's own, and a program is made of thousands


class Size(NamedTuple):
    """Bytes as a polynomial in the shape of the batch."""

    per_token: int = 0
    per_pair: int = 0
    """Per pair of tokens of the same sequence: micro-batch x sequence x sequence."""
    constant: int = 0

    def plus(self, other: Size, times: int = 1) -> Size:
        return _new(Size, (self[0] + times * other[0], self[1] + times * other[1], self[2] + times * other[2]))

    def with_constant(self, size_bytes: int) -> Size:
        return _new(Size, (self[0], self[1], self[2] + size_bytes))

    def scaled(self, factor: int) -> Size:
        return ZERO.plus(self, factor)

    def at(self, tokens: int, pairs: int) -> int:
        return self.per_token * tokens + self.per_pair * pairs + self.constant


ZERO = Size()


class Sum:
    """A running total of sizes: what is alive as a walk goes on."""

    __slots__ = ("constant", "per_pair", "per_token")

    def __init__(self) -> None:
        self.per_token = self.per_pair = self.constant = 0

    def add(self, size: Size) -> None:
        self.per_token += size[0]
        self.per_pair += size[1]
        self.constant += size[2]

    def remove(self, size: Size) -> None:
        self.per_token -= size[0]
        self.per_pair -= size[1]
        self.constant -= size[2]

    def size(self) -> Size:
        return Size(self.per_token, self.per_pair, self.constant)

    def with_scratch(self, scratch: Size) -> Size:
        return _new(Size, (self.per_token + scratch[0], self.per_pair + scratch[1], self.constant + scratch[2]))
