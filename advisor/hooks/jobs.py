"""Tell which job a live trainer does, by the classes of its arguments and of itself. It looks at classes and loads no library."""

from __future__ import annotations

from typing import Any

from advisor.errors import UnsupportedError
from advisor.values import Head

_SFT = ("SFTConfig", "SFTTrainer")
_FRAMEWORKS = ("transformers", "trl", "axolotl", "llamafactory", "swift", "accelerate", "unsloth", "unsloth_zoo")
_HEADS = {
    "ForCausalLM": Head.LM,
    "LMHeadModel": Head.LM,
    "ForMaskedLM": Head.MLM,
    "ForSequenceClassification": Head.CLASSIFICATION,
    "ForTokenClassification": Head.TOKENS,
}
"""Ends of transformers' class names (transformers 5.23 models/auto/modeling_auto.py)."""
_OWN_LOSS = ("compute_loss", "training_step")


def refuse_other_objectives(args: Any, trainer: Any = None) -> None:
    """Raise UnsupportedError, one line that names the trainer, where it does something else than supervised fine-tuning.

    TRL derives each trainer's arguments from `TrainingArguments` and each trainer from `Trainer` (trl 1.16 trainer/*_config.py,
    *_trainer.py); what other frameworks derive from TRL's classes is known by those.
    """
    for subject in (args, trainer):
        name = _objective(type(subject)) if subject is not None else ""
        if name:
            raise UnsupportedError(f"{name}: this objective is not priced; supervised fine-tuning (SFTTrainer, Trainer) is")


def _objective(kind: type) -> str:
    """The most specific class that belongs to another objective; empty for supervised fine-tuning."""
    for base in kind.__mro__:
        root, _, path = base.__module__.partition(".")
        if base.__name__ in _SFT or root == "transformers":
            return ""
        if root == "trl" and not base.__name__.lstrip("_").startswith("Base"):
            return base.__name__
        if root == "llamafactory" and path.startswith(("train.rm", "train.ppo", "train.dpo", "train.kto")):
            return base.__name__
    return ""


def own_loss_of(trainer: Any) -> str:
    """Name the class of the user's own that computes another loss or step; empty where a framework's does."""
    if trainer is None:
        return ""
    if getattr(trainer, "compute_loss_func", None) is not None:
        return "compute_loss_func"
    for base in type(trainer).__mro__:
        if base.__module__.partition(".")[0] in _FRAMEWORKS:
            return ""
        if any(name in vars(base) for name in _OWN_LOSS):
            return base.__name__
    return ""


def head_of(model: Any) -> Head:
    """Name the head of a loaded model by its class, inside an adapter too.

    Raises UnsupportedError for a class that is none of those that are priced.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for kind in type(base).__mro__:
        found = next((head for end, head in _HEADS.items() if kind.__name__.endswith(end)), None)
        if found is not None:
            return found
    raise UnsupportedError(f"{type(base).__name__}: its head is not priced; ForCausalLM, ForSequenceClassification and their like are")


def optimizer_word(optimizer: Any) -> str | None:
    """Name an optimizer that was handed over, in the words of `TrainingArguments.optim`; its class's name where there is no such word.

    None where there is no optimizer yet.
    """
    while optimizer is not None and type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer
    if optimizer is None:
        return None
    name, settings = type(optimizer).__name__, getattr(optimizer, "defaults", {})
    if name in ("Adam", "AdamW") and type(optimizer).__module__.startswith("torch."):
        return "adamw_torch_fused" if settings.get("fused") else "adamw_torch"
    if name == "SGD" and not settings.get("momentum"):
        return "sgd"
    if type(optimizer).__module__.startswith("bitsandbytes."):
        return _bitsandbytes_word(optimizer)
    return "adafactor" if name == "Adafactor" else name


def _bitsandbytes_word(optimizer: Any) -> str:
    """What bits and pages make of one class (bitsandbytes 0.50 optim/optimizer.py: `args.optim_bits`, `is_paged`; the Trainer makes its
    own so, too: transformers 5.23 trainer_optimizer.py)."""
    name = type(optimizer).__name__
    family = next((word for word in ("adamw", "adam", "lion") if word in name.lower()), "")
    if not family:
        return name
    bits = getattr(getattr(optimizer, "args", None), "optim_bits", 32)
    paged = "paged_" if getattr(optimizer, "is_paged", False) else ""
    return f"{paged}{'lion' if family == 'lion' else 'adamw'}_{bits}bit"
