"""Which trainer a command line starts, through whatever launches it, and what kind of job that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePosixPath
from typing import NamedTuple

from advisor.values.vocabulary import Stack


class Job(str, Enum):
    """What a command does."""

    TUNES = "tunes"
    """Supervised fine-tuning."""
    OTHER = "other"
    """Trains by another objective."""
    IDLE = "idle"
    """Trains nothing."""
    SCRIPT = "script"
    """Runs a Python script, which decides."""


class Started(NamedTuple):
    """A trainer's command among the words of a command line."""

    job: Job
    stack: Stack
    name: str
    """As it is called."""
    at: int
    """Index of the first word behind its name."""


_LAUNCHERS = frozenset(("accelerate", "torchrun", "deepspeed"))
_BEFORE = _LAUNCHERS | {"nohup", "time", "env", "exec", "sudo", "srun", "uv", "poetry", "conda", "numactl"}
_PYTHON = re.compile(r"^python[\d.]*$")
_OBJECTIVES = ("dpo", "kto", "grpo", "reward", "rloo", "orpo", "cpo", "ppo", "gkd")
_SUBCOMMANDS: Mapping[str, tuple[Stack, Mapping[str, Job]]] = {
    "swift": (Stack.MS_SWIFT, {"sft": Job.TUNES, "pt": Job.TUNES, "rlhf": Job.OTHER}),
    "megatron": (Stack.MS_SWIFT, {"sft": Job.OTHER, "pt": Job.OTHER, "rlhf": Job.OTHER}),
    "llamafactory-cli": (Stack.LLAMAFACTORY, {"train": Job.TUNES}),
    "lmf": (Stack.LLAMAFACTORY, {"train": Job.TUNES}),
    "trl": (Stack.TRL, {"sft": Job.TUNES, **dict.fromkeys(_OBJECTIVES, Job.OTHER)}),
    "axolotl": (Stack.AXOLOTL, {"train": Job.TUNES}),
    "tune": (Stack.TORCHTUNE, {"run": Job.TUNES}),
}
"""Commands with what they do; every other word behind them trains nothing (ms-swift 4.6 cli/main.py, llamafactory 0.9.5 launcher.py,
trl 1.16 cli/, axolotl 0.19 cli/main.py, torchtune 0.6.1 _cli/)."""
_MODULES: Mapping[str, tuple[str, str]] = {
    "swift.cli.sft": ("swift", "sft"),
    "swift.cli.pt": ("swift", "pt"),
    "swift.cli.rlhf": ("swift", "rlhf"),
    "axolotl.cli.train": ("axolotl", "train"),
    "axolotl.cli.inference": ("axolotl", "inference"),
    "axolotl.cli.preprocess": ("axolotl", "preprocess"),
    "trl.scripts.sft": ("trl", "sft"),
    "llamafactory.launcher": ("llamafactory-cli", "train"),
    "llamafactory.train": ("llamafactory-cli", "train"),
}
_CLIS: Mapping[str, str] = {
    "llamafactory.cli": "llamafactory-cli",
    "trl.cli": "trl",
    "axolotl.cli.main": "axolotl",
    "axolotl.cli": "axolotl",
    "swift.cli.main": "swift",
}
"""Modules that take the same words as a command."""
_FILES: tuple[tuple[str, tuple[str, str]], ...] = (
    ("swift/cli/sft.py", ("swift", "sft")),
    ("swift/cli/pt.py", ("swift", "pt")),
    ("swift/cli/rlhf.py", ("swift", "rlhf")),
    ("llamafactory/launcher.py", ("llamafactory-cli", "train")),
    ("src/train.py", ("llamafactory-cli", "train")),
    ("src/train_bash.py", ("llamafactory-cli", "train")),
)
_RECIPES: tuple[tuple[str, Job], ...] = (
    ("dpo", Job.OTHER),
    ("ppo", Job.OTHER),
    ("grpo", Job.OTHER),
    ("knowledge_distillation", Job.OTHER),
    ("qat", Job.OTHER),
    ("early_exit", Job.OTHER),
    ("generate", Job.IDLE),
    ("eval", Job.IDLE),
    ("quantize", Job.IDLE),
)
"""Parts of the names of torchtune's recipes (torchtune 0.6.1 _recipe_registry.py)."""
_TRL_SCRIPT = re.compile(rf"^(?:run_)?(sft|{'|'.join(_OBJECTIVES)})(?:_\w+)?\.py$")


def started(words: tuple[str, ...], is_there: Callable[[str], bool]) -> Started | None:
    """The trainer that the words start, or a Python script; None where they start neither. `is_there`: the script can be read."""
    for at, word in enumerate(words):
        found = _at(words, at, word, is_there)
        if found is not None:
            return found
        if at == 0 and not (PurePosixPath(word).name in _BEFORE or _PYTHON.match(PurePosixPath(word).name)):
            return None
    return None


def launcher_of(words: tuple[str, ...]) -> bool:
    """One of the words starts several processes."""
    names = [PurePosixPath(word).name for word in words]
    return any(name in _LAUNCHERS for name in names) or "torch.distributed.run" in names or "torch.distributed.launch" in names


def _at(words: tuple[str, ...], at: int, word: str, is_there: Callable[[str], bool]) -> Started | None:
    name, following = PurePosixPath(word).name, words[at + 1] if at + 1 < len(words) else ""
    if name in _SUBCOMMANDS and following and (at == 0 or words[at - 1] != "-m"):
        return _subcommand(name, following, words, at + 2)
    if word == "-m" and following in _MODULES:
        return _subcommand(*_MODULES[following], words, at + 2)
    if word == "-m" and following in _CLIS:
        return _subcommand(_CLIS[following], words[at + 2] if at + 2 < len(words) else "", words, at + 3)
    if word.endswith(".py") and (at == 0 or words[at - 1] != "-c"):
        return _file(word, words, at + 1, is_there)
    return None


def _subcommand(name: str, sub: str, words: tuple[str, ...], at: int) -> Started:
    stack, jobs = _SUBCOMMANDS[name]
    job = jobs.get(sub, Job.IDLE)
    if name == "tune" and job is Job.TUNES:
        return _recipe(words, at)
    return Started(job, stack, f"{name} {sub}", at)


def _recipe(words: tuple[str, ...], at: int) -> Started:
    """`tune run [torchrun's options] RECIPE --config …`; every option of torchrun but --standalone has a value."""
    place = at
    while place < len(words) and words[place].startswith("-"):
        place += 1 if "=" in words[place] or words[place] == "--standalone" else 2
    if place >= len(words):
        return Started(Job.IDLE, Stack.TORCHTUNE, "tune run", place)
    job = next((job for part, job in _RECIPES if part in words[place]), Job.TUNES)
    return Started(job, Stack.TORCHTUNE, f"tune run {words[place]}", place + 1)


def _file(word: str, words: tuple[str, ...], at: int, is_there: Callable[[str], bool]) -> Started:
    """A framework's own script, one of TRL's where the file itself cannot be read, or anybody's."""
    for ending, (name, sub) in _FILES:
        if word == ending or word.endswith(f"/{ending}"):
            return _subcommand(name, sub, words, at)
    trl = _TRL_SCRIPT.match(PurePosixPath(word).name)
    if trl is not None and ("trl/scripts/" in word or not is_there(word)):
        job = Job.TUNES if trl[1] == "sft" else Job.OTHER
        return Started(job, Stack.TRL, word, at)
    return Started(Job.SCRIPT, Stack.HF, word, at)
