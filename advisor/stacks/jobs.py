"""Refuse by name a file whose job is no supervised fine-tuning, which trains nothing, or whose framework is not read.

What says so are rows of profiles/stacks/jobs.json, each with its source. The job is read before the plan and before the model: a price
of supervised fine-tuning for another objective would be an answer to another question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from advisor.errors import UnsupportedError
from advisor.profiles import read
from advisor.stacks.fields import value_at
from advisor.stacks.keys import is_off
from advisor.values.vocabulary import Stack

PRICED = "supervised fine-tuning is priced, and nothing else yet"
MOST_NAMED = 3
"""Trainers and settings that the line names. Judgement."""
_TRAINERS_OF: Mapping[Stack, tuple[str, ...]] = {
    Stack.TRL: ("trl",),
    Stack.HF: ("trl",),
    Stack.MS_SWIFT: ("ms-swift", "trl"),
}
"""Whose other trainers may own a setting of a file; a file of plain TrainingArguments may be any of TRL's."""


@cache
def _rows(kind: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(row for row in read("stacks") if row["kind"] == kind)


def refuse_other_frameworks(values: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedError for a file of a framework that is not read."""
    for row in _rows("foreign"):
        named = [name for name in row["any_of"].split() if name in values]
        if named and all(name in values for name in row["all_of"].split()):
            raise UnsupportedError(f"{where} is a configuration of {row['label']} ({named[0]}), which is not read")


def refuse_other_jobs(stack: Stack, values: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedError, one line that names the trainer, for every job but supervised fine-tuning."""
    named = next(_other_jobs(stack, values), None)
    if named is not None:
        raise UnsupportedError(f"{where} trains by another objective: {named}; {PRICED}")
    why = _idle(stack, values)
    if why:
        raise UnsupportedError(f"{where} trains nothing: {why}")


def trainers_of_loss(word: str) -> tuple[str, ...]:
    """TRL's trainers that have a loss of this name."""
    return tuple(name for name, entry in _trainers("trl").items() if word.lower() in entry.get("losses", "").split())


def _other_jobs(stack: Stack, values: Mapping[str, Any]) -> Iterator[str]:
    for row in _rows("job"):
        if row["stack"] == stack.value:
            yield from (f"{row['job'].format(word)}" for word in _deciding(row, value_at(values, row["key"])))
    for library in _TRAINERS_OF.get(stack, ()):
        yield from _by_loss(values, library)
        yield from _by_settings(values, library)


def _deciding(row: Mapping[str, Any], value: Any) -> Iterator[str]:
    """Words of a setting that say that the job is another one."""
    if value is None or is_off(value):
        return
    for entry in value if isinstance(value, (list, tuple)) else (value,):
        word = str(entry).strip()
        if "matches" in row and not any(fnmatchcase(word, pattern) for pattern in row["matches"]):
            continue
        if word.lower() not in row.get("unless", ()):
            yield "on" if entry is True else word[:60]


@cache
def _trainers(library: str) -> Mapping[str, Mapping[str, str]]:
    return {name: entry for row in _rows("trainers") if row["stack"] == library for name, entry in row["trainers"].items()}


def _by_loss(values: Mapping[str, Any], library: str) -> Iterator[str]:
    """`loss_type` of another trainer: a word, or a list of words as trl 1.16's DPO has it."""
    stated = values.get("loss_type")
    if library != "trl" or stated is None:
        return
    for word in stated if isinstance(stated, (list, tuple)) else str(stated).strip("[]").replace(",", " ").split():
        names = trainers_of_loss(str(word).strip("\"'"))
        if names:
            yield f"{_listed(names)} (loss_type: {word})"


def _by_settings(values: Mapping[str, Any], library: str) -> Iterator[str]:
    """Settings that supervised fine-tuning does not have: the trainers that have the most of them."""
    table = _trainers(library)
    owned = {name: set(entry["settings"].split()) for name, entry in table.items()}
    everyone = set[str]().union(*owned.values())
    present = [name for name, value in values.items() if name in everyone and value is not None]
    if not present:
        return
    most = max(len(owned[name].intersection(present)) for name in owned)
    names = tuple(name for name in owned if len(owned[name].intersection(present)) == most)
    yield f"{_listed(names)} ({', '.join(present[:MOST_NAMED])})"


def _listed(names: tuple[str, ...]) -> str:
    shown = names[:MOST_NAMED]
    more = " and others" if len(names) > MOST_NAMED else ""
    return f"one of {', '.join(shown)}{more}" if len(names) > 1 else shown[0]


def _idle(stack: Stack, values: Mapping[str, Any]) -> str:
    for row in _rows("idle"):
        if row["stack"] == stack.value and is_off(values.get(row["needs"])):
            return str(row["why"])
    evaluates = any(values.get(name) is not None and not is_off(values[name]) for name in ("do_eval", "do_predict"))
    stated = values.get("do_train")
    if stack in (Stack.HF, Stack.TRL) and stated is not None and is_off(stated) and evaluates:
        return "do_train is off, and it evaluates"
    return ""
