"""A training as settings under the names that `hf_arguments` reads, with a remark for everything that it does not say."""

from __future__ import annotations

from typing import Any, NamedTuple

from advisor.errors import UnsupportedError
from advisor.stacks.reading import Remark, Way
from advisor.stacks.script import unsloth
from advisor.stacks.script.attributes import MODEL
from advisor.stacks.script.gathered import Gathered
from advisor.stacks.script.job import Job
from advisor.stacks.script.known import ARGUMENTS, OVERRIDES, TRAINER
from advisor.stacks.script.machine import Seen
from advisor.stacks.script.model_settings import load_settings, model_settings
from advisor.stacks.script.models import LOAD, UNSLOTH
from advisor.stacks.script.operators import unknown_of
from advisor.stacks.script.sightings import CHANGES, kind_of
from advisor.stacks.script.values import OPEN, Box, Unknown, UserClass, Value, is_dict
from advisor.values.vocabulary import Stack

LENGTHS = ("max_length", "max_seq_length", "block_size", "model_max_length", "seq_len")
"""Names under which scripts bound their sequences, in the order in which they count."""


class Settings(NamedTuple):
    """What a script says."""

    stack: Stack
    values: dict[str, Any]
    unknown: dict[str, Unknown]
    """Settings that it sets to what cannot be known, by name; those of groups with a dot."""
    remarks: tuple[Remark, ...]
    taken: tuple[str, ...]
    loads_first: bool = False
    """The model is loaded before the arguments are made, as far as lines show it."""


def settings_of(job: Job, seen: Seen, module: Box, where: str) -> Settings:
    """The settings of a job. Raises UnsupportedError for adapters that are not priced."""
    found = Gathered(where)
    _arguments(found, job)
    _trainer(found, job)
    if isinstance(job.model, Box) and job.model.of == MODEL:
        until = job.trainer.slots.get(CHANGES) if job.trainer is not None else None
        loaded = job.model.slots[LOAD].line
        changes = (change for change in seen.changes[:until] if change.model.slots[LOAD].line == loaded)
        model_settings(found, job.model, tuple(changes))
    else:
        _named_model(found, job)
    _adapter(found, job)
    if isinstance(job.model, Box) and UNSLOTH in job.model.slots:
        unsloth.settings(found, job.model, job.adapter)
    elif "unsloth" in seen.imports:
        unsloth.remark(found)
    _seen(found, seen)
    _length(found, job, seen, module)
    for name, why in list(found.unknown.items()):
        if name in found.values:
            found.unknown.pop(name, why)
    return Settings(job.stack, found.values, found.unknown, tuple(found.remarks), tuple(found.taken), _loads_first(job))


def _loads_first(job: Job) -> bool:
    loaded = job.model.slots.get(LOAD) if isinstance(job.model, Box) else None
    return isinstance(loaded, Box) and job.arguments is not None and loaded.line < job.arguments.line


_AS_TRAINING_ARGUMENTS = {"gradient_checkpointing": False, "bf16": False}
"""Defaults that come with TrainingArguments into SFTTrainer, where SFTConfig's would differ (trl 1.16 trainer/sft_trainer.py 654)."""


def _arguments(found: Gathered, job: Job) -> None:
    """What stands in TrainingArguments or SFTConfig. Fields that a script adds to them are its own affair."""
    box = job.arguments
    if box is None:
        why = job.trainer.slots.get("args") if job.trainer is not None else None
        missing = unknown_of(why)
        if missing is not None:
            found.unknown["*"] = missing
        return
    kind = kind_of(box.of)
    if job.stack is Stack.TRL and kind is not None and kind.leaf in ("TrainingArguments", "Seq2SeqTrainingArguments"):
        found.values |= _AS_TRAINING_ARGUMENTS
    for name, value in box.slots.items():
        if name == OPEN:
            found.unknown["*"] = value
        elif not isinstance(box.of, UserClass) or name in ARGUMENTS or name in LENGTHS:
            found.put(str(name), value)


def _trainer(found: Gathered, job: Job) -> None:
    trainer = job.trainer
    if trainer is None:
        return
    for name in ("max_seq_length", "packing", "model_init_kwargs", "neftune_noise_alpha"):
        if trainer.slots.get(name) is not None:
            found.put(name, trainer.slots[name])
    for name in trainer.slots:
        if name == OPEN:
            _handed_more(found, trainer)
        elif name not in TRAINER and not str(name).startswith("*"):
            found.remark(str(name), f"{name} of the trainer is not known here (line {trainer.line})")
    _optimizers(found, trainer)
    if trainer.slots.get("compute_loss_func") is not None:
        found.remark("compute_loss_func", f"the trainer is handed a loss of the script's own (line {trainer.line}), which is not priced")
    own = job.own_trainer
    if own is not None:
        _own_trainer(found, own)
    if job.others:
        lines = ", ".join(map(str, job.others))
        found.remark("trainers", f"the script trains more than once (also at line {lines}): the first training is priced", Way.UP)


def _handed_more(found: Gathered, trainer: Box) -> None:
    """`Trainer(model=model, args=args, **data_module)`: with model and arguments told, the rest is data."""
    text = f"the trainer is handed more than is known (line {trainer.line})"
    if {"model", "args"} <= set(trainer.slots):
        found.taken.append(f"{text}: taken as data")
    else:
        found.remark("trainer", text)


def _own_trainer(found: Gathered, own: UserClass) -> None:
    overrides = [str(name) for name in own.slots.slots if not str(name).startswith("_") or name in ("__init__", "_inner_training_loop")]
    moving = [name for name in overrides if name not in OVERRIDES]
    base = kind_of(own)
    kind = base.leaf if base is not None else "Trainer"
    text = f"{own.name} is the script's own {kind} (line {own.line}): it is priced as {kind}"
    if moving:
        found.remark("trainer", f"{text}, without what {', '.join(moving[:4])} does")
    else:
        found.taken.append(text)


_OPTIMIZERS = {
    "AdamW": "adamw_torch",
    "AdamW8bit": "adamw_8bit",
    "Adam8bit": "adamw_8bit",
    "PagedAdamW8bit": "paged_adamw_8bit",
    "SGD": "sgd",
}
"""Classes of torch.optim and bitsandbytes.optim under transformers' names for them."""


def _optimizers(found: Gathered, trainer: Box) -> None:
    """`optimizers=(optimizer, schedule)`: an optimizer of torch's or bitsandbytes' by its name."""
    given = trainer.slots.get("optimizers")
    if given is None or given == (None, None):
        return
    first = given[0] if isinstance(given, tuple) and given else given
    names = {
        "AdamW": "adamw_torch",
        "AdamW8bit": "adamw_8bit",
        "Adam8bit": "adamw_8bit",
        "PagedAdamW8bit": "paged_adamw_8bit",
        "SGD": "sgd",
    }
    known = names.get(first.made_by) if isinstance(first, Box) else None
    if known is not None:
        found.put("optim", known)
    else:
        found.remark("optimizers", f"the trainer is handed an optimizer of the script's own (line {trainer.line}), which is not priced")


def _named_model(found: Gathered, job: Job) -> None:
    """A trainer that is handed the model's name, or nothing that is known."""
    trainer, missing = job.trainer, unknown_of(job.model)
    given = trainer.get("model_init_kwargs") if trainer is not None else None
    if given is None and job.arguments is not None:
        given = job.arguments.get("model_init_kwargs")
    if isinstance(given, Box):
        load_settings(found, given)
        found.values.pop("model_init_kwargs", None)
    if isinstance(job.model, str):
        found.put("model_name_or_path", job.model)
    elif missing is not None and isinstance(given, Box):
        found.unknown["model_name_or_path"] = missing
    else:
        if missing is None:
            missing = Unknown("no model that is followed reaches the trainer", trainer.line if trainer is not None else 0)
        found.unknown["model_name_or_path"] = missing
        found.remark("model", f"how the model is loaded is not known: {missing.why} (line {missing.line})")
        return
    if job.stack is Stack.TRL and not {"dtype", "torch_dtype"} & {*found.values, *found.unknown}:
        found.put("dtype", "float32")
        found.taken.append("dtype: float32, as SFTTrainer loads a model that it is handed by name (trl 1.16 trainer/utils.py)")


def _adapter(found: Gathered, job: Job) -> None:
    adapter = job.adapter
    trained = found.values.pop("*trained", [])
    if adapter is None:
        _frozen(found, trained)
        return
    for value, condition, line in trained:
        if value is not False and not any(word in condition for word in ("lora", "adapter")):
            found.remark("requires_grad", f"weights beside the adapter are set to be trained (line {line}), which is not priced", Way.UP)
            break
    if not isinstance(adapter, Box):
        missing = unknown_of(adapter) or Unknown("it is no configuration that is followed", 0)
        found.values["peft"] = {"target_modules": "all-linear"}
        found.unknown["peft.*"] = missing
        return
    kind = adapter.made_by or "LoraConfig"
    if kind != "LoraConfig" and not is_dict(adapter):
        raise UnsupportedError(f"{found.where}: {kind} (line {adapter.line}) is not priced; LoraConfig, with or without DoRA, is")
    found.put_group("peft", adapter)
    if "peft.target_modules" in found.unknown:
        found.values["peft"]["target_modules"] = "all-linear"


def _frozen(found: Gathered, trained: list[tuple[Value, str, int]]) -> None:
    """Full fine-tuning of a part of the weights is priced as of all of them."""
    if trained:
        found.remark("requires_grad", f"some weights are frozen (line {trained[0][2]}): priced as if all were trained", Way.DOWN)


def _seen(found: Gathered, seen: Seen) -> None:
    if "*liger" in seen.imports:
        found.put("use_liger_kernel", True)
    for name, line in dict.fromkeys(seen.touched):
        found.remark("model", f"what {name} does with the model (line {line}) is not followed")
    found.taken.extend(dict.fromkeys(seen.taken))


_SAY_LENGTH = "say the longest example with --seq-len"
_PARSED_LENGTHS = (*LENGTHS, "max_seq_len", "cutoff_len", "max_source_length")
"""Arguments of scripts that bound their sequences, by names that published scripts give them."""


def _length(found: Gathered, job: Job, seen: Seen, module: Box) -> None:
    """Where the arguments do not bound the sequences: what the tokenizer cuts to, or a constant of a telling name."""
    if job.stack is Stack.TRL or any(name in found.values or name in found.unknown for name in LENGTHS):
        return
    parsed = [box.slots.get(name) for box in seen.parsed for name in _PARSED_LENGTHS]
    lengths = [*(length for length, _ in seen.lengths), *parsed]
    known = [length for length in lengths if isinstance(length, int) and not isinstance(length, bool)]
    missing = [length for length, _ in seen.lengths if isinstance(length, Unknown)]
    if missing:
        found.unknown["seq_len"] = missing[0]
    if known:
        found.unknown.pop("seq_len", None)
        found.put("seq_len", max(known))
        if len(set(known)) > 1:
            shown = " and ".join(f"{length:,}" for length in sorted(set(known)))
            found.remark("seq_len", f"the script cuts texts to {shown} tokens: priced as the largest alone", Way.UP, _SAY_LENGTH)
        return
    for name in ("seq_len", "max_seq_length", "block_size"):
        if isinstance(module.slots.get(name), int):
            found.put("seq_len", module.slots[name])
            return
