"""The forward pass of an evaluation during training: what is alive in it on top of weights, adapters and states."""

from __future__ import annotations

from functools import lru_cache

from advisor.memory.attention import Kernel
from advisor.memory.blocks import block_tape
from advisor.memory.head import Ending, head_tape
from advisor.memory.layers import Setting
from advisor.memory.program import Station
from advisor.memory.tape import ZERO, forward
from advisor.values import Loss, ModelSpec, Stack

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
