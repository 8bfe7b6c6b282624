"""Bytes of optimizer states at rest, and of the temporaries that a step makes."""

from __future__ import annotations

from advisor.memory.params import TensorGroup, trainable_params, trainable_tensors
from advisor.values import Masters, Method, ModelSpec, Optimizer, Plan

FP32_BYTES = 4
EIGHT_BIT_MIN_NUMEL = 4096
"""Smaller tensors keep 32-bit states (bitsandbytes 0.50 optim/optimizer.py, `min_8bit_size`)."""
EIGHT_BIT_BLOCK = 256
"""Elements per fp32 absmax of an 8-bit state (bitsandbytes optim/optimizer.py, blockwise states)."""
PAGED_MIN_NUMEL = 100_000
"""Smaller states are ordinary tensors also in paged optimizers (bitsandbytes optim/optimizer.py, `get_state_buffer`)."""
ADAFACTOR_TEMPORARIES = 2
"""fp32 matrices of the largest tensor's size at once: two terms of the update, as in `(grad**2) + eps` and `p.add_(-update)`
(transformers 5.23 optimization.py, `Adafactor.step`)."""
ADAFACTOR_COPIES = 2
"""More where the parameter is of 16 bits: fp32 copies of its gradient and of itself (ibid.)."""

MOMENTS = {
    Optimizer.ADAMW: 2,
    Optimizer.ADAMW_FUSED: 2,
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW_32BIT: 2,
    Optimizer.PAGED_ADAMW_8BIT: 2,
    Optimizer.LION_32BIT: 1,
    Optimizer.LION_8BIT: 1,
    Optimizer.ADAFACTOR: 1,
    Optimizer.SGD: 0,
}
"""Moments kept per parameter. The Trainer's SGD runs without momentum, its Adafactor without a first moment."""

_EIGHT_BIT = (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.LION_8BIT)
_PAGED = (Optimizer.PAGED_ADAMW_32BIT, Optimizer.PAGED_ADAMW_8BIT)


def trained_bytes_per_param(plan: Plan) -> int:
    """Of what the optimizer steps on: fp32 where an engine keeps masters."""
    if plan.masters is not Masters.NONE:
        return FP32_BYTES
    return plan.base_dtype.size_bytes if plan.method is Method.FULL else plan.adapter_dtype.size_bytes


def state_bytes(model: ModelSpec, plan: Plan) -> int:
    """Optimizer states inside torch's allocator, after the first step."""
    return sum(group_bytes(group, plan) * group.copies for group in trainable_tensors(model, plan))


def paged_bytes(model: ModelSpec, plan: Plan) -> int:
    """States of paged optimizers in managed memory: outside torch's allocator, moved to the host when the card is full."""
    if plan.optimizer not in _PAGED:
        return 0
    per_element = 1 if plan.optimizer in _EIGHT_BIT else FP32_BYTES
    paged = (g for g in trainable_tensors(model, plan) if g.numel >= PAGED_MIN_NUMEL)
    return sum(g.numel * g.copies for g in paged) * per_element * MOMENTS[plan.optimizer]


def group_bytes(group: TensorGroup, plan: Plan) -> int:
    """Bytes of the states of one of the equal tensors of a group."""
    moments, numel = MOMENTS[plan.optimizer], group.numel
    if plan.optimizer is Optimizer.ADAFACTOR:
        factored = group.rows and group.rows < numel
        return (group.rows + numel // group.rows if factored else numel) * FP32_BYTES
    if plan.optimizer in (Optimizer.ADAMW, Optimizer.ADAMW_FUSED):
        return moments * numel * trained_bytes_per_param(plan)
    resident = plan.optimizer not in _PAGED or numel < PAGED_MIN_NUMEL
    if plan.optimizer in _EIGHT_BIT and numel >= EIGHT_BIT_MIN_NUMEL:
        absmax = -(-numel // EIGHT_BIT_BLOCK) * FP32_BYTES
        return moments * ((numel if resident else 0) + absmax)
    return moments * numel * FP32_BYTES if resident else 0


def step_temporary_bytes(model: ModelSpec, plan: Plan) -> int:
    """What `optimizer.step()` makes on top: foreach AdamW a square root of every second moment at once (torch/optim/adam.py
    `_multi_tensor_adam`, `exp_avg_sq_sqrt`); fused and bitsandbytes kernels nothing; Adafactor works tensor by tensor in fp32."""
    if plan.optimizer is Optimizer.ADAMW:
        return trainable_params(model, plan) * trained_bytes_per_param(plan)
    if plan.optimizer is Optimizer.ADAFACTOR:
        largest = max((group.numel for group in trainable_tensors(model, plan)), default=0)
        copies = ADAFACTOR_COPIES if trained_bytes_per_param(plan) < FP32_BYTES else 0
        return (ADAFACTOR_TEMPORARIES + copies) * largest * FP32_BYTES
    return 0
