"""Settings with which a training would not start, or would train nothing, as the libraries refuse them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from advisor.stacks.fields import value_at
from advisor.stacks.keys import is_off
from advisor.stacks.reading import Remark
from advisor.values.vocabulary import Stack


class Bound(NamedTuple):
    """Values that a library takes, and where it refuses the others."""

    least: float
    most: float
    why: str


_TORCH = "torch 2.13 optim/adamw.py refuses it"
_ANY = float("inf")
BOUNDS: Mapping[str, Bound] = {
    "learning_rate": Bound(0, _ANY, _TORCH),
    "optimizer.lr": Bound(0, _ANY, _TORCH),
    "adam_beta1": Bound(0, 1, _TORCH),
    "adam_beta2": Bound(0, 1, _TORCH),
    "adam_epsilon": Bound(0, _ANY, _TORCH),
    "warmup_steps": Bound(0, _ANY, "transformers 5.23 training_args.py refuses it"),
    "lora_dropout": Bound(-_ANY, 1, "torch 2.13 nn/modules/dropout.py refuses it"),
    "peft.lora_dropout": Bound(-_ANY, 1, "torch 2.13 nn/modules/dropout.py refuses it"),
    "model.lora_dropout": Bound(0, 1, "torch 2.13 nn/modules/dropout.py refuses it"),
}
"""Found by handing each value to the library: peft 0.21 makes no dropout of a negative number."""
SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
"""transformers 5.23 trainer_utils.py SchedulerType."""
_EPOCHS = ("num_train_epochs", "num_epochs", "epochs")
_TARGETS: Mapping[Stack, tuple[str, ...]] = {
    Stack.TRL: ("lora_target_modules", "peft.target_modules"),
    Stack.HF: ("peft.target_modules",),
    Stack.LLAMAFACTORY: ("lora_target",),
    Stack.MS_SWIFT: ("target_modules",),
    Stack.AXOLOTL: (),
}
_TRAINING_ARGUMENTS = (Stack.HF, Stack.TRL, Stack.LLAMAFACTORY, Stack.MS_SWIFT)
NO_ADAPTER = ("full", "freeze", "none")


def nonsense(stack: Stack, values: Mapping[str, Any]) -> Iterator[Remark]:
    """One remark for each setting that stops the training."""
    for name, bound in BOUNDS.items():
        value = _number(value_at(values, name))
        if value is not None and not bound.least <= value <= bound.most and not _takes_any_rate(name, values):
            yield _stop(name, f"{name} is {value:g}: {bound.why}")
    if _on(values, "bf16", "bfloat16") and _on(values, "fp16", "float16"):
        yield _stop("bf16", "bf16 and fp16 are both on: transformers 5.23 training_args.py takes one of them")
    scheduler = values.get("lr_scheduler_type")
    if stack in _TRAINING_ARGUMENTS and isinstance(scheduler, str) and scheduler.lower() not in SCHEDULERS:
        yield _stop("lr_scheduler_type", f"lr_scheduler_type is {scheduler[:40]}: transformers 5.23 trainer_utils.py has no such schedule")
    yield from _no_steps(values)
    yield from _no_targets(stack, values)


def _no_steps(values: Mapping[str, Any]) -> Iterator[Remark]:
    steps = _number(values.get("max_steps"))
    for name in _EPOCHS:
        epochs = _number(values.get(name))
        if epochs is not None and epochs <= 0 and (steps is None or steps <= 0):
            yield _stop(name, f"{name} is {epochs:g}: the training ends before its first step")


def _no_targets(stack: Stack, values: Mapping[str, Any]) -> Iterator[Remark]:
    """An adapter on nothing: peft 0.21 raises NoMatchingPeftModuleError."""
    for name in _TARGETS.get(stack, ()):
        value = value_at(values, name)
        if isinstance(value, (list, tuple)) and not value and _has_adapter(stack, values):
            yield _stop(name, f"{name} is empty: peft 0.21 adapts nothing and stops")
    named = ("lora_target_modules", "lora_target_linear")
    if stack is Stack.AXOLOTL and not is_off(values.get("adapter")) and all(is_off(values.get(name)) for name in named):
        yield _stop(named[0], f"neither {' nor '.join(named)} is set: peft 0.21 adapts nothing and stops")


def _has_adapter(stack: Stack, values: Mapping[str, Any]) -> bool:
    if stack is Stack.TRL:
        return not is_off(values.get("use_peft")) or "peft" in values
    kind = next((values[name] for name in ("finetuning_type", "tuner_type", "train_type", "sft_type") if values.get(name)), "lora")
    return str(kind).lower() not in NO_ADAPTER


def _takes_any_rate(name: str, values: Mapping[str, Any]) -> bool:
    """transformers' Adafactor does not look at the sign of the rate."""
    stated = str(values.get("optim") or values.get("optimizer") or "")
    return name == "learning_rate" and "adafactor" in stated.lower()


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, (bool, list, dict)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _on(values: Mapping[str, Any], *names: str) -> bool:
    """Switched on; axolotl's `auto` and `full` are no clash with fp16."""
    stated = [str(values[name]).strip().lower() for name in names if values.get(name) is not None]
    return any(word in ("true", "yes", "on", "1") for word in stated)


def _stop(key: str, text: str) -> Remark:
    return Remark("would-not-start", key, text, stops=True)
