"""A hand-written loop: `out = model(**batch); out.loss.backward(); optimizer.step(); optimizer.zero_grad()`."""

from __future__ import annotations

from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.hf import HF
from advisor.values.vocabulary import Loss, Optimizer, Stack

NO_AUTOCAST = "no torch.autocast unless the loop enters it"

PLAIN = StackDefaults(
    stack=Stack.PLAIN,
    label="a plain loop",
    package="",
    version="",
    optimizer=Default(Optimizer.ADAMW, "torch 2.13 optim/adamw.py: torch.optim.AdamW takes the foreach implementation on CUDA"),
    loss=HF.loss,
    losses=(Loss.FULL, Loss.FUSED),
    adapter_dtype=HF.adapter_dtype,
    quantized_adapter_dtype=HF.quantized_adapter_dtype,
    kbit_prepare=Default(True, HF.kbit_prepare.source),
    checkpointing=Default(False, "transformers 5.23 modeling_utils.py: gradient_checkpointing_enable is called by nobody else"),
    quantized_checkpointing=HF.quantized_checkpointing,
    autocast=Default(False, NO_AUTOCAST),
    full_autocast=Default(False, NO_AUTOCAST),
    logits_alive_in_backward=Default(True, "the loop's own variable keeps the outputs until the next forward replaces them"),
    kv_cache_in_outputs=Default(False, "the loop sets model.config.use_cache = False, as training recipes do"),
    weights_dtype=HF.weights_dtype,
)
