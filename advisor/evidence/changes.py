"""What the next run changes of the present one, setting by setting, in the names of peft, bitsandbytes and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from advisor.ladder.learning_rate import show
from advisor.units import format_rough_share
from advisor.values.evidence import RunFacts
from advisor.values.next_step import ConfigChange, NextRun

Where = Literal["LoraConfig", "BitsAndBytesConfig", "TrainingArguments", "data", "method"]
_ADAPTER = (("r", "rank"), ("lora_alpha", "alpha"), ("lora_dropout", "dropout"), ("target_modules", "targets"))
_TRAINING = (("per_device_train_batch_size", "micro_batch"), ("effective batch", "batch"), ("num_train_epochs", "epochs"))


def changes(old: RunFacts | None, new: NextRun) -> tuple[ConfigChange, ...]:
    """Every setting that differs; with no run before, every setting that is set."""
    return (*_method(old, new), *_base(old, new), *_adapter(old, new), *_training(old, new))


def _method(old: RunFacts | None, new: NextRun) -> Iterator[ConfigChange]:
    if old is None or old.method is not new.method:
        yield _change("method", "method", None if old is None else old.method.label, new.method.label)
    if new.seeds > 1:
        yield _change("data", "seeds", "1", f"{new.seeds}")


def _base(old: RunFacts | None, new: NextRun) -> Iterator[ConfigChange]:
    was = old is not None and old.method.is_quantized
    if new.method.is_quantized and not was:
        yield _change("BitsAndBytesConfig", "load_in_4bit", "False", "True")
        yield _change("BitsAndBytesConfig", "bnb_4bit_quant_type", None, '"nf4"')
        yield _change("BitsAndBytesConfig", "bnb_4bit_use_double_quant", None, "True")
        yield _change("BitsAndBytesConfig", "bnb_4bit_compute_dtype", None, "torch.bfloat16")
        yield _change("TrainingArguments", "optim", None, '"paged_adamw_8bit"')
    if was and not new.method.is_quantized:
        yield _change("BitsAndBytesConfig", "load_in_4bit", "True", "False (16-bit base)")
    before = None if old is None else old.precision
    if new.precision is not None and new.precision is not before:
        yield _change("TrainingArguments", "precision", None if before is None else before.value, new.precision.value)


def _adapter(old: RunFacts | None, new: NextRun) -> Iterator[ConfigChange]:
    if not new.method.has_adapter:
        if old is not None and old.method.has_adapter:
            yield _change("LoraConfig", "the whole adapter", "on", "none: every weight is trained")
        return
    for setting, name in _ADAPTER:
        before, after = getattr(old, name, None), getattr(new, name)
        if after is not None and before != after:
            yield _change("LoraConfig", setting, _text(before), _text(after))
    if new.use_rslora != (old is not None and old.use_rslora):
        yield _change("LoraConfig", "use_rslora", _text(not new.use_rslora), _text(new.use_rslora))
    if new.method.is_dora != (old is not None and old.method.is_dora):
        yield _change("LoraConfig", "use_dora", _text(not new.method.is_dora), _text(new.method.is_dora))
    before_init = "" if old is None else old.init
    if new.init != before_init:
        yield _change(
            "LoraConfig", "init_lora_weights", f'"{before_init}"' if before_init else "True", f'"{new.init}"' if new.init else "True"
        )


def _training(old: RunFacts | None, new: NextRun) -> Iterator[ConfigChange]:
    rate = None if old is None else old.learning_rate
    if new.learning_rates and new.learning_rates != (rate,):
        each = " and ".join(map(show, new.learning_rates)) if len(new.learning_rates) < 3 else ", ".join(map(show, new.learning_rates))
        yield _change("TrainingArguments", "learning_rate", None if rate is None else show(rate), each)
    for setting, name in _TRAINING:
        before, after = getattr(old, name, None), getattr(new, name)
        if after is not None and before != after:
            yield _change("TrainingArguments", setting, _text(before), _text(after))
    before = None if old is None else old.gradient_checkpointing
    if new.gradient_checkpointing is not None and new.gradient_checkpointing != before:
        yield _change("TrainingArguments", "gradient_checkpointing", _text(before), _text(new.gradient_checkpointing))
    fraction = 1.0 if old is None else old.data_fraction
    if new.data_fraction != fraction:
        yield _change("data", "share of the training set", format_rough_share(fraction, 3), format_rough_share(new.data_fraction, 3))


def _change(where: Where, setting: str, old: str | None, new: str) -> ConfigChange:
    return ConfigChange(where=where, setting=setting, old="not set" if old is None else old, new=new)


def _text(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        return f'"{value[0]}"' if len(value) == 1 and value[0] == "all-linear" else ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
