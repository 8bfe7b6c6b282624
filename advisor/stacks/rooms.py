"""What is asked of a framework's room: which model a file names, its plan, and how its files spell a setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

from advisor.errors import InvalidInputError
from advisor.refusals import boundary
from advisor.stacks.detect import Opened
from advisor.stacks.fields import Fields
from advisor.stacks.keys import is_neutral, unread_remarks
from advisor.stacks.known import defaults_of, room_of
from advisor.stacks.nonsense import nonsense
from advisor.stacks.reading import Around, Reading, Remark
from advisor.stacks.script.left_open import unknown_remarks
from advisor.stacks.script.settings import LENGTHS
from advisor.stacks.stored import kernel_remarks
from advisor.values.plan import Plan
from advisor.values.vocabulary import Stack

_WORDS = {"flash": "flash_attention_2"}
_OPTION = re.compile(r"--([a-z][a-z-]*)(?: ((?!--)[\w.,-]*\w))?")


def _readers(stack: Stack, is_script: bool) -> ModuleType:
    """A script of TRL's is read as calls, its YAML as arguments of the command."""
    return room_of(Stack.HF if is_script else stack)


def model_named(opened: Opened, where: str) -> str | None:
    """The model that the file names; None where it names none."""
    named: str | None = _readers(opened.stack, opened.is_script).model_of(Fields(opened.values, where))
    return named


def read_opened(opened: Opened, around: Around, where: str) -> Reading:
    """The plan of an opened file, with a remark for every setting that was not read and may matter."""
    fields = Fields(opened.values, where)
    try:
        with boundary(where):
            reading: Reading = _readers(opened.stack, opened.is_script).read(fields, around)
    except InvalidInputError as error:
        raise error if where in str(error) else InvalidInputError(f"{where}: {error}") from None
    left = (*unread_remarks(opened.stack, fields), *unknown_remarks(opened.stack, fields, opened.unknown))
    said = LENGTHS if around.seq_len is not None else ()
    still_open = (remark for remark in opened.remarks if not is_neutral(opened.stack, remark.key))
    stops = nonsense(opened.stack, opened.values)
    found = (*reading.remarks, *stops, *left, *still_open, *_duplicates(opened), *kernel_remarks(reading.plan))
    remarks = tuple(remark for remark in found if remark.key not in said)
    return reading._replace(remarks=remarks, taken=(*opened.taken, *reading.taken))


def _duplicates(opened: Opened) -> Iterator[Remark]:
    for key in dict.fromkeys(opened.duplicates):
        yield Remark("duplicate-key", key, f"{key} stands twice: the last one counts, here and in the trainer", "leave one of them out")


def spelled(stack: Stack, hint: str) -> str:
    """The hint with the options that the framework has a setting for in its own words."""
    spellings = room_of(stack).SPELLINGS

    def in_its_words(found: re.Match[str]) -> str:
        known: str | None = spellings.get(found[1])
        if known is None:
            return found[0]
        value = found[2] or ""
        return known.format(_WORDS.get(value, value)) if "{}" in known else known + (f" {value}" if value else "")

    return _OPTION.sub(in_its_words, hint)


def setting_for(stack: Stack, what: str) -> str:
    """The framework's setting for `checkpointing` or `fused-loss`; empty where it has none."""
    return str(room_of(stack).SPELLINGS.get(what, ""))


def changed_settings(before: Plan, after: Plan) -> tuple[str, ...]:
    """Settings of the framework that turn the one plan into the other; none for frameworks whose files are not written."""
    write = getattr(room_of(before.stack), "write", None)
    if write is None:
        return ()
    lines = [tuple(write(plan, "", "0", defaults_of(before.stack))) for plan in (before, after)]
    return tuple(line for line in lines[1] if line not in lines[0])
