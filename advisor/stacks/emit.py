"""A plan as the YAML of a framework, with the line that starts it."""

from __future__ import annotations

from importlib import import_module

from advisor.stacks.facts import StackDefaults
from advisor.stacks.known import defaults_of
from advisor.values.plan import Plan
from advisor.values.vocabulary import Stack

_STARTS = {
    Stack.TRL: ("trl", "trl sft --config FILE", "accelerate launch --num_processes {n} trl/scripts/sft.py --config FILE"),
    Stack.AXOLOTL: ("axolotl", "axolotl train FILE", "axolotl train FILE --launcher accelerate -- --num_processes {n}"),
    Stack.LLAMAFACTORY: ("llamafactory", "llamafactory-cli train FILE", "FORCE_TORCHRUN=1 NPROC_PER_NODE={n} llamafactory-cli train FILE"),
}
MODULES = {stack: module for stack, (module, _, _) in _STARTS.items()}
"""Frameworks whose configuration can be written."""


def yaml_config(plan: Plan, model: str, learning_rate: str, defaults: StackDefaults | None = None) -> str:
    """The plan as its stack's YAML; data and output are left to the user, everything that changes a byte is not."""
    module, alone, several = _STARTS[plan.stack]
    defaults = defaults or defaults_of(plan.stack)
    start = alone if plan.n_gpus == 1 else f"{several.format(n=min(plan.n_gpus, 8))} ({plan.n_gpus} GPUs in all)"
    lines = import_module(f"advisor.stacks.{module}").write(plan, model, learning_rate, defaults)
    return "\n".join((f"# start with: {start}", *lines)) + "\n"
