"""The arguments of a trainer's command in a shell script, read as settings and never run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError
from advisor.stacks.files import read_text
from advisor.stacks.reading import Launch
from advisor.values.vocabulary import Stack

_COMMANDS = (
    (Stack.MS_SWIFT, re.compile(r"\bswift\s+(?:sft|pt|rlhf)\b|swift/cli/sft\.py")),
    (Stack.LLAMAFACTORY, re.compile(r"\b(?:llamafactory-cli|lmf)\s+train\b|src/train\.py")),
    (Stack.TRL, re.compile(r"\btrl\s+sft\b|trl/scripts/sft\.py")),
)
_ASSIGNED = re.compile(r"(?:^|\s)(NPROC_PER_NODE|NNODES|CUDA_VISIBLE_DEVICES)=(\"[^\"]*\"|'[^']*'|[^\s\\]*)")
_PROCESSES = re.compile(r"--(?:num[-_]processes|nproc[-_]per[-_]node)[=\s]+(\d+)")
STARTED_WITH = re.compile(r"^# start with: .*\((\d+) GPUs in all\)", re.MULTILINE)
"""The line that `advise config` writes above a plan for several GPUs."""


class Command(NamedTuple):
    """A trainer's command: whose it is, its arguments by name, and how many processes it starts."""

    stack: Stack
    values: dict[str, Any]
    launch: Launch
    config: str | None
    """A configuration file that it is given."""


def read_command(path: Path) -> Command:
    """The first command of the script that trains."""
    text = re.sub(r"\\\r?\n", " ", read_text(path))
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        for stack, pattern in _COMMANDS:
            found = pattern.search(line)
            if found:
                values, config = _arguments(line[found.end() :], path)
                return Command(stack, values, _launch(text), config)
    raise InvalidInputError(f"{path} starts no trainer that is known: swift sft, llamafactory-cli train or trl sft")


def _arguments(tail: str, path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        words = shlex.split(tail, comments=True)
    except ValueError as error:
        raise InvalidInputError(f"{path}: the command cannot be read: {str(error).lower()}") from None
    values: dict[str, list[str]] = {}
    loose: list[str] = []
    for word in words:
        if word in ("|", "&", "&&", ";", ">", "2>&1", ">>"):
            break
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            loose = values.setdefault(name.replace("-", "_"), [])
            loose[:] = [value] if value else []
        else:
            loose.append(word)
    named = {name: (found[0] if len(found) == 1 else found) if found else True for name, found in values.items()}
    config = named.pop("config", None)
    first = next((word for word in words[:1] if not word.startswith("--")), None)
    return named, config if isinstance(config, str) else first


def _launch(text: str) -> Launch:
    """Processes that the launcher starts, or cards that it may see."""
    known = {name: value.strip("\"'") for name, value in _ASSIGNED.findall(text)}
    processes = _PROCESSES.search(text)
    per_node = processes[1] if processes else known.get("NPROC_PER_NODE", "")
    nodes = known.get("NNODES", "1")
    if per_node.isdecimal() and nodes.isdecimal() and int(per_node) * int(nodes) > 0:
        return Launch(n_gpus=int(per_node) * int(nodes), source="the command's processes")
    return Launch(n_gpus=1, source="one process") if known.get("CUDA_VISIBLE_DEVICES") else Launch()


def started_with(text: str) -> int | None:
    """GPUs that the file's own first lines speak of."""
    found = STARTED_WITH.search(text)
    return int(found[1]) if found and 0 < int(found[1]) <= 10**5 else None
