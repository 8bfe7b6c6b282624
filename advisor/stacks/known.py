"""The stacks that can be priced, by name. A framework's room is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module

from advisor.stacks.facts import StackDefaults
from advisor.stacks.hf import HF
from advisor.values.vocabulary import Stack

_ROOMS = {
    Stack.TRL: "trl",
    Stack.PLAIN: "plain",
    Stack.AXOLOTL: "axolotl",
    Stack.LLAMAFACTORY: "llamafactory",
    Stack.MS_SWIFT: "ms_swift",
    Stack.TORCHTUNE: "torchtune",
}
"""Module of each stack; its defaults have the module's name in capitals."""


def defaults_of(stack: Stack) -> StackDefaults:
    """The defaults of one stack."""
    if stack is Stack.HF:
        return HF
    name = _ROOMS[stack]
    defaults: StackDefaults = getattr(import_module(f"advisor.stacks.{name}"), name.upper())
    return defaults
