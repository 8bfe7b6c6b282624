"""The arguments of a trainer's command in a shell script, read as settings and never run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError
from advisor.json_files import is_file
from advisor.stacks.files import LARGEST_BYTES, read_text
from advisor.stacks.launch import read_accelerate
from advisor.stacks.reading import Launch
from advisor.values.vocabulary import Stack

COMMANDS = (
    (Stack.MS_SWIFT, re.compile(r"\bswift\s+(?:sft|pt|rlhf)\b|swift/cli/sft\.py")),
    (Stack.LLAMAFACTORY, re.compile(r"\b(?:llamafactory-cli|lmf)\s+train\b|src/train\.py")),
    (Stack.TRL, re.compile(r"\btrl\s+sft\b|trl/scripts/sft\.py")),
    (Stack.AXOLOTL, re.compile(r"\baxolotl\s+train\b|\baxolotl\.cli\.train\b")),
)
_ASSIGNED = re.compile(r"(?:^|\s)(NPROC_PER_NODE|NNODES|CUDA_VISIBLE_DEVICES)=(\"[^\"]*\"|'[^']*'|[^\s\\]*)")
ENDS = ("|", "&", "&&", ";", ">", "2>&1", ">>")
_LAUNCHERS = re.compile(r"\b(?:accelerate\s+launch|torchrun|deepspeed)\b")
_LAUNCH_CONFIG = re.compile(r"--config_file[=\s]+[\"']?([^\s\"']+)")
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
    text = expanded(re.sub(r"\\\r?\n", " ", read_text(path)), path)
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        for stack, pattern in COMMANDS:
            found = pattern.search(line)
            if found:
                values, config = _arguments(line[found.end() :], path)
                return Command(stack, values, launch_of(text, path), config)
    raise InvalidInputError(f"{path} starts no trainer that is known: swift sft, llamafactory-cli train, trl sft or axolotl train")


_VARIABLE = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=(\"[^\"$`]*\"|'[^']*'|[^\s\"'$`;]+)[ \t]*$", re.MULTILINE)
_USED = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_ARITHMETIC = re.compile(r"\$\(\(\s*(\d+)\s*([-+*/])\s*(\d+)\s*\)\)|\$\(\s*expr\s+(\d+)\s+(\\?[-+*/])\s+(\d+)\s*\)")


def expanded(text: str, path: Path) -> str:
    """The script with its literal variables and the arithmetic on them written out; anything else that a shell would do is left."""
    known: dict[str, str] = {}
    for name, value in _VARIABLE.findall(text):
        known.setdefault(name, value.strip("\"'"))
    if text.count("$") * max(map(len, known.values()), default=0) > LARGEST_BYTES:
        raise InvalidInputError(f"{path}: its variables stand for more than {LARGEST_BYTES // 1000:,} kB; it is no training script")
    return _ARITHMETIC.sub(_computed, _USED.sub(lambda used: known.get(used[1] or used[2], used[0]), text))


def _computed(found: re.Match[str]) -> str:
    left, sign, right = (part for part in found.groups() if part is not None)
    a, b = int(left[:18]), int(right[:18])
    operations = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}
    return str(operations[sign.removeprefix("\\")])


def _arguments(tail: str, path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        words = shlex.split(tail)
    except ValueError as error:
        raise InvalidInputError(f"{path}: the command cannot be read: {str(error).lower()}") from None
    values: dict[str, list[str]] = {}
    loose: list[str] = []
    for word in words:
        if word in ENDS or word.startswith("#"):
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


def launch_of(text: str, path: Path) -> Launch:
    """Processes that the launcher starts, by its configuration where that is here, or cards that it may see."""
    config = _LAUNCH_CONFIG.search(text)
    found = next((file for file in (path.parent / config[1], Path(config[1])) if is_file(file)), None) if config else None
    if found is not None:
        return read_accelerate(found)
    known = {name: value.strip("\"'") for name, value in _ASSIGNED.findall(text)}
    processes = _PROCESSES.search(text)
    per_node = processes[1] if processes else known.get("NPROC_PER_NODE", "")
    nodes = known.get("NNODES", "1")
    if per_node.isdecimal() and nodes.isdecimal() and int(per_node) * int(nodes) > 0:
        return Launch(n_gpus=int(per_node) * int(nodes), source="the command's processes")
    visible = [card for card in known.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    if not visible:
        return Launch()
    return Launch(n_gpus=len(visible), source="visible cards") if _LAUNCHERS.search(text) else Launch(n_gpus=1, source="one process")


def started_with(text: str) -> int | None:
    """GPUs that the file's own first lines speak of."""
    found = STARTED_WITH.search(text)
    return int(found[1]) if found and 0 < int(found[1]) <= 10**5 else None
