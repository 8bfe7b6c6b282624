"""What has to be installed for a snippet to run, as pip names it."""

from __future__ import annotations

from advisor.checkpoints import packed
from advisor.values import Attention, Loss, ModelSpec, Optimizer, Plan, Quantization, Stack

_BITSANDBYTES_OPTIMIZERS = frozenset(
    {
        Optimizer.ADAMW_8BIT,
        Optimizer.PAGED_ADAMW_32BIT,
        Optimizer.PAGED_ADAMW_8BIT,
        Optimizer.LION_32BIT,
        Optimizer.LION_8BIT,
    }
)
"""transformers 5.23 trainer_optimizer.py makes them with bitsandbytes."""


def packages(model: ModelSpec, plan: Plan) -> list[str]:
    """Return the packages of a plan's snippet; `pip install` of them, with a torch for the card, is all that it needs."""
    quantised = plan.quantization is not None
    stored = plan.quantization is not None and packed(plan.quantization)
    wanted = {
        "torch": True,
        "transformers": True,
        "accelerate": plan.stack is not Stack.PLAIN or quantised,
        "peft": plan.method.has_adapter,
        "trl": plan.stack is Stack.TRL,
        "bitsandbytes": (quantised and not stored) or plan.optimizer in _BITSANDBYTES_OPTIMIZERS,
        "gptqmodel": stored,
        "optimum": plan.quantization is Quantization.GPTQ,
        "liger-kernel": plan.loss in (Loss.FUSED, Loss.IN_PLACE) and plan.stack is not Stack.PLAIN,
        "flash-attn": plan.attention is Attention.FLASH,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]
