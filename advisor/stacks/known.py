"""The stacks that can be priced, by name."""

from __future__ import annotations

from advisor.stacks.facts import StackDefaults
from advisor.stacks.hf import HF
from advisor.stacks.plain import PLAIN
from advisor.stacks.trl import TRL
from advisor.values.vocabulary import Stack

_BY_STACK = {defaults.stack: defaults for defaults in (HF, TRL, PLAIN)}


def defaults_of(stack: Stack) -> StackDefaults:
    """The defaults of one stack."""
    return _BY_STACK[stack]
