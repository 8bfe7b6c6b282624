"""Matches a downloaded adapter's patterns with module names, without letting one of them run for ever.

`rank_pattern` and `alpha_pattern` are regular expressions that whoever published the adapter wrote, and `(a+)+b` takes longer than anyone
waits. A key that is a name is matched here, in linear time; any other in a child process with a limit on its time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from advisor.errors import InvalidInputError, UnsupportedError

LONGEST_KEY = 1000
"""Characters of a key. Judgement: a module's name has fewer than 150."""
LIMIT_S = 2.0
"""For all the patterns of an adapter with all its modules. Judgement: peft's own take milliseconds."""
_A_NAME = re.compile(r"\^?(?:[\w/-]|\\?\.)+")
"""A module's name, or the end of one, as peft and people write it: nothing in it repeats."""
_CHILD = r"""
import json, re, sys, warnings
warnings.simplefilter("error")  # Python 3.10 only warns of what later ones refuse: a flag amid a pattern
keys, names = json.load(sys.stdin)
compiled = []
for number, key in enumerate(keys):
    try:
        compiled.append(re.compile(r"(.*\.)?(" + key + r")$"))
    except Exception as error:
        json.dump({"wrong": number, "why": str(error)}, sys.stdout)
        raise SystemExit
json.dump({"found": [next((n for n, one in enumerate(compiled) if one.match(name)), None) for name in names]}, sys.stdout)
"""


def first_matches(keys: Sequence[str], names: Sequence[str], where: str) -> Mapping[str, str]:
    """For each name the first key that matches its end (peft 0.21, utils/other.py get_pattern_key); names without one are left out.

    `where` names the file and the field in errors. Raises InvalidInputError for a key that is no regular expression, UnsupportedError
    for keys that cannot be matched within `LIMIT_S`.
    """
    if not keys:
        return {}
    _check_length(keys, where)
    if all(_A_NAME.fullmatch(key) for key in keys):
        compiled = [re.compile(rf"(.*\.)?({key})$") for key in keys]
        numbers: Iterable[int | None] = [next((n for n, one in enumerate(compiled) if one.match(name)), None) for name in names]
    else:
        numbers = _in_a_child(keys, names, where)
    return {name: keys[number] for name, number in zip(names, numbers, strict=True) if number is not None}


def _check_length(keys: Sequence[str], where: str) -> None:
    longest = max(keys, key=len)
    if len(longest) > LONGEST_KEY:
        raise InvalidInputError(f"{where} has a key of {len(longest):,} characters: it is no pattern of module names")


def _in_a_child(keys: Sequence[str], names: Sequence[str], where: str) -> list[int | None]:
    """Numbers of the keys, from a process of its own: Python cannot stop a match from inside."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(command, input=json.dumps([keys, names]), capture_output=True, text=True, timeout=LIMIT_S, check=True)
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise UnsupportedError(f"{where} holds a pattern that takes longer than {LIMIT_S:g} s to match: write the modules' names") from None
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UnsupportedError(f"{where} holds patterns that cannot be matched here ({type(error).__name__}): write the names") from None
    if "wrong" in said:
        raise InvalidInputError(f"{where} has the key {keys[said['wrong']][:80]!r}, which is no regular expression ({said['why'][:120]})")
    found: list[int | None] = said["found"]
    return found
