"""transformers' Trainer with a model wrapped by peft, as in the recipes of their documentation. Read in transformers 5.23."""

from __future__ import annotations

from advisor.stacks.facts import Default, StackDefaults
from advisor.values.vocabulary import DType, Loss, Optimizer, Stack

PEFT_ADAPTER_FP32 = "peft 0.21 tuners/tuners_utils.py cast_adapter_dtype: 16-bit adapters are lifted to fp32 (autocast_adapter_dtype=True)"
NO_AUTOCAST = "transformers 5.23 training_args.py: bf16=False; the weights are loaded in 16 bit, so no autocast is needed"

HF = StackDefaults(
    stack=Stack.HF,
    label="transformers Trainer",
    package="transformers",
    version="5.23",
    optimizer=Default(Optimizer.ADAMW_FUSED, "transformers 5.23 training_args.py: optim, with torch >= 2.8"),
    loss=Default(Loss.FULL, "transformers 5.23 loss/loss_utils.py ForCausalLMLoss: logits.float() over all tokens"),
    losses=(Loss.FULL, Loss.IN_PLACE, Loss.FUSED),
    adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    quantized_adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    kbit_prepare=Default(True, "peft 0.21 docs, developer guide on quantization: the recipe calls prepare_model_for_kbit_training"),
    checkpointing=Default(False, "transformers 5.23 training_args.py: activation_checkpointing (gradient_checkpointing) is off unless set"),
    quantized_checkpointing=Default(True, "peft 0.21 utils/other.py prepare_model_for_kbit_training: use_gradient_checkpointing=True"),
    autocast=Default(False, NO_AUTOCAST),
    full_autocast=Default(False, NO_AUTOCAST),
    logits_alive_in_backward=Default(False, "transformers 5.23 trainer.py compute_loss: returns the loss only, the outputs are released"),
    kv_cache_in_outputs=Default(False, "transformers 5.23 training_args.py: use_cache=False, set on the model by trainer.py"),
    weights_dtype=Default(None, "transformers 5.23 modeling_utils.py from_pretrained: dtype='auto', the type of the saved weights"),
)
