"""Bytes of gradients."""

from __future__ import annotations

from advisor.memory.optimizer import trained_bytes_per_param
from advisor.memory.params import trainable_params
from advisor.values import ModelSpec, Plan


def gradient_bytes(model: ModelSpec, plan: Plan) -> int:
    """Every trained parameter's gradient, in the parameter's own type (torch/csrc/autograd/functions/accumulate_grad.h).

    They are all there at the end of backward, and through the whole of backward from the second micro-batch of an accumulation on.
    """
    return trainable_params(model, plan) * trained_bytes_per_param(plan)
