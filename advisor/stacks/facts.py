"""The shape in which each training stack states its defaults: a value and the file that sets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from advisor.values.vocabulary import DType, Loss, Optimizer, Quantization, Shift, Stack

FOUR_BIT = (Quantization.NF4, Quantization.FP4)
"""Kinds of which the quantisation constants can be quantised too."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Default(Generic[T]):
    """What a stack does when nobody says otherwise, and where that is written."""

    value: T
    source: str


class StackDefaults(NamedTuple):
    """Everything in which the training loops differ and which moves bytes."""

    stack: Stack
    label: str
    package: str
    """Distribution whose version decides; empty for a loop of one's own."""
    version: str
    """Release of the package that the defaults were read in; those of other releases are rows of profiles/stacks/."""
    optimizer: Default[Optimizer]
    loss: Default[Loss]
    losses: tuple[Loss, ...]
    """Ways to compute the loss that the stack offers without own code."""
    adapter_dtype: Default[DType]
    """Adapters of a 16-bit base."""
    quantized_adapter_dtype: Default[DType]
    kbit_prepare: Default[bool]
    """Whether peft's `prepare_model_for_kbit_training` runs on a quantised base."""
    checkpointing: Default[bool]
    quantized_checkpointing: Default[bool]
    autocast: Default[bool]
    """Whether forward runs under torch.autocast when the weights are 16-bit already."""
    full_autocast: Default[bool]
    """The same where every weight is trained in 16 bit."""
    logits_alive_in_backward: Default[bool]
    """Whether the loop still holds the model's outputs, and so the logits, while backward runs."""
    kv_cache_in_outputs: Default[bool]
    weights_dtype: Default[DType | None]
    """Type that weights are loaded in where a config does not say it; None: as they were saved."""
    lora_dropout: Default[float] = Default(0.0, "peft 0.21 tuners/lora/config.py: lora_dropout=0.0")
    shift: Default[Shift] = Default(Shift.LABELS, "transformers 5.23 loss/loss_utils.py ForCausalLMLoss: pads the labels")

    def version_at_least(self, release: tuple[int, ...]) -> bool:
        return tuple(map(int, self.version.split("."))) >= release if self.version else True
