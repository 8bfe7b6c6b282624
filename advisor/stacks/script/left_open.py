"""Settings of a script whose values its text does not say: each that matters is named with its line, and how to say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from advisor.stacks.fields import Fields
from advisor.stacks.keys import is_neutral
from advisor.stacks.reading import Remark, Way
from advisor.stacks.script.known import LOADING_READ
from advisor.stacks.script.values import Unknown
from advisor.values.vocabulary import Stack

_WHOLE = {
    "*": "the trainer's arguments",
    "*loading": "the arguments of loading the model",
    "peft.*": "the adapter's settings",
    "quantization_config.*": "the settings of the quantisation",
}
"""What is called by a whole that is not known."""
_NEUTRAL = (
    "learning_rate",
    "model_name_or_path",
    "peft.lora_alpha",
    "peft.base_model_name_or_path",
    "peft.task_type",
    "output_dir",
    "labels",
)
"""Settings that readers ask for and that move no memory; the model has a message of its own."""
_ADAPTER = ("r", "target_modules", "use_dora", "modules_to_save", "lora_dropout", "peft_type", "*")
_QUANTIZATION = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bits", "*")
"""Settings inside the groups that readers ask for (hf_arguments)."""


def why_unnamed(unknown: Mapping[str, Unknown]) -> str:
    """Why a script's model is not known; empty where it names none."""
    why = unknown.get("model_name_or_path")
    return "" if why is None else f"{why.why} (line {why.line})" if why.line else why.why


def unknown_remarks(stack: Stack, fields: Fields, unknown: Mapping[str, Unknown]) -> Iterator[Remark]:
    """One remark for each unknown setting that was asked for, or that is not known to leave memory alone."""
    for name, why in unknown.items():
        if name in _NEUTRAL or not _matters(stack, fields, name):
            continue
        place = f" (line {why.line})" if why.line else ""
        if name in _WHOLE:
            yield Remark("unknown-value", name, f"{_WHOLE[name]} are not known: {why.why}{place}", way=Way.EITHER)
            continue
        bare = name.removeprefix("peft.").removeprefix("quantization_config.").removeprefix("model_init_kwargs.")
        text = f"{name.removeprefix('peft.')} is not known: {why.why}{place}"
        yield Remark("unknown-value", name, text, f"say it with --set {bare}=VALUE", Way.EITHER)


def _matters(stack: Stack, fields: Fields, name: str) -> bool:
    group, dot, inner = name.rpartition(".")
    if dot and group == "peft":
        return inner in _ADAPTER or not is_neutral(None, inner)
    if dot and group == "quantization_config":
        return inner in _QUANTIZATION
    if dot and group == "model_init_kwargs":
        return inner in LOADING_READ
    return name in fields.asked() or not is_neutral(stack, name)
