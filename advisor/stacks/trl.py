"""TRL's SFTTrainer, given the loaded model and a `peft_config`."""

from __future__ import annotations

from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.hf import HF
from advisor.values.vocabulary import DType, Loss, Stack

CHECKPOINTING = "trl 1.16 trainer/base_config.py: gradient_checkpointing=True"

TRL = StackDefaults(
    stack=Stack.TRL,
    label="TRL SFTTrainer",
    optimizer=HF.optimizer,
    loss=Default(
        Loss.CHUNKED,
        "trl >= 1.7 trainer/sft_config.py: chunked_nll; in trl 1.16 'nll' does the same, in tiles of 32,768 vocabulary entries",
    ),
    losses=(Loss.CHUNKED, Loss.FUSED),
    adapter_dtype=HF.adapter_dtype,
    quantized_adapter_dtype=Default(
        DType.BF16, "trl 1.16 trainer/sft_trainer.py: adapters of a quantised model are cast to bf16 (DoRA's magnitudes are left out)"
    ),
    kbit_prepare=Default(False, "trl 1.16 trainer/sft_trainer.py: not called since trl pull request 4335"),
    checkpointing=Default(True, CHECKPOINTING),
    quantized_checkpointing=Default(True, CHECKPOINTING),
    autocast=Default(True, "trl 1.16 trainer/base_config.py: bf16 becomes True unless fp16 is set, which autocasts"),
    logits_alive_in_backward=Default(
        False, "trl 1.16 trainer/sft_trainer.py: the fused head returns log-probabilities, there are no logits"
    ),
    kv_cache_in_outputs=Default(False, "trl 1.16 trainer/sft_trainer.py compute_loss: use_cache=False"),
)
