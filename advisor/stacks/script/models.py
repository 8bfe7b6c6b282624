"""Models as scripts load, wrap and change them: a model is a box that remembers what was done to it."""

from __future__ import annotations

import re
from collections.abc import Callable

from advisor.stacks.script.attributes import MODEL, PARAMETERS, changed
from advisor.stacks.script.known import MODEL_METHODS
from advisor.stacks.script.machine import Machine
from advisor.stacks.script.operators import truth, unknown_of
from advisor.stacks.script.values import ABSENT, OBJECT, OPEN, Box, Name, Unknown, Value, is_dict

CLASS, NAME, LOAD, ADAPTER = "*class", "*name", "*load", "*adapter"
"""Slots of a model: the class that loaded it, its name or path, the arguments of loading, the configuration of its adapter."""
WRAP, PREPARED, CHECKPOINTING, CAST = "*wrap", "*prepared", "*checkpointing", "*cast"
"""Slots of a model: arguments of `get_peft_model`, of `prepare_model_for_kbit_training`, whether checkpointing was switched on, a type."""
UNSLOTH = "*unsloth"
LIGER = "*liger"
COMPILED = "*compiled"
"""Slots of a model: whether Unsloth loaded it, whether Liger's kernels were put in, whether it was compiled."""

_OTHERS = re.compile(r"Tokenizer|Processor|FeatureExtractor|Scheduler|Pipeline|Dataset|VAE|Autoencoder|UNet")
_MODELS = re.compile(r"Model|For[A-Z]|LMHead|Transformer$")
_FAST = re.compile(r"^Fast\w*Model$")
"""Unsloth's classes: FastLanguageModel, FastModel, FastVisionModel, FastLlamaModel, FastSentenceTransformer is another."""


def is_fast(owner: Name) -> bool:
    """A class of Unsloth's."""
    return bool(_FAST.match(owner.leaf)) and owner.library in ("unsloth", "")


def from_pretrained(machine: Machine, owner: Name, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`OWNER.from_pretrained(...)`, for models, tokenizers, configurations and adapters."""
    if is_fast(owner):
        model = _loaded(machine, owner, positional, named, line, ("model_name",))
        model.slots[UNSLOTH] = True
        return (model, machine.new_object(Name("unsloth.AutoTokenizer"), {}, line))
    leaf = owner.leaf
    if leaf.endswith("Config"):
        named = {**named, NAME: positional[0] if positional else named.get("pretrained_model_name_or_path")}
        return machine.new_object(Name("transformers.PretrainedConfig"), dict(named), line)
    if _OTHERS.search(leaf) or not _MODELS.search(leaf):
        return machine.new_object(owner, {}, line)
    if leaf.startswith("PeftModel") or (leaf == "Bound"):
        return _with_saved_adapter(machine, positional, named, line)
    model = _loaded(machine, owner, positional, named, line, ("pretrained_model_name_or_path", "model_name_or_path"))
    if leaf.startswith("AutoPeftModel"):
        model.slots[ADAPTER] = Unknown("the adapter is read from a file", line)
    if "Liger" in leaf:
        model.slots[LIGER] = True
    return model


def from_config(machine: Machine, owner: Name, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`OWNER.from_config(config)` and `OWNER(config)`: as large as the model whose configuration it is."""
    config = positional[0] if positional else named.get("config")
    name = config.slots.get(NAME) if isinstance(config, Box) else None
    model = _loaded(machine, owner, [name], {**named, "config": config}, line, ())
    if name is None:
        model.slots[NAME] = unknown_of(config) or Unknown("the model is built from a configuration of the script's own", line)
    return model


def _loaded(machine: Machine, owner: Name, positional: list[Value], named: dict[str, Value], line: int, names: tuple[str, ...]) -> Box:
    load = dict(named)
    name = positional[0] if positional else next((load[key] for key in names if key in load), load.get(OPEN))
    for key in names:
        load.pop(key, None)
    if owner.leaf.startswith("Fast"):
        load |= dict(zip(("max_seq_length", "dtype", "load_in_4bit"), positional[1:], strict=False))
    slots = {CLASS: owner, NAME: name, LOAD: machine.new_dict(load, line)}
    model = machine.new_object(MODEL, slots, line)
    machine.seen.models.append(model)
    return model


def _with_saved_adapter(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    model = positional[0] if positional else named.get("model")
    if isinstance(model, Box):
        machine.write(model, ADAPTER, Unknown("the adapter is read from a file", line))
    return model


def model_and_config(positional: list[Value], named: dict[str, Value]) -> tuple[Value, Value]:
    """The arguments of functions that take a model and a configuration."""
    model = positional[0] if positional else named.get("model")
    config = positional[1] if len(positional) > 1 else named.get("peft_config", named.get("adapter_config"))
    return model, config


def get_peft_model(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """peft's `get_peft_model(model, config)` and `PeftModel(model, config)`."""
    model, config = model_and_config(positional, named)
    if isinstance(model, Box) and model.kind == OBJECT:
        machine.write(model, ADAPTER, config)
        machine.write(
            model, WRAP, machine.new_dict({key: value for key, value in named.items() if key not in ("model", "peft_config")}, line)
        )
    return model


def fast_get_peft_model(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """Unsloth's `FastLanguageModel.get_peft_model(model, r=16, ...)`; its arguments are those of a LoraConfig and more."""
    model = positional[0] if positional else named.get("model")
    given = {key: value for key, value in named.items() if key != "model"}
    given |= dict(zip(("r", "target_modules", "lora_alpha", "lora_dropout"), positional[1:], strict=False))
    if isinstance(model, Box) and model.kind == OBJECT:
        machine.write(model, ADAPTER, machine.new_object(Name("unsloth.LoraConfig"), given, line))
        machine.write(model, UNSLOTH, True)
    return model


def prepare_for_kbit(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """peft's `prepare_model_for_kbit_training(model)`, and its older name for int8."""
    model = positional[0] if positional else named.get("model")
    if isinstance(model, Box):
        given = dict(zip(("use_gradient_checkpointing", "gradient_checkpointing_kwargs"), positional[1:], strict=False)) | named
        given.pop("model", None)
        machine.write(model, PREPARED, machine.new_dict(given, line))
    return model


def same_model(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """Functions that hand the model back as large as it was."""
    return positional[0] if positional else named.get("model")


def model_and_tokenizer(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """trl's `setup_chat_format(model, tokenizer)`, which adds some tokens."""
    return (positional[0] if positional else named.get("model"), machine.new_object(Name("transformers.AutoTokenizer"), {}, line))


def compiled(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """`torch.compile(model)`."""
    model = positional[0] if positional else named.get("model")
    return machine.new_object(MODEL, {**model.slots, COMPILED: True}, line) if isinstance(model, Box) and model.of == MODEL else model


_TYPES = {"half": "torch.float16", "bfloat16": "torch.bfloat16", "float": "torch.float32"}


def call_on_model(machine: Machine, model: Box, name: str, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """A method of a model."""
    if name == "gradient_checkpointing_enable":
        machine.write(model, CHECKPOINTING, True)
        return None
    if name in ("gradient_checkpointing_disable", "disable_adapters"):
        machine.write(model, CHECKPOINTING, ABSENT)
        return None
    if name in _TYPES or name == "to":
        kinds = [value for value in (*positional, *named.values()) if isinstance(value, Name) and value.dotted in _DTYPES]
        if name in _TYPES or kinds:
            machine.write(model, CAST, kinds[0] if kinds else Name(_TYPES[name]))
        return model
    if name in ("parameters", "named_parameters"):
        return machine.new_object(PARAMETERS, {"*model": model, "*named": name == "named_parameters"}, line)
    if name == "requires_grad_":
        parameters = machine.new_object(PARAMETERS, {"*model": model}, line)
        changed(machine, parameters, "requires_grad", positional[0] if positional else named.get("requires_grad", True), line)
        return model
    if name in ("add_adapter", "load_adapter", "inject_adapter"):
        config = next((value for value in (*positional, *named.values()) if isinstance(value, Box)), None)
        read = Unknown("the adapter is read from a file", line)
        machine.write(model, ADAPTER, config if name == "add_adapter" and config is not None else read)
        return None
    if name in ("merge_and_unload", "unload", "merge_adapter"):
        slots = {key: value for key, value in model.slots.items() if key not in (ADAPTER, WRAP)}
        return machine.new_object(MODEL, slots, line)
    if name in ("cuda", "train", "eval", "cpu"):
        return model
    if name not in MODEL_METHODS:
        machine.seen.touched.append((f"model.{name}()", line))
    return Unknown("", line)


_DTYPES = frozenset(f"torch.{name}" for name in ("float16", "bfloat16", "float32", "half", "float"))


def call_on_parameters(machine: Machine, parameters: Box, name: str, positional: list[Value], line: int) -> Value:
    """A method of a parameter, or of its data: what matters is the type that it is turned into."""
    if name == "requires_grad_":
        changed(machine, parameters, "requires_grad", positional[0] if positional else True, line)
        return parameters
    if name in _TYPES:
        return Name(_TYPES[name])
    if name == "to":
        return next((value for value in positional if isinstance(value, Name) and value.dotted in _DTYPES), Unknown("", line))
    return Unknown("", line)


def get_peft_config(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """trl's `get_peft_config(model_args)` (trl 1.16 trainer/utils.py)."""
    held = _held(machine, positional, named, line)
    if isinstance(held, Unknown):
        return held
    used = truth(held("use_peft"))
    if isinstance(used, Unknown) or not used:
        return used if isinstance(used, Unknown) else None
    names = {
        "r": "lora_r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "target_modules": "lora_target_modules",
        "target_parameters": "lora_target_parameters",
        "modules_to_save": "lora_modules_to_save",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
    }
    adapter = machine.new_object(
        Name("peft.LoraConfig"), {key: value for key, name in names.items() if (value := held(name)) is not None}, line
    )
    machine.seen.adapters.append(adapter)
    return adapter


def get_quantization_config(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Value:
    """trl's `get_quantization_config(model_args)` (trl 1.16 trainer/utils.py)."""
    held = _held(machine, positional, named, line)
    if isinstance(held, Unknown):
        return held
    four, eight = truth(held("load_in_4bit")), truth(held("load_in_8bit"))
    if isinstance(four, Unknown) or isinstance(eight, Unknown):
        return unknown_of(four, eight)
    if not four and not eight:
        return None
    slots: dict[str, Value] = {"load_in_8bit": True}
    if four:
        kind, double = held("bnb_4bit_quant_type"), held("use_bnb_nested_quant")
        slots = {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
    return machine.new_object(Name("transformers.BitsAndBytesConfig"), slots, line)


def _held(machine: Machine, positional: list[Value], named: dict[str, Value], line: int) -> Callable[[str], Value] | Unknown:
    from advisor.stacks.script.attributes import attribute

    holder = positional[0] if positional else named.get("model_args", named.get("model_config"))
    if not isinstance(holder, Box) or is_dict(holder):
        return unknown_of(holder) or Unknown("", line)
    return lambda name: attribute(machine, holder, name, line)
