"""Whose file it is, and what it holds: one door for every kind of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError
from advisor.json_files import is_file, read_object
from advisor.stacks.command_line import read_command, started_with
from advisor.stacks.files import parse_settings, read_text
from advisor.stacks.launch import is_accelerate
from advisor.stacks.reading import Launch, Remark
from advisor.stacks.script import ENDINGS, Start, parse_script
from advisor.stacks.script.values import Unknown
from advisor.stacks.script_command import Started, started_script
from advisor.values.vocabulary import Stack

ADAPTER_CONFIG = "adapter_config.json"
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
    is_script: bool = False
    """Python, whose calls are read, and no file of settings."""
    unknown: dict[str, Unknown] = {}
    """Settings that a script sets to what its text does not say."""
    remarks: tuple[Remark, ...] = ()


def open_file(path: Path, stack: Stack | None, start: Start | None = None) -> Opened:
    """Reads the file and finds out whose it is; `stack` is the user's word for it, `start` what a script is started with."""
    if path.suffix in (".sh", ".bash"):
        started = started_script(path)
        if started is not None:
            return _open_started(started, stack, start or Start())
        command = read_command(path)
        if command.config is not None and is_file(path.parent / command.config):
            inner = open_file(path.parent / command.config, stack or command.stack)
            return inner._replace(values={**inner.values, **command.values}, launch=command.launch)
        return Opened(stack or command.stack, command.values, "", launch=command.launch)
    return open_text(read_text(path), path, stack, start)


def _open_started(started: Started, stack: Stack | None, start: Start) -> Opened:
    """The Python script that a shell script starts, with the arguments that stand there and those that the user adds."""
    given = (*started.arguments, *(start.arguments or ()))
    start = start._replace(arguments=given, environment=started.environment)
    opened = open_text(read_text(started.script), started.script, stack, start)
    return opened._replace(launch=started.launch, taken=(f"script: {started.script}", *opened.taken))


def open_text(text: str, path: Path, stack: Stack | None, start: Start | None = None) -> Opened:
    """The same of a text that is a script or settings, by the ending of `path`."""
    if path.suffix in ENDINGS:
        found = parse_script(text, path, start)
        script = Opened(stack or found.stack, found.values, text, launch=_started(text), taken=found.taken, is_script=True)
        return script._replace(unknown=found.unknown, remarks=found.remarks)
    file = parse_settings(text, path)
    values: dict[str, Any] = file.values
    taken: tuple[str, ...] = ()
    whose = stack or detected(values, path)
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
