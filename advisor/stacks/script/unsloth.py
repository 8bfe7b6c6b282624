"""What Unsloth's calls leave at their defaults, as settings. Its kernels are not priced yet, which every answer says."""

from __future__ import annotations

from typing import Any

from advisor.stacks.reading import Way
from advisor.stacks.script.gathered import Gathered
from advisor.stacks.script.known import UNSLOTH_ADAPTER
from advisor.stacks.script.models import CLASS, LOAD, NAME
from advisor.stacks.script.operators import truth
from advisor.stacks.script.values import OPEN, Box, Unknown, Value

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA, LENGTH = 16, 16, 2048
"""unsloth models/llama.py get_peft_model: r, lora_alpha, target_modules; models/loader.py from_pretrained: max_seq_length."""


def remark(found: Gathered) -> None:
    """Says that the price is not Unsloth's."""
    text = (
        "Unsloth's kernels and its offloaded checkpoints are not priced yet: the price is that of TRL and peft, and may be off either way"
    )
    found.remark("unsloth", text)


def settings(found: Gathered, model: Box, adapter: Value) -> None:
    """A model of FastLanguageModel, FastModel or FastVisionModel and its adapter, with Unsloth's defaults."""
    remark(found)
    load: Box = model.slots[LOAD]
    full = truth(load.get("full_finetuning", False))
    _bits(found, load, full)
    if isinstance(full, Unknown):
        found.unknown["full_finetuning"] = full
    _length(found, load)
    found.values.pop("embedding_learning_rate", None)
    if full is True:
        found.values.pop("peft", None)
        _checkpointing(found, load)
    elif isinstance(adapter, Box):
        _adapter(found, model, adapter)
    name = found.values.get("model_name_or_path")
    if name is None and NAME in model.slots and "model_name_or_path" not in found.unknown:
        found.unknown["model_name_or_path"] = Unknown("FastLanguageModel is given no model_name", load.line)


def _bits(found: Gathered, load: Box, full: bool | Unknown) -> None:
    """4 bit unless it is told otherwise: nf4, with quantised constants (unsloth models/loader.py, models/llama.py)."""
    other = any(load.get(name) not in (None, False) for name in ("load_in_8bit", "load_in_16bit", "load_in_fp8", "quantization_config"))
    if full is True or other:
        found.values.pop("load_in_4bit", None)
    elif "load_in_4bit" not in load.slots and OPEN not in load.slots:
        found.values["load_in_4bit"] = True
    if found.values.get("load_in_4bit"):
        found.values["use_bnb_nested_quant"] = True
    if load.get("load_in_fp8") not in (None, False):
        found.remark("load_in_fp8", "a base in fp8 is not priced: it is taken as 16 bit", Way.DOWN)
    if full is not True:
        found.values["prepare_model_for_kbit_training"] = False


def _length(found: Gathered, load: Box) -> None:
    """The model's bound holds for the trainer too: the smaller one counts (unsloth models/rl.py)."""
    own = load.get("max_seq_length", LENGTH)
    stated = found.values.get("max_length", found.values.get("max_seq_length"))
    if isinstance(own, Unknown) and stated is None:
        found.unknown["max_length"] = own
    elif isinstance(own, int):
        found.values["max_length"] = min(own, stated) if isinstance(stated, int) else own
        found.unknown.pop("max_length", None)
        found.unknown.pop("max_seq_length", None)


def _checkpointing(found: Gathered, given: Box) -> None:
    """On unless it is told otherwise: `use_gradient_checkpointing="unsloth"`."""
    checkpointing = given.get("use_gradient_checkpointing", "unsloth")
    if checkpointing in (True, False, "unsloth"):
        found.values["gradient_checkpointing"] = bool(checkpointing)
    elif isinstance(checkpointing, Unknown):
        found.unknown["gradient_checkpointing"] = checkpointing


def _whole_modules(group: dict[str, Any]) -> None:
    """Embeddings and head among the targets are trained whole (unsloth models/llama.py get_peft_model)."""
    targets = group.get("target_modules")
    if isinstance(targets, list):
        whole = [name for name in targets if name in ("embed_tokens", "lm_head")]
        if whole:
            group["target_modules"] = [name for name in targets if name not in whole]
            group["modules_to_save"] = [*(group.get("modules_to_save") or []), *whole]


def _adapter(found: Gathered, model: Box, adapter: Box) -> None:
    group = found.values.setdefault("peft", {})
    if adapter.of is not None and getattr(adapter.of, "library", "") != "unsloth":
        return
    _checkpointing(found, adapter)
    for name in UNSLOTH_ADAPTER:
        group.pop(name, None)
        found.unknown.pop(f"peft.{name}", None)
    _whole_modules(group)
    llama = model.slots[CLASS].leaf in ("FastLanguageModel", "FastLlamaModel", "FastMistralModel", "FastQwen2Model")
    for name, default in (("r", RANK), ("lora_alpha", ALPHA), ("target_modules", list(TARGETS) if llama else "all-linear")):
        if f"peft.{name}" not in found.unknown:
            group.setdefault(name, default)
    if found.values.get("load_in_8bit") or found.values.get("load_in_4bit") is False:
        found.values.pop("use_bnb_nested_quant", None)
