"""The arguments of a trainer's command in a shell script, read as settings and never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks.commands import Job, Started, launcher_of, started
from advisor.stacks.files import looks_like_settings, read_text
from advisor.stacks.jobs import PRICED
from advisor.stacks.keys import is_off
from advisor.stacks.launch import offloaded, read_accelerate
from advisor.stacks.places import find_file
from advisor.stacks.reading import Launch
from advisor.stacks.shell import ShellCommand, commands_of, shown
from advisor.stacks.shell_words import is_open
from advisor.values.vocabulary import DType, Stack

STARTED_WITH = re.compile(r"^# start with: .*\((\d+) GPUs? in all\)", re.MULTILINE)
"""The line that `advise config` writes above a plan for several GPUs."""
_KNOWN = "swift sft, llamafactory-cli train, trl sft, axolotl train, tune run, or a Python script"
_PROCESSES = ("num_processes", "nproc_per_node", "num_gpus")
_PRECISIONS = {"bf16": DType.BF16, "fp16": DType.FP16, "no": DType.FP32}
_BUILT_IN = {"zero1": (1, False), "zero2": (2, False), "zero3": (3, False), "fsdp1": (None, True), "fsdp2": (None, True)}
"""Launchers' configurations that trl's command has by name (trl 1.16 accelerate_configs/)."""
MOST_CARDS = 10**5
ONE_PROCESS = "one process"


class Command(NamedTuple):
    """A trainer's command: whose it is, its arguments by name, and how many processes it starts."""

    stack: Stack
    values: dict[str, Any]
    launch: Launch = Launch()
    config: Path | None = None
    """A configuration file that it is given."""
    script: Path | None = None
    """A Python script that it runs."""
    arguments: tuple[str, ...] = ()
    """Words behind the script's name."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that the script sees."""
    open: tuple[tuple[str, str], ...] = ()
    """Settings that only running the script would show, with their texts there."""
    taken: tuple[str, ...] = ()
    lost: str = ""
    """The launcher's configuration where it cannot be found."""
    spread_over: int = 1
    """Cards that one process may spread the model over."""


def read_command(path: Path) -> Command:
    """The first command of the script that trains. Raises an AdvisorError for a script that starts no supervised fine-tuning."""
    found = [*_trainings(commands_of(read_text(path), path), path)]
    if not found:
        raise InvalidInputError(f"{path} starts no trainer that is known: {_KNOWN}")
    training = [pair for pair in found if pair[1].job is not Job.IDLE]
    if not training:
        raise UnsupportedError(f"{path} trains nothing: it starts {found[0][1].name}")
    command, start = training[0]
    switched = [name for name in ("USE_V1", "USE_MCA") if not is_off(command.environment.get(name))]
    if switched and start.stack is Stack.LLAMAFACTORY:
        raise UnsupportedError(f"{path} starts another trainer of LLaMA-Factory's ({switched[0]}), which is not read")
    if start.job is Job.OTHER:
        raise UnsupportedError(f"{path} trains by another objective: {start.name}; {PRICED}")
    read = _script(command, start, path) if start.job is Job.SCRIPT else _arguments(command, start, path)
    taken = (f"the script starts {len(training)} trainings: the first of them, {start.name}",) if len(training) > 1 else ()
    alone = read.launch.source == ONE_PROCESS and start.stack is Stack.MS_SWIFT
    return read._replace(taken=taken, spread_over=len(_cards(command)) if alone else 1)


def _trainings(commands: tuple[ShellCommand, ...], path: Path) -> Iterator[tuple[ShellCommand, Started]]:
    for command in commands:
        found = started(command.words, lambda word: find_file(word, path.parent) is not None)
        if found is not None:
            yield command, found


def _script(command: ShellCommand, start: Started, path: Path) -> Command:
    """A Python script with its arguments, and the launcher before it."""
    script = find_file(start.name, path.parent)
    if script is None:
        raise InvalidInputError(f"{path} starts {shown(start.name)}, and there is no such file beside it, above it or here")
    launch, lost = _launch(command, start, path)
    seen = tuple((name, value) for name, value in command.environment.items() if not is_open(value))
    return Command(
        start.stack,
        {},
        launch,
        script=script,
        arguments=command.words[start.at :],
        environment=seen,
        open=_open_machines(command, start),
        lost=lost,
    )


def _arguments(command: ShellCommand, start: Started, path: Path) -> Command:
    named, loose = _by_name(command.words[start.at :], start.stack)
    open_values = tuple((name, shown(_text(value))) for name, value in named.items() if is_open(_text(value)))
    values = {name: value for name, value in named.items() if not is_open(_text(value))}
    launch, lost = _launch(command, start, path)
    if start.stack in (Stack.TRL, Stack.AXOLOTL):
        launch = _inside(values, launch, path)
    stated = values.pop("config", None) or next((word for word in loose if looks_like_settings(Path(word))), None)
    config = None
    if stated is not None:
        config = find_file(str(stated), path.parent)
        if config is None:
            raise InvalidInputError(
                f"{path}: {start.name} takes {shown(str(stated))}, and there is no such file beside it, above it or here"
            )
    return Command(start.stack, values, launch, config, open=(*open_values, *_open_machines(command, start)), lost=lost)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _by_name(words: tuple[str, ...], stack: Stack) -> tuple[dict[str, Any], list[str]]:
    """`--name value …`, `--name=value` and `name=value` as settings, and the words before any of them."""
    values: dict[str, list[str]] = {}
    loose: list[str] = []
    current = loose
    for word in words:
        pair = re.match(r"(?:\+{0,2})([A-Za-z_][\w.]*)=(.*)", word, re.DOTALL) if stack in (Stack.LLAMAFACTORY, Stack.TORCHTUNE) else None
        if word == "--":
            current = loose
        elif word.startswith("--"):
            name, _, value = word[2:].partition("=")
            current = values.setdefault(shown(name).replace("-", "_"), [])
            current[:] = [value] if value else []
        elif pair:
            values[pair[1]] = [pair[2]]
        else:
            current.append(word)
    return {name: (found[0] if len(found) == 1 else found) if found else True for name, found in values.items()}, loose


def _inside(values: dict[str, Any], launch: Launch, path: Path) -> Launch:
    """Options of the launcher among a trainer's own: `trl sft --accelerate_config zero3 --num_processes 4` (trl 1.16 cli/accelerate.py),
    `axolotl train x.yml --launcher torchrun -- --nproc_per_node=2` (axolotl 0.19 cli/main.py)."""
    for name in ("launcher", "num_machines", "main_process_port"):
        values.pop(name, None)
    stated = values.pop("accelerate_config", None)
    if isinstance(stated, str):
        found = find_file(stated, path.parent)
        if found is not None:
            launch = read_accelerate(found)
        elif stated in _BUILT_IN:
            stage, fsdp = _BUILT_IN[stated]
            launch = launch._replace(zero_stage=stage, fsdp=fsdp, precision=DType.BF16, source=f"accelerate_config {stated}")
        elif stated not in ("multi_gpu", "single_gpu"):
            raise InvalidInputError(f"{path}: --accelerate_config {stated}: there is no such file beside it, above it or here")
    n_gpus = _processes({name: values.pop(name) for name in _PROCESSES if name in values}, {})
    return launch if n_gpus is None else launch._replace(n_gpus=n_gpus, source="the command's processes")


def _launch(command: ShellCommand, start: Started, path: Path) -> tuple[Launch, str]:
    """What the launcher decides by its configuration, its options, or the cards that its processes may see; and a file that is not here."""
    named, _ = _by_name(command.words[: start.at], Stack.HF)
    options = {name: value[0] if isinstance(value, list) else value for name, value in named.items()}
    stated = options.get("config_file")
    found = None if stated is None else find_file(str(stated), path.parent)
    launch = _by_options(options, Launch() if found is None else read_accelerate(found))
    lost = "" if stated is None or found is not None else shown(str(stated))
    n_gpus = _processes(options, command.environment)
    if n_gpus is not None:
        return launch._replace(n_gpus=n_gpus, source="the command's processes"), lost
    return (launch if launch.n_gpus is not None else _visible(command, start, launch)), lost


def _by_options(options: dict[str, Any], launch: Launch) -> Launch:
    """Flags of `accelerate launch` (accelerate 1.15 commands/launch.py)."""
    if options.get("use_fsdp"):
        launch = launch._replace(fsdp=True)
    if options.get("use_deepspeed") and str(options.get("zero_stage")) in ("0", "1", "2", "3"):
        launch = launch._replace(zero_stage=int(options["zero_stage"]))
    if str(options.get("mixed_precision")) in _PRECISIONS:
        launch = launch._replace(precision=_PRECISIONS[str(options["mixed_precision"])])
    on_host = offloaded(options.get("offload_optimizer_device"), options.get("offload_param_device"))
    return launch._replace(offload=on_host) if on_host else launch


def _processes(options: dict[str, Any], environment: dict[str, str]) -> int | None:
    """Processes in all: of one machine, times machines."""
    stated = next((options[name] for name in _PROCESSES if name in options), environment.get("NPROC_PER_NODE"))
    listed = str(options.get("include", "")).partition(":")[2] or str(options.get("gpu_ids", ""))
    if stated is None and re.fullmatch(r"\d+(,\d+)*", listed):
        stated = str(listed.count(",") + 1)
    nodes = _machines(options, environment)
    nodes = "1" if is_open(nodes) else nodes
    counts = [str(value).partition(":")[0] for value in (stated, nodes)]
    if "num_processes" in options:  # accelerate counts over all machines
        counts[1] = "1"
    if not all(count.isdecimal() and int(count[:12]) > 0 for count in counts):
        return None
    return int(counts[0]) * int(counts[1])


def _machines(options: dict[str, Any], environment: dict[str, str]) -> str:
    """How many machines, as the launcher is told; one, where it is told nothing."""
    return str(options.get("nnodes", environment.get("NNODES", "1")))


def _open_machines(command: ShellCommand, start: Started) -> tuple[tuple[str, str], ...]:
    """The number of machines where only the shell knows it: priced as one machine, whose processes the command says."""
    machines = _machines(_by_name(command.words[: start.at], Stack.HF)[0], command.environment)
    return (("nnodes", shown(machines)),) if is_open(machines) else ()


def _visible(command: ShellCommand, start: Started, launch: Launch) -> Launch:
    """Cards that the processes may see. ms-swift and plain Python start one process, the others one for each card."""
    visible = _cards(command)
    if not visible:
        return launch
    alone = start.stack is Stack.MS_SWIFT or start.job is Job.SCRIPT
    if alone and not launcher_of(command.words[: start.at]):
        return launch._replace(n_gpus=1, source=ONE_PROCESS)
    return launch._replace(n_gpus=len(visible), source="visible cards")


def _cards(command: ShellCommand) -> tuple[str, ...]:
    """Cards that the command may see; none where the script does not say it."""
    stated = command.environment.get("CUDA_VISIBLE_DEVICES", "")
    return () if is_open(stated) else tuple(card for card in stated.split(",") if card)


def started_with(text: str) -> int | None:
    """GPUs that the file's own first lines speak of."""
    found = STARTED_WITH.search(text)
    return int(found[1]) if found and 0 < int(found[1]) <= MOST_CARDS else None
