"""Learning rates to start from. Priors good to a factor of about three (fact LR17): always the middle of a sweep, never the answer."""

from __future__ import annotations

from typing import NamedTuple

from advisor.ladder.knowledge import threshold
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_RANK
from advisor.values import Method, ModelSpec, Plan, Task


class Sweep(NamedTuple):
    """Three learning rates (AdamW)."""

    low: float
    mid: float
    high: float


RECIPE_FAMILIES = ("llama", "qwen")
"""Families that the recipe was fitted on (fact LR3)."""


def lora_prior(model: ModelSpec) -> float:
    """5e-4 × (2000 / hidden)^p for Llama and Qwen (fact LR3), else QLoRA's tuned values by size (fact LR16)."""
    family = recipe_of(model)
    if family is None:
        return prior_by_size(model.params)
    ratio = threshold("lr_prior_hidden") / model.hidden_size
    return threshold("lr_prior_base") * float(ratio ** threshold(f"lr_prior_power_{family}"))


def recipe_of(model: ModelSpec) -> str | None:
    """The family whose recipe speaks for the model; None where none does."""
    return next((family for family in RECIPE_FAMILIES if model.model_type.startswith(family)), None)


def prior_by_size(params: int) -> float:
    """QLoRA's tuned values (fact LR16)."""
    return threshold("lr_prior_other_large" if params >= threshold("lr_large_params") else "lr_prior_other")


def sweep(model: ModelSpec, method: Method, task: Task | None, rank: int = FIRST_RANK) -> Sweep:
    """The prior and a factor of three to both sides (fact LR21); a tenth of it for full fine-tuning (fact LR1).

    The prior is of rank 16. Where alpha grows with the rank, rates fall with its root (facts LR5, S2).
    """
    if task is Task.RL and method is not Method.FULL:
        low, high = threshold("lr_rl_low"), threshold("lr_rl_high")
        return Sweep(low, (low * high) ** 0.5, high)
    factor = threshold("lr_sweep_factor")
    prior = lora_prior(model)
    if method is Method.FULL:
        prior /= threshold("lr_full_divisor")
    else:
        prior *= float((FIRST_RANK / rank) ** 0.5)
    return Sweep(prior / factor, prior, prior * factor)


def sweep_of(model: ModelSpec, plan: Plan, task: Task | None) -> Sweep:
    """The sweep of a plan; of rank 16's where its alpha is not twice its rank, so that the scale does not grow with it."""
    return sweep(model, plan.method, task, plan.rank if plan.alpha == ALPHA_PER_RANK * plan.rank else FIRST_RANK)


def show(rate: float) -> str:
    """ "1.7e-4": two digits are already more than the prior knows."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
