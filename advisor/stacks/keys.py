"""Settings that no reader asked for: proved to leave memory alone, or with the way in which they move it. None is dropped unsaid.

The rows are in profiles/stacks/keys.json. What stands in none of them may move memory either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from advisor.profiles import read
from advisor.stacks.fields import Fields
from advisor.stacks.reading import LAYERS_STAY, LOGITS_STAY, NOTHING_STAYS, RESTING_STAYS, WEIGHTS_STAY, Kept, Remark, Way
from advisor.values.vocabulary import Stack

_BASES: Mapping[Stack, tuple[Stack, ...]] = {
    Stack.TRL: (Stack.TRL, Stack.HF),
    Stack.LLAMAFACTORY: (Stack.LLAMAFACTORY, Stack.HF),
    Stack.MS_SWIFT: (Stack.MS_SWIFT, Stack.HF),
}
"""Frameworks whose arguments are TrainingArguments and more; their own rows come first."""
_OFF: tuple[Any, ...] = (None, False, 0, 0.0, "", "no", "none", "null", "false", [], {})
_MOST_CANDIDATES = 1
_LONGEST_COUNT = 7
"""Digits of a number of parts. Judgement: nobody splits over a million GPUs."""
_UNCOUNTED = "if it is spelt right, it may move memory that is not counted"
_KEPT: Mapping[str, Kept] = {
    "": NOTHING_STAYS,
    "training": WEIGHTS_STAY,
    "moving": RESTING_STAYS,
    "layers": LOGITS_STAY,
    "loss": LAYERS_STAY,
}
"""What stays at least of each part, by what a setting touches."""


@cache
def _rows(stack: Stack | None) -> tuple[Mapping[str, Any], ...]:
    wanted = ["peft"] if stack is None else [base.value for base in _BASES.get(stack, (stack,))]
    rows = [row for row in read("stacks") if row["kind"] == "keys"]
    return tuple(row for name in wanted for row in rows if row["stack"] == name)


@cache
def _not_priced(stack: Stack | None) -> Mapping[str, Any]:
    return {name: entry for row in reversed(_rows(stack)) for name, entry in row["not_priced"].items()}


def not_priced_names(stack: Stack) -> tuple[str, ...]:
    """Settings that move memory and are not priced, but for those that say that there is no card."""
    return tuple(name for name in _not_priced(stack) if name not in ("use_cpu", "no_cuda", "use_mps_device"))


@cache
def _neutral(stack: Stack | None) -> frozenset[str]:
    """Settings that are proved to leave memory alone; `group.*` stands for everything inside a group."""
    return frozenset(name for row in _rows(stack) for entry in row["neutral"] for name in entry["names"].split())


def is_neutral(stack: Stack | None, name: str) -> bool:
    """The setting is proved to leave memory alone."""
    known = _neutral(stack)
    return name in known or f"{name.partition('.')[0]}.*" in known


def unread_remarks(stack: Stack | None, fields: Fields) -> Iterator[Remark]:
    """One remark for each setting that was left over and is not proved to leave memory alone. No stack: those of a LoraConfig."""
    not_priced = _not_priced(stack)
    for name, value in fields.unread():
        entry = not_priced.get(name)
        if entry is not None:
            if _moves(value, entry):
                yield _priced_not(name, value, entry)
        elif not is_neutral(stack, name):
            text = f"{name} is no setting that is known here: it is not priced"
            yield Remark("unknown-key", name, text, _nearest(name, stack, fields), Way.EITHER)


def _moves(value: Any, entry: Mapping[str, Any]) -> bool:
    """This value of the setting moves memory: where it is on, or for some where it is switched off."""
    if entry.get("when_off"):
        return is_off(value)
    return not is_off(value) and not _is_one_of(value, entry.get("unless", ()))


def _priced_not(name: str, value: Any, entry: Mapping[str, Any]) -> Remark:
    kept = _KEPT[entry.get("touches", "")]
    if entry.get("divides"):
        parts = int(str(value)) if str(value).isdecimal() and len(str(value)) < _LONGEST_COUNT else 0
        kept = Kept(*(max(share, 1 / parts) for share in kept)) if parts else kept
    text = f"{name}: {_short(value)} ({entry['why']})"
    return Remark("not-priced", name, text, way=Way(entry["way"]), keeps=kept, adds_hidden=entry.get("adds_hidden"))


def _is_one_of(value: Any, patterns: tuple[Any, ...]) -> bool:
    """The value, or each of a list of values, is one of those that leave memory alone; texts are patterns."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_one_of(one, patterns) for one in value)
    return value in patterns or any(fnmatchcase(str(value), str(pattern)) for pattern in patterns if not isinstance(pattern, bool))


def is_off(value: Any) -> bool:
    """The value switches its setting off, or says nothing."""
    return any(value is off or (type(value) is type(off) and value == off) for off in _OFF) or (
        isinstance(value, str) and value.strip().lower() in ("false", "no", "none", "null", "", "0", "off")
    )


def _short(value: Any) -> str:
    return (
        f"({type(value).__name__})"
        if isinstance(value, (dict, list))
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)[:40]
    )


def _nearest(name: str, stack: Stack | None, fields: Fields) -> str:
    import difflib

    known = {*_neutral(stack), *_not_priced(stack), *fields.asked()}
    near = difflib.get_close_matches(name, sorted(known - {name}), n=_MOST_CANDIDATES, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else _UNCOUNTED
