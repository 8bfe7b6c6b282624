"""Which models Liger's kernels know: `use_liger_kernel` passes over the others without a word, and their loss stays whole."""

from __future__ import annotations

from functools import cache

from advisor.errors import InvalidInputError
from advisor.profiles import read
from advisor.values.model import ModelSpec
from advisor.values.vocabulary import Loss, Stack

LIGER = "liger-kernel 0.8.5"
"""The release whose list of models is kept (profiles/stacks/liger.json)."""
_HANDED_ON = (Stack.HF, Stack.TRL, Stack.MS_SWIFT)
"""Stacks that hand transformers' `use_liger_kernel` on; axolotl and LLaMA-Factory choose among kernels by lists of their own."""


@cache
def has_liger(model_type: str) -> bool:
    """Whether Liger has kernels for models of that type."""
    return any(model_type in row["model_types"].split() for row in read("stacks") if row["kind"] == "liger")


def check_loss(loss: Loss | None, stack: Stack, model: ModelSpec) -> None:
    """Raises InvalidInputError for a loss that Liger would compute, of a model that it passes over."""
    if loss in (Loss.FUSED, Loss.IN_PLACE) and stack in _HANDED_ON and not has_liger(model.model_type):
        raise InvalidInputError(
            f"--loss {loss.value}: {LIGER} has no kernels for {model.model_type} models, and transformers passes over them without a word; "
            "leave the option out, or ask for another loop with --stack"
        )
