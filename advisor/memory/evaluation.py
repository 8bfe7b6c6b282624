"""The forward pass of an evaluation during training: what is alive in it on top of weights, adapters and states."""

from __future__ import annotations

from functools import lru_cache

from advisor.architectures.heads import headed
from advisor.memory.attention import Kernel
from advisor.memory.blocks import block_tape
from advisor.memory.head import Ending, head_tape
from advisor.memory.layers import Setting
from advisor.memory.optimizer import FP32_BYTES, trained_bytes_per_param
from advisor.memory.params import trainable_params
from advisor.memory.program import Station
from advisor.memory.tape import ZERO, forward
from advisor.values import Loss, Method, ModelSpec, Plan, Sharding, Stack

WHOLE_IN_EVALUATION = (Stack.AXOLOTL, Stack.LLAMAFACTORY)
"""Stacks whose fused loss makes logits in evaluation: Liger's forward fuses where `self.training`, unless it is told `skip_logits`
(liger_kernel 0.8.5 transformers/model/llama.py). The Trainer tells it (transformers 5.23 trainer.py `prediction_step`, for
`use_liger_kernel`); these two patch the model on their own (axolotl 0.19 integrations/liger, llamafactory 0.9.5
model/model_utils/liger_kernel.py). TRL has its own fused head, which makes none (trl 1.16 trainer/sft_trainer.py `prediction_step`)."""


def evaluated(ending: Ending, stack: Stack) -> Ending:
    """How the forward of an evaluation step ends, where that of training ends so."""
    if ending.loss is Loss.FUSED and stack in WHOLE_IN_EVALUATION:
        return ending._replace(loss=Loss.FULL)
    return ending


def autocast_copies_bytes(model: ModelSpec, plan: Plan) -> int:
    """Copies in 16 bits that autocast makes of trained fp32 matrices and keeps until the forward is over, without gradients too
    (torch 2.13 aten/src/ATen/autocast_mode.cpp, `cached_cast`: fp32 leaves that require a gradient). Those of an engine that shares
    the parameters are not counted: what it gathers is no leaf.
    """
    if not plan.autocast or plan.sharding not in (Sharding.NONE, Sharding.DDP) or trained_bytes_per_param(plan) < FP32_BYTES:
        return 0
    if plan.method is not Method.FULL:
        return trainable_params(model, plan) * plan.autocast_dtype.size_bytes
    shape = headed(model, plan).shape
    head = shape.head_params or model.vocab_size * model.hidden_size  # tied: the embeddings' matrix is multiplied by
    params = head + sum(layer.weight_params * block.count for block in shape.blocks for layer in block.linears)
    return params * plan.autocast_dtype.size_bytes


@lru_cache(maxsize=256)
def compile_evaluation(model: ModelSpec, setting: Setting, kernel: Kernel, ending: Ending) -> tuple[Station, ...]:
    """Moments that may be the highest of an evaluation step of the Trainer, under `torch.no_grad`, of the loss alone
    (transformers 5.23 trainer.py `prediction_step`, `prediction_loss_only` where there are no `compute_metrics`).

    The embeddings' output and each layer's input are held by their callers; adapters drop nothing.
    """
    still = setting._replace(adapter_dropout=False)
    stations = []
    for block in dict.fromkeys(block.model_copy(update={"count": 1}) for block in model.shape.blocks):
        tape, entry = block_tape(block, model.hidden_size, still, kernel)
        held = entry.size.scaled(2)
        stations += [Station(held.plus(moment.live), ZERO, ZERO, 0) for moment in forward(tape, entry, keep=False, entry_held=True).peaks]
    tape, entry, _ = head_tape(model, still.outside_blocks(), ending)
    stations += [Station(moment.live, ZERO, moment.live, 0) for moment in forward(tape, entry, keep=False, entry_held=False).peaks]
    return tuple(stations)
