"""Which models Liger's kernels are put into: a setting that asks for them passes over the others, and their loss stays whole."""

from __future__ import annotations

from functools import cache

from advisor.errors import InvalidInputError
from advisor.profiles import read
from advisor.values.model import ModelSpec
from advisor.values.vocabulary import Loss, Stack

_BY_NAME_ALONE = (Stack.HF, Stack.TRL, Stack.MS_SWIFT, Stack.LLAMAFACTORY)
"""Stacks that know no other kernels for such a loss; axolotl has plugins and models of its own, and a loop of one's own takes any."""


@cache
def has_liger(model_type: str, stack: Stack) -> bool:
    """Whether the stack puts Liger's kernels into models of that type: by its own list, where it has one, else by Liger's."""
    rows = [row for row in read("stacks") if row["kind"] == "liger"]
    own = [row for row in rows if row.get("stack") == stack.value]
    return any(model_type in row["model_types"].split() for row in own or (row for row in rows if "stack" not in row))


def passed_over(model: ModelSpec, stack: Stack) -> str:
    """Why a setting that asks for Liger's kernels does nothing for the model; empty where it works."""
    if has_liger(model.model_type, stack):
        return ""
    who = "LLaMA-Factory 0.9.5 knows no Liger" if stack is Stack.LLAMAFACTORY else "liger-kernel 0.8.5 has no"
    return f"{who} kernels for {model.model_type} models and passes over them"


def check_loss(loss: Loss | None, stack: Stack, model: ModelSpec) -> None:
    """Raises InvalidInputError for a loss that Liger would compute, of a model that it passes over."""
    if loss not in (Loss.FUSED, Loss.IN_PLACE) or stack not in _BY_NAME_ALONE:
        return
    why = passed_over(model, stack)
    if why:
        raise InvalidInputError(f"--loss {loss.value}: {why}; leave the option out, or ask for another loop with --stack")
