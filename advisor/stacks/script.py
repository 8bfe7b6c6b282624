"""The settings of a Python training script, read from its text and never run: what is written out as a literal is known."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.checkpoints import CLASSES
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.values.vocabulary import Stack

_ARGUMENTS = ("TrainingArguments", "SFTConfig", "Seq2SeqTrainingArguments")
_LENGTHS = ("seq_len", "max_seq_length", "block_size")
_CAST = re.compile(r"\.data\.to\(torch\.(\w+)\)")
UNKNOWN = object()
"""A value that only running the script would show."""


def parse_script(text: str, path: Path) -> tuple[Stack, dict[str, Any]]:
    """Which stack the script trains with, and its settings by name; `path` names it in errors."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f" at line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise InvalidInputError(f"{path} is no valid Python{place}") from None
    names = _Names(tree)
    calls = {name: names.settings(call) for name, call in _calls(tree, names)}
    if not set(_ARGUMENTS) & set(calls):
        raise UnsupportedError(
            f"{path} makes no TrainingArguments or SFTConfig: what a hand-written loop does cannot be read; advise estimate prices it"
        )
    settings = _settings(calls, text)
    settings |= {name: value for name in _LENGTHS if isinstance(value := names.value(ast.Name(name)), int)}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, (ast.ImportFrom, ast.Import)) for alias in node.names}
    return Stack.TRL if {"SFTTrainer", "SFTConfig"} & imported else Stack.HF, settings


class _Names:
    """Values that names of the script stand for: literals that are assigned once."""

    def __init__(self, tree: ast.Module) -> None:
        self._values: dict[str, Any] = {}
        self._calls: dict[str, ast.Call] = {}
        assigned: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                again = name in assigned
                assigned.add(name)
                if isinstance(node.value, ast.Call):
                    self._calls[name] = node.value
                value = self.value(node.value)
                self._values[name] = UNKNOWN if again and self._values.get(name) != value else value

    def value(self, node: ast.expr) -> Any:
        """What an expression is; UNKNOWN where it is neither a literal, a known name nor a type of torch."""
        if isinstance(node, ast.Name):
            return self._values.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            return dotted if dotted.startswith("torch.") else UNKNOWN
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return UNKNOWN

    def settings(self, call: ast.Call) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                continue
            inner = self._calls.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
            if isinstance(inner, ast.Call) and self.called(inner) in CLASSES:
                found[keyword.arg] = {"quant_method": CLASSES[self.called(inner)], **self.settings(inner)}
            else:
                found[keyword.arg] = self.value(keyword.value)
        if call.args:
            found["0"] = self.value(call.args[0])
        return {name: value for name, value in found.items() if value is not UNKNOWN}

    def called(self, call: ast.Call) -> str:
        """Last part of the name of what is called; from_pretrained of the tokenizer's class is not a model's."""
        dotted = ast.unparse(call.func)
        if dotted.endswith(".from_pretrained"):
            return "from_pretrained" if "Model" in dotted.rpartition(".")[0] else ""
        return dotted.rpartition(".")[2]


def _calls(tree: ast.Module, names: _Names) -> Iterator[tuple[str, ast.Call]]:
    wanted = (*_ARGUMENTS, "from_pretrained", "LoraConfig", "get_peft_model", "prepare_model_for_kbit_training")
    calls = sorted((node for node in ast.walk(tree) if isinstance(node, ast.Call)), key=lambda node: node.lineno)
    for node in calls:
        if (name := names.called(node)) in wanted:
            yield name, node


def _settings(calls: dict[str, dict[str, Any]], text: str) -> dict[str, Any]:
    """The calls as one set of settings, named as `hf_arguments` reads them."""
    settings: dict[str, Any] = {}
    for name in _ARGUMENTS:
        settings |= calls.get(name, {})
    loaded = dict(calls.get("from_pretrained", {}))
    if isinstance(loaded.get("0"), str):
        settings["model_name_or_path"] = loaded["0"]
    settings |= {name: loaded[name] for name in ("dtype", "torch_dtype", "attn_implementation", "quantization_config") if name in loaded}
    if "LoraConfig" in calls:
        settings["peft"] = calls["LoraConfig"]
    settings["prepare_model_for_kbit_training"] = "prepare_model_for_kbit_training" in calls
    if "use_gradient_checkpointing" in calls.get("prepare_model_for_kbit_training", {}):
        settings["use_gradient_checkpointing"] = calls["prepare_model_for_kbit_training"]["use_gradient_checkpointing"]
    if "autocast_adapter_dtype" in calls.get("get_peft_model", {}):
        settings["autocast_adapter_dtype"] = calls["get_peft_model"]["autocast_adapter_dtype"]
    cast = _CAST.search(text)
    if cast:
        settings["adapter_dtype"] = cast[1]
    return {name: value for name, value in settings.items() if name != "0"}
