"""Which training a script is: its trainer, its arguments, its model and its adapter, or one line that says why it cannot be priced."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.stacks.script.attributes import MODEL
from advisor.stacks.script.machine import Seen
from advisor.stacks.script.models import ADAPTER, PREPARED, UNSLOTH
from advisor.stacks.script.sightings import kind_of
from advisor.stacks.script.values import Box, Name, UserClass, Value, same
from advisor.values.vocabulary import Stack

_SFT = ("SFTTrainer", "UnslothTrainer")
_PLAIN = ("Trainer", "Seq2SeqTrainer")
_HOMES = ("transformers", "trl", "unsloth", "")
_FRAMEWORKS = ("axolotl", "llamafactory", "llmtuner", "swift", "torchtune", "verl", "openrlhf", "nemo", "litgpt", "keras", "tensorflow")
"""Libraries with trainers of their own."""

OBJECTIVES = {
    "DPO": "preference optimisation holds two answers to each prompt and a reference model",
    "CPO": "preference optimisation holds two answers to each prompt",
    "ORPO": "preference optimisation holds two answers to each prompt",
    "KTO": "preference optimisation holds a reference model",
    "BCO": "preference optimisation holds a reference model",
    "XPO": "online preference optimisation generates answers while it trains",
    "NashMD": "online preference optimisation generates answers while it trains",
    "OnlineDPO": "online preference optimisation generates answers while it trains",
    "GRPO": "reinforcement learning generates answers while it trains",
    "RLOO": "reinforcement learning generates answers while it trains",
    "PPO": "reinforcement learning generates answers while it trains",
    "PPOv2": "reinforcement learning generates answers while it trains",
    "Reward": "a reward model has a head and pairs of answers of its own",
    "PRM": "a reward model has a head of its own",
    "GKD": "distillation holds a teacher",
    "Distillation": "distillation holds a teacher",
    "AsyncGRPO": "reinforcement learning generates answers while it trains",
    "MiniLLM": "distillation holds a teacher",
    "GOLD": "distillation holds a teacher",
    "SentenceTransformer": "embedding models are trained with losses over pairs",
    "CrossEncoder": "embedding models are trained with losses over pairs",
    "SetFit": "embedding models are trained with losses over pairs",
}
"""What trainers that are not priced hold beside a supervised fine-tuning, by the name before `Trainer` or `Config`."""


class Job(NamedTuple):
    """A training that can be priced, as far as the script says it."""

    stack: Stack
    trainer: Box | None
    """None: the script makes arguments and no trainer, as what `advise config --stack hf` writes."""
    arguments: Box | None
    model: Value
    adapter: Value
    others: tuple[int, ...] = ()
    """Lines of further trainings."""

    @property
    def own_trainer(self) -> UserClass | None:
        """The trainer's class where it is the script's own."""
        return self.trainer.of if self.trainer is not None and isinstance(self.trainer.of, UserClass) else None


def job_of(seen: Seen, tree: ast.Module, where: str) -> Job:
    """The training that a script does. Raises UnsupportedError, one line that names what it does instead."""
    candidates = seen.trained or seen.trainers
    for box in candidates:
        _refuse_other(box, where)
    if candidates:
        return _of_trainer(candidates, seen)
    for box in seen.arguments:
        _refuse_other(box, where)
    if not seen.arguments:
        raise UnsupportedError(f"{where} {_instead(seen, tree)}")
    return _of_arguments(seen)


def _of_trainer(candidates: list[Box], seen: Seen) -> Job:
    trainer = candidates[0]
    kind = kind_of(trainer.of)
    arguments = trainer.slots.get("args")
    held = arguments if isinstance(arguments, Box) else None
    sft = kind is not None and kind.leaf in _SFT
    if held is None and arguments is None and len(seen.arguments) == 1:
        held = seen.arguments[0]
    model = trainer.slots.get("model")
    adapter = trainer.slots.get("peft_config")
    if adapter is None and isinstance(model, Box):
        adapter = model.slots.get(ADAPTER)
    others = tuple(dict.fromkeys(box.line for box in candidates[1:] if box.line != trainer.line or not same(box, trainer)))
    return Job(Stack.TRL if sft else Stack.HF, trainer, held, model, adapter, others)


def _of_arguments(seen: Seen) -> Job:
    """Arguments without a trainer: the model that was prepared or adapted, else the first that was loaded."""
    arguments = seen.arguments[-1]
    kind = kind_of(arguments.of)
    models = [model for model in seen.models if model.of == MODEL]
    worked_on = [model for model in models if {ADAPTER, PREPARED, UNSLOTH} & set(model.slots)]
    model = next(iter(worked_on or models), None)
    adapter = model.slots.get(ADAPTER) if model is not None else None
    if adapter is None and seen.adapters:
        adapter = seen.adapters[0]
    sft = (kind is not None and kind.leaf == "SFTConfig") or "SFTTrainer" in seen.imports
    return Job(Stack.TRL if sft else Stack.HF, None, arguments, model, adapter)


def _refuse_other(box: Box, where: str) -> None:
    """Raises UnsupportedError for trainers, and arguments of trainers, whose objective is not priced."""
    kind = kind_of(box.of)
    if kind is None or _is_priced(kind):
        return
    named = kind.leaf if not isinstance(box.of, UserClass) else f"{box.of.name}, a {kind.leaf},"
    stem = re.sub(r"(Vision|Fast)?(Trainer|Config)$", "", kind.leaf)
    home = "" if kind.library in ("trl", "transformers", "") else f" of {kind.library}"
    why = OBJECTIVES.get(stem, "what it computes is not known here")
    raise UnsupportedError(
        f"{where} trains with {named}{home} (line {box.line}), which is not priced yet: {why}; SFTTrainer and Trainer are priced"
    )


def _is_priced(kind: Name) -> bool:
    arguments = ("TrainingArguments", "Seq2SeqTrainingArguments", "SFTConfig", "UnslothTrainingArguments")
    return kind.library in _HOMES and kind.leaf in (*_SFT, *_PLAIN, *arguments)


def _instead(seen: Seen, tree: ast.Module) -> str:
    """What a script without a trainer does, as the rest of a sentence that begins with its name."""
    backward = next((node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _calls(node, "backward")), None)
    makes = "makes no TrainingArguments or SFTConfig"
    framework = next((name for name in _FRAMEWORKS if name in seen.imports), None)
    if framework is not None:
        return f"{makes}: it trains with {framework}, of which scripts are not read"
    if backward is not None:
        loop = f"what its hand-written loop does (backward at line {backward}) cannot be read"
        return f"{makes}: {loop}; advise estimate --stack plain prices one"
    if any(isinstance(node, ast.Call) and _calls(node, "generate", "merge_and_unload", "merge_adapter", "chat") for node in ast.walk(tree)):
        return f"{makes}: it runs or saves a model and trains none"
    return f"{makes}, and no trainer that is known here"


def _calls(node: ast.Call, *names: str) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr in names
