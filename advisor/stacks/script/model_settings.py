"""How a script loads its model and what it does to it, as settings."""

from __future__ import annotations

from advisor.checkpoints import CLASSES
from advisor.stacks.script.gathered import Gathered
from advisor.stacks.script.known import CONFIGURATION, LOADING, LOADING_READ, MODEL_ATTRIBUTES, QUANTIZATION, UNSLOTH_LOADING
from advisor.stacks.script.machine import Change
from advisor.stacks.script.models import CAST, CHECKPOINTING, CLASS, COMPILED, LIGER, LOAD, NAME, PREPARED, UNSLOTH, WRAP
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.values import OPEN, Box, Name, Unknown, Value, is_dict
from advisor.values.vocabulary import Head

_HEADS = (
    ("ForSequenceClassification", Head.CLASSIFICATION),
    ("ForTokenClassification", Head.TOKENS),
    ("ForMaskedLM", Head.MLM),
)
"""Heads by a part of the name of transformers' classes."""
_OTHER_HEADS = ("ForQuestionAnswering", "ForMultipleChoice", "ForImage", "ForAudio", "ForSpeech", "ForPreTraining", "ForNextSentence")


def model_settings(found: Gathered, model: Box, changes: tuple[Change, ...]) -> None:
    """How the model was loaded, and what was done to it since."""
    load: Box = model.slots[LOAD]
    name = model.slots[NAME]
    found.put("model_name_or_path", name or Unknown("the name that it is loaded by is empty, unless the command line gives one", load.line))
    load_settings(found, load)
    if isinstance(load.slots.get("device_map"), str):
        found.put("device_map", load.slots["device_map"])
    _loading(found, model, load)
    _done_to(found, model, changes)
    _head(found, model)


def load_settings(found: Gathered, load: Box) -> None:
    """Arguments of loading that are read: types, attention, quantisation."""
    configured = load.slots.get("quantization_config") is not None
    for name in ("dtype", "torch_dtype", "attn_implementation", *(() if configured else ("load_in_4bit", "load_in_8bit"))):
        if name in load.slots:
            found.put(name, load.slots[name])
    if load.slots.get("use_flash_attention_2") is True and "attn_implementation" not in load.slots:
        found.put("attn_implementation", "flash_attention_2")
    _quantization(found, load.slots.get("quantization_config"))


def _quantization(found: Gathered, given: Value) -> None:
    if given is None:
        return
    if not isinstance(given, Box):
        found.unknown["quantization_config"] = unknown_of(given) or Unknown("it is no configuration that is followed", 0)
        return
    kind = "" if is_dict(given) else given.made_by
    if not kind or kind == "BitsAndBytesConfig":
        found.put_group("quantization_config", given)
        for name in given.slots:
            if name not in QUANTIZATION and not str(name).startswith("*"):
                found.remark(str(name), f"{name} of the quantisation is no setting that is known here (line {given.line})")
    else:
        found.put_group("quantization_config", given, quant_method=CLASSES.get(kind, kind))


def _loading(found: Gathered, model: Box, load: Box) -> None:
    """Arguments of loading that are not read: those that are not known to leave memory alone are told."""
    unsloths = UNSLOTH_LOADING if UNSLOTH in model.slots else frozenset()
    for name, value in load.slots.items():
        if name in LOADING_READ or name in LOADING or name in unsloths or value is None:
            continue
        if name == OPEN:
            found.unknown["*loading"] = value
        elif name == "config":
            _own_config(found, value)
        elif not str(name).startswith("*"):
            found.remark(str(name), f"{name} of loading the model is not priced (line {load.line})")


def _own_config(found: Gathered, config: Value) -> None:
    """A configuration that is handed to loading: what the script changed in it."""
    if not isinstance(config, Box):
        found.remark("config", "the model is loaded with a configuration that is not known")
        return
    changed = [str(name) for name in config.slots if name != NAME and name not in CONFIGURATION]
    if changed:
        found.remark("config", f"the model's configuration is changed ({', '.join(changed[:4])}), which is not priced")


def _done_to(found: Gathered, model: Box, changes: tuple[Change, ...]) -> None:
    slots = model.slots
    quantized = any(name in found.values for name in ("quantization_config", "load_in_4bit", "load_in_8bit"))
    if CHECKPOINTING in slots:
        found.put("gradient_checkpointing", slots[CHECKPOINTING])
    if slots.get(LIGER):
        found.put("use_liger_kernel", True)
    if slots.get(COMPILED):
        found.put("torch_compile", True)
    if CAST in slots and not quantized:
        found.put("dtype", slots[CAST])
    if PREPARED in slots:
        _prepared(found, slots[PREPARED], quantized)
    elif UNSLOTH not in slots:
        found.put("prepare_model_for_kbit_training", False)
    wrap = slots.get(WRAP)
    if isinstance(wrap, Box) and "autocast_adapter_dtype" in wrap.slots:
        found.put("autocast_adapter_dtype", wrap.slots["autocast_adapter_dtype"])
    _changes(found, changes, quantized)
    for name in slots:
        if not str(name).startswith("*") and name not in MODEL_ATTRIBUTES:
            found.remark(str(name), f"the script replaces {name} of the model, which is not priced")


def _prepared(found: Gathered, given: Value, quantized: bool) -> None:
    """peft's helper lifts what is in 16 bit to fp32, of a model that is not quantised all of it (peft 0.21 utils/other.py)."""
    if unknown_of(given) is not None:
        found.unknown["prepare_model_for_kbit_training"] = given
        return
    if quantized or any(name.startswith("quantization_config") for name in found.unknown):
        found.put("prepare_model_for_kbit_training", True)
        if isinstance(given, Box) and "use_gradient_checkpointing" in given.slots:
            found.put("use_gradient_checkpointing", given.slots["use_gradient_checkpointing"])
    else:
        found.put("dtype", "float32")
        found.taken.append(
            "dtype: float32, as prepare_model_for_kbit_training lifts a model that is not quantised (peft 0.21 utils/other.py)"
        )


def _changes(found: Gathered, changes: tuple[Change, ...], quantized: bool) -> None:
    """What loops over the model's parameters do: types that are changed, weights that are frozen."""
    for _, what, value, condition, line in changes:
        few = any(word in condition for word in ("ndim", "norm", "dim()"))
        if what == "data" and isinstance(value, Name):
            if "requires_grad" in condition:
                found.put("adapter_dtype", value)
            elif not condition.strip() and not quantized:
                found.put("dtype", value)
            elif not few:
                found.remark("dtype", f"the types of some weights are changed (line {line}), which is not priced")
        elif what == "requires_grad" and not few:
            found.values.setdefault("*trained", []).append((value, condition, line))


def _head(found: Gathered, model: Box) -> None:
    """The head that the class of the model puts on it; a decoder's own head goes without saying."""
    owner, load = model.slots[CLASS], model.slots[LOAD]
    name = owner.leaf if isinstance(owner, Name) else ""
    head = next((head for word, head in _HEADS if word in name), None)
    if head is not None:
        found.put("head", head.value)
        config = load.get("config")
        labels = load.get("num_labels", config.get("num_labels") if isinstance(config, Box) else None)
        if head in (Head.CLASSIFICATION, Head.TOKENS) and labels is not None:
            found.put("labels", labels)
    elif name == "AutoModel":
        found.put("head", Head.EMBEDDING.value)
    elif any(word in name for word in _OTHER_HEADS):
        found.remark("model", f"the head of {name} is not priced (line {load.line})")
    if name.endswith("ForOwn") or "ValueHead" in name:
        found.remark("model", f"{name.removesuffix('ForOwn')} is a model of the script's own: what it adds is not priced")
