"""Which objects of libraries decide a training, and the order of their positional arguments."""

from __future__ import annotations

import re
from functools import partial

from advisor.stacks.script.machine import Machine
from advisor.stacks.script.values import Bound, Box, Function, Name, Unknown, UserClass, Value, class_slot, library_base

CHANGES = "*changes"
"""Slot of a trainer that trains: how many changes of parameters came before."""

PLACES: dict[str, tuple[str, ...]] = {
    "Trainer": ("model", "args", "data_collator", "train_dataset", "eval_dataset"),
    "SFTTrainer": ("model", "args", "data_collator", "train_dataset", "eval_dataset"),
    "TrainingArguments": ("output_dir",),
    "Seq2SeqTrainingArguments": ("output_dir",),
    "SFTConfig": ("output_dir",),
    "BitsAndBytesConfig": ("load_in_8bit", "load_in_4bit"),
    "GPTQConfig": ("bits",),
    "PeftModel": ("model", "peft_config"),
}
"""Names of positional arguments (transformers 5.23 trainer.py, training_args.py, utils/quantization_config.py; trl 1.16; peft 0.21)."""

_TRAINER = re.compile(r"Trainer(V\d)?$")
_ARGUMENTS = re.compile(r"TrainingArguments$")
_TRL_CONFIG = re.compile(
    r"^(SFT|DPO|GRPO|KTO|ORPO|CPO|BCO|RLOO|PPO|PPOv2|Reward|OnlineDPO|NashMD|XPO|GKD|PRM|IterativeSFT|AlignProp|DDPO|PAPO|MiniLLM|GOLD|Async\w+|\w*Distillation)Config$"
)
"""Argument classes of TRL's trainers (trl 1.16 trainer/ and experimental/, and older releases)."""


def is_trainer(name: Name) -> bool:
    """A class that trains. Callbacks and states of trainers are none."""
    return bool(_TRAINER.search(name.leaf))


def is_arguments(name: Name) -> bool:
    """A class that holds the arguments of a trainer."""
    return bool(_ARGUMENTS.search(name.leaf) or _TRL_CONFIG.match(name.leaf))


def is_adapter(name: Name) -> bool:
    """A configuration of peft's."""
    return name.library in ("peft", "") and name.leaf.endswith("Config") and name.leaf not in ("PeftConfig",) and not is_arguments(name)


def kind_of(of: Value) -> Name | None:
    """The library's class that an object is of, directly or by descent."""
    return of if isinstance(of, Name) else library_base(of) if isinstance(of, UserClass) else None


def _look_into(machine: Machine, trainer: Box) -> None:
    """Functions that a trainer will call: what makes its model, and what cuts its examples."""
    maker = trainer.slots.get("model_init")
    if trainer.slots.get("model") is None and isinstance(maker, Function):
        machine.write(trainer, "model", machine.call(maker, [], {}, trainer.line))
    for name, method in (("train_dataset", "__getitem__"), ("data_collator", "__call__")):
        held = trainer.slots.get(name)
        found = class_slot(held.of, method) if isinstance(held, Box) and isinstance(held.of, UserClass) else None
        if isinstance(found, Function):
            why = Unknown(f"{method} may change it", trainer.line)
            call = partial(machine.call, Bound(held, method, trainer.line, found), [], {}, trainer.line)
            machine.try_each([call, lambda: None], why, method, lambda _: True)


def seen_object(machine: Machine, box: Box) -> Box:
    """Notes a trainer, its arguments or an adapter's configuration, and hands it back."""
    kind = kind_of(box.of)
    if kind is not None and is_trainer(kind):
        _look_into(machine, box)
        machine.seen.trainers.append(box)
    elif kind is not None and is_arguments(kind):
        machine.seen.arguments.append(box)
    elif kind is not None and is_adapter(kind):
        machine.seen.adapters.append(box)
    return box
