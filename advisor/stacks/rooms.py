"""The rooms by stack: which model a file names, and how it is read and written. Each framework is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks.detect import Opened
from advisor.stacks.fields import Fields
from advisor.stacks.keys import unread_remarks
from advisor.stacks.reading import Around, Reading, Remark
from advisor.values.vocabulary import Stack

_MODULES = {
    Stack.HF: "hf_arguments",
    Stack.TRL: "trl",
    Stack.AXOLOTL: "axolotl",
    Stack.LLAMAFACTORY: "llamafactory",
    Stack.MS_SWIFT: "ms_swift",
    Stack.TORCHTUNE: "torchtune",
}


class Room(NamedTuple):
    model_of: Callable[[Fields], str | None]
    read: Callable[[Fields, Around], Reading]


def room_of(stack: Stack, is_script: bool = False) -> Room:
    """The readers of one framework. A script of TRL's is read as calls, its YAML as arguments of the command."""
    name = "hf_arguments" if is_script else _MODULES.get(stack)
    if name is None:
        raise UnsupportedError(f"{stack.value}: a hand-written loop has no configuration to read")
    module = import_module(f"advisor.stacks.{name}")
    return Room(module.model_of, module.read)


def model_named(opened: Opened, where: str, is_script: bool) -> str | None:
    """The model that the file names; None where it names none."""
    return room_of(opened.stack, is_script).model_of(Fields(opened.values, where))


def read_opened(opened: Opened, around: Around, where: str, is_script: bool = False) -> Reading:
    """The plan of an opened file, with a remark for every setting that was not read and may matter."""
    fields = Fields(opened.values, where)
    try:
        reading = room_of(opened.stack, is_script).read(fields, around)
    except InvalidInputError as error:
        raise error if where in str(error) else InvalidInputError(f"{where}: {error}") from None
    left = () if is_script else tuple(unread_remarks(opened.stack, fields))
    return reading._replace(remarks=(*reading.remarks, *left, *_duplicates(opened)), taken=(*opened.taken, *reading.taken))


def _duplicates(opened: Opened) -> Iterator[Remark]:
    for key in dict.fromkeys(opened.duplicates):
        yield Remark("duplicate-key", key, f"{key} stands twice: the last one counts, here and in the trainer", "leave one of them out")
