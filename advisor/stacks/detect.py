"""Whose file it is, and what it holds: one door for every kind of configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import is_file
from advisor.errors import InvalidInputError
from advisor.json_files import read_object
from advisor.stacks.command_line import Command, read_command, started_with
from advisor.stacks.files import parse_settings, read_text
from advisor.stacks.jobs import refuse_other_frameworks
from advisor.stacks.launch import is_accelerate
from advisor.stacks.reading import Kept, Launch, Remark, Way
from advisor.stacks.script import ENDINGS, Start, parse_script
from advisor.stacks.script.values import Unknown
from advisor.values.vocabulary import Stack

ADAPTER_CONFIG = "adapter_config.json"
SHELL = (".sh", ".bash")
_LLAMAFACTORY = frozenset(
    [
        "finetuning_type",
        "stage",
        "cutoff_len",
        "template",
        "lora_rank",
        "lora_target",
        "dataset_dir",
        "quantization_bit",
        "pure_bf16",
        "flash_attn",
        "disable_gradient_checkpointing",
        "enable_liger_kernel",
        "template",
    ]
)
_TRL = frozenset(
    [
        "use_peft",
        "lora_r",
        "lora_target_modules",
        "dataset_name",
        "load_in_4bit",
        "load_in_8bit",
        "loss_type",
        "packing",
        "max_length",
        "datasets",
        "dataset_mixture",
        "dataset_mixer",
        "max_seq_length",
    ]
)
_MS_SWIFT = frozenset(
    [
        "tuner_type",
        "train_type",
        "sft_type",
        "lora_rank",
        "quant_bits",
        "torch_dtype",
        "attn_impl",
        "target_modules",
        "max_length",
        "dataset",
    ]
)
_ARGUMENTS = frozenset(["per_device_train_batch_size", "gradient_accumulation_steps", "output_dir", "num_train_epochs", "optim"])


class Opened(NamedTuple):
    """A file that was read, and whose it is."""

    stack: Stack
    values: dict[str, Any]
    text: str
    duplicates: tuple[str, ...] = ()
    launch: Launch = Launch()
    taken: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    """What was found open while the file was opened."""
    lost: str = ""
    """The launcher's configuration where the command names one that is not here."""
    is_script: bool = False
    """Python, whose calls are read, and no file of settings."""
    unknown: Mapping[str, Unknown] = {}
    """Settings that a script sets to what its text does not say."""
    loads_first: bool = False
    """A script loads the model before it makes the trainer's arguments."""


def open_file(path: Path, stack: Stack | None, start: Start | None = None) -> Opened:
    """Reads the file and finds out whose it is; `stack` is the user's word for it, `start` what a script is started with."""
    if path.suffix in SHELL:
        return _open_command(read_command(path), stack, start or Start())
    return open_text(read_text(path), path, stack, start)


def _open_command(command: Command, stack: Stack | None, start: Start) -> Opened:
    """What a shell script's command trains: its arguments, over the file that it is given, or a Python script."""
    remarks = (*(_left_open(name, text) for name, text in command.open), *_spread(command.spread_over))
    if command.script is not None:
        start = start._replace(arguments=(*command.arguments, *(start.arguments or ())))
        opened = open_text(read_text(command.script), command.script, stack, start)
        taken = (f"script: {command.script}", *command.taken, *opened.taken)
        return opened._replace(launch=command.launch, taken=taken, lost=command.lost, remarks=(*opened.remarks, *remarks))
    if command.config is None:
        return Opened(stack or command.stack, command.values, "", (), command.launch, command.taken, remarks, command.lost)
    inner = open_text(read_text(command.config), command.config, stack or command.stack)
    values = with_changes(inner.values, command.values)
    taken = (f"configuration: {command.config}", *command.taken, *inner.taken)
    return inner._replace(values=values, launch=command.launch, taken=taken, remarks=(*inner.remarks, *remarks), lost=command.lost)


def with_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others written over them; `a.b=c` reaches into a group."""
    result = dict(values)
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        group = result.get(outer)
        result[outer] = value if not inner else with_changes(group if isinstance(group, Mapping) else {}, {inner: value})
    return result


def _spread(n_cards: int) -> Iterator[Remark]:
    """ms-swift 4.6 model/utils.py `get_default_device_map`, utils/env.py `is_mp`: device_map is `auto` where one process sees several
    cards (unless SWIFT_SINGLE_DEVICE_MODE is 1, or FSDP or ZeRO-3 is on)."""
    if n_cards > 1:
        text = f"one process spreads the model over {n_cards} cards: priced on one"
        yield Remark("not-priced", "CUDA_VISIBLE_DEVICES", text, way=Way.DOWN, keeps=Kept(*[1 / n_cards] * len(Kept._fields)))


def _left_open(name: str, text: str) -> Remark:
    said = f"{name} is {text}, which only running the script would show: priced as if it were left out"
    return Remark("left-open", name.lstrip("-"), said, way=Way.EITHER)


def open_text(text: str, path: Path, stack: Stack | None, start: Start | None = None) -> Opened:
    """The same of a text that is a script or settings, by the ending of `path`."""
    if path.suffix in ENDINGS:
        found = parse_script(text, path, start)
        script = Opened(stack or found.stack, found.values, text, launch=_started(text), taken=found.taken, is_script=True)
        return script._replace(unknown=found.unknown, remarks=found.remarks, loads_first=found.loads_first)
    file = parse_settings(text, path)
    values: dict[str, Any] = file.values
    taken: tuple[str, ...] = ()
    whose = stack if stack is not None else detected(values, path)
    if whose is Stack.HF and "peft" not in values and is_file(path.parent / ADAPTER_CONFIG):
        values = {**values, "peft": read_object(path.parent / ADAPTER_CONFIG)}
        taken = (f"adapter: {path.parent / ADAPTER_CONFIG}, which lies beside the file",)
    return Opened(whose, values, file.text, file.duplicates, _started(file.text), taken)


def _started(text: str) -> Launch:
    n_gpus = started_with(text)
    return Launch() if n_gpus is None else Launch(n_gpus=n_gpus, source="the file's first lines")


def detected(values: dict[str, Any], path: Path) -> Stack:
    """The framework, by keys that no other has. Raises InvalidInputError where none is certain."""
    names = frozenset(values)
    _refuse_others(names, values, path)
    if any(isinstance(value, dict) and "_component_" in value for value in values.values()):
        return Stack.TORCHTUNE
    if "base_model" in names:
        return Stack.AXOLOTL
    if "model_name_or_path" in names and names & _LLAMAFACTORY:
        return Stack.LLAMAFACTORY
    if "model_name_or_path" in names and names & _TRL:
        return Stack.TRL
    if ("model" in names or "model_id_or_path" in names) and names & (_MS_SWIFT | _ARGUMENTS):
        return Stack.MS_SWIFT
    if len(names & _ARGUMENTS) >= 2:
        return Stack.HF
    known = ", ".join(stack.value for stack in Stack if stack is not Stack.PLAIN)
    raise InvalidInputError(f"{path}: it is not clear whose configuration this is; say it with --stack ({known})")


def _refuse_others(names: frozenset[str], values: dict[str, Any], path: Path) -> None:
    if is_accelerate(values):
        raise InvalidInputError(f"{path} is the launcher's configuration; check the trainer's, and give this one as --accelerate {path}")
    if "zero_optimization" in names:
        raise InvalidInputError(f"{path} holds settings of DeepSpeed; check the trainer's configuration that names it")
    if "peft_type" in names:
        raise InvalidInputError(f"{path} is an adapter's configuration; check the trainer's, or read a trained adapter with advise inspect")
    if "architectures" in names and "model_type" in names:
        raise InvalidInputError(f"{path} is a model's configuration; advise --model {path} asks what can be trained")
    refuse_other_frameworks(values, str(path))
