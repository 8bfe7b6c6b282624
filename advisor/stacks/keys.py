"""Settings that no reader asked for: those that move memory and are not priced, and those that nobody knows. None is dropped unsaid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from advisor.profiles import read
from advisor.stacks.fields import Fields
from advisor.stacks.reading import Remark, Way
from advisor.values.vocabulary import Stack

_BASES: Mapping[Stack, tuple[Stack, ...]] = {
    Stack.TRL: (Stack.TRL, Stack.HF),
    Stack.LLAMAFACTORY: (Stack.LLAMAFACTORY, Stack.HF),
    Stack.MS_SWIFT: (Stack.MS_SWIFT, Stack.HF),
}
"""Frameworks whose arguments are TrainingArguments and more."""
_OFF: tuple[Any, ...] = (False, 0, "", "no", "none", "null", "false", [], {})
_MOST_CANDIDATES = 1
_UNCOUNTED = "if it is spelt right, it may move memory that is not counted"


@cache
def _rows(stack: Stack | None) -> tuple[Mapping[str, Any], ...]:
    wanted = ["peft"] if stack is None else [base.value for base in _BASES.get(stack, (stack,))]
    return tuple(row for row in read("stacks") if row["kind"] == "keys" and row["stack"] in wanted)


def _not_priced(stack: Stack | None) -> Mapping[str, Any]:
    return {name: entry for row in _rows(stack) for name, entry in row["not_priced"].items()}


def not_priced_names(stack: Stack) -> tuple[str, ...]:
    """Settings that move memory and are not priced, but for those that say that there is no card."""
    return tuple(name for name in _not_priced(stack) if name not in ("use_cpu", "no_cuda", "use_mps_device"))


@cache
def _known(stack: Stack | None) -> frozenset[str]:
    return frozenset(name for row in _rows(stack) for name in row["known"].split())


@cache
def _groups(stack: Stack | None) -> Mapping[str, frozenset[str]]:
    """Settings that hold settings: which of the inner ones are read, or leave memory alone."""
    return {group: frozenset(names.split()) for row in _rows(stack) for group, names in row.get("groups", {}).items()}


def is_neutral(stack: Stack | None, name: str) -> bool:
    """Whether a setting that no reader asked for is known to leave memory alone. No stack: the settings of a LoraConfig."""
    return name in _known(stack) and name not in _not_priced(stack)


def unread_remarks(stack: Stack | None, fields: Fields) -> Iterator[Remark]:
    """One remark for each setting that was left over and is not known to leave memory alone. No stack: the settings of a LoraConfig."""
    not_priced = _not_priced(stack)
    for name, value in fields.unread():
        entry = not_priced.get(name)
        if entry is not None:
            if not _is_off(value) and value not in entry.get("unless", ()):
                yield Remark("not-priced", name, f"{name}: {_short(value)} ({entry['why']})", way=Way(entry["way"]))
        elif name not in _known(stack):
            yield Remark("unknown-key", name, f"{name} is no setting that is known here: it is not priced", _nearest(name, stack))
    for group, known in _groups(stack).items():
        inner = fields.raw(group)
        for name in sorted(set(map(str, inner)) - known) if isinstance(inner, Mapping) else ():
            key = f"{group}.{name}"
            yield Remark("unknown-key", key, f"{key} is no setting that is known here: it is not priced", _UNCOUNTED)


def _is_off(value: Any) -> bool:
    return any(value is off or (type(value) is type(off) and value == off) for off in _OFF) or (
        isinstance(value, str) and value.strip().lower() in ("false", "no", "none", "null", "")
    )


def _short(value: Any) -> str:
    return (
        f"({type(value).__name__})"
        if isinstance(value, (dict, list))
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)[:40]
    )


def _nearest(name: str, stack: Stack | None) -> str:
    import difflib

    near = difflib.get_close_matches(name, _known(stack), n=_MOST_CANDIDATES, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else _UNCOUNTED
