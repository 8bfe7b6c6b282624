"""Losses whose kernels need a card: on one, the libraries' own take the place of what a dry run writes after them.

Only the worker loads this module.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from advisor.calibration.backends import Backend
from advisor.dryrun.fused_head import FusedOutput
from advisor.values import Loss, Plan

_LIBRARY = {Loss.IN_PLACE: "liger_kernel", Loss.FUSED: "liger_kernel", Loss.CHUNKED: "trl"}


def is_real(plan: Plan, backend: Backend) -> bool:
    """Whether the plan's loss runs in its library's own kernels here."""
    library = _LIBRARY.get(plan.loss)
    return library is not None and backend.name in ("cuda", "rocm") and find_spec(library) is not None


def install(base: Any, loss: Loss) -> None:
    """Give the transformers model `base` the library's own loss, in place of what was installed before."""
    base.__dict__.pop("forward", None)
    if loss is Loss.CHUNKED:
        _trl(base)
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # liger_kernel 0.8 transformers/monkey_patch.py: every other kernel is off, as no plan says it.
    fused = loss is Loss.FUSED
    others = dict.fromkeys(("rope", "rms_norm", "swiglu", "geglu", "layer_norm"), False)
    _apply_liger_kernel_to_instance(base, fused_linear_cross_entropy=fused, cross_entropy=not fused, **others)


def _trl(base: Any) -> None:
    """trl 1.16 trainer/sft_trainer.py: what `__init__` installs, and the loss that `compute_loss` takes of it."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    own = base.forward

    def forward(*args: Any, num_items_in_batch: Any = None, **kwargs: Any) -> FusedOutput:
        outputs = own(*args, fused_lm_head=True, **kwargs)
        losses = -outputs.log_probs
        count = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        return FusedOutput(losses.sum() / torch.as_tensor(count).clamp(min=1), outputs)

    base.forward = forward
