"""The stacks that can be priced, by name. A framework's room is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from advisor.stacks.facts import StackDefaults
from advisor.stacks.hf import HF
from advisor.values.vocabulary import Stack

_ROOMS = {
    Stack.HF: "hf_arguments",
    Stack.TRL: "trl",
    Stack.PLAIN: "plain",
    Stack.AXOLOTL: "axolotl",
    Stack.LLAMAFACTORY: "llamafactory",
    Stack.MS_SWIFT: "ms_swift",
    Stack.TORCHTUNE: "torchtune",
}
"""Module of each stack; its defaults have the module's name in capitals."""


def room_of(stack: Stack) -> ModuleType:
    """`model_of`, `read` and `SPELLINGS` of a framework, and `write` where its files are written; a hand-written loop has defaults only."""
    return import_module(f"advisor.stacks.{_ROOMS[stack]}")


def defaults_of(stack: Stack) -> StackDefaults:
    """The defaults of one stack. Those of the Trainer come without its readers, as every other stack starts from them."""
    if stack is Stack.HF:
        return HF
    defaults: StackDefaults = getattr(room_of(stack), _ROOMS[stack].upper())
    return defaults
