"""Names that several frameworks share: optimizers, types and attention kernels, as transformers and torch spell them."""

from __future__ import annotations

import json

from advisor.values.model import ModelSpec
from advisor.values.vocabulary import Attention, DType, Optimizer

OPTIMIZERS = {**{optimizer.value: optimizer for optimizer in Optimizer}, **Optimizer.also()}
"""transformers 5.23 training_args.py `OptimizerNames`, and older names of the same."""

NEAREST = {
    "adamw_torch_8bit": Optimizer.ADAMW_8BIT,
    "ao_adamw_8bit": Optimizer.ADAMW_8BIT,
    "adamw_torch_4bit": Optimizer.ADAMW_8BIT,
    "ao_adamw_4bit": Optimizer.ADAMW_8BIT,
    "paged_lion_8bit": Optimizer.LION_8BIT,
    "paged_lion_32bit": Optimizer.LION_32BIT,
    **dict.fromkeys(("adamw_apex_fused", "adamw_torch_xla", "adamw_anyprecision"), Optimizer.ADAMW_FUSED),
    **dict.fromkeys(
        ("muon", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "lomo", "adalomo", "apollo_adamw"), Optimizer.ADAMW_FUSED
    ),
}
"""Optimizers that keep no more than one that is priced (transformers 5.23 training_args.py; axolotl 0.19 utils/schemas/enums.py)."""

DTYPES = {
    "bfloat16": DType.BF16,
    "bf16": DType.BF16,
    "float16": DType.FP16,
    "fp16": DType.FP16,
    "half": DType.FP16,
    "float32": DType.FP32,
    "fp32": DType.FP32,
    "float": DType.FP32,
}

ATTENTIONS = {"sdpa": Attention.SDPA, "eager": Attention.EAGER, **Attention.also()}
"""transformers' `attn_implementation`, its kernels of the Hub, and the short names of ms-swift."""

PEFT_TARGETS = {
    **dict.fromkeys(
        [
            "llama",
            "llama4",
            "mistral",
            "mixtral",
            "stablelm",
            "gemma",
            "gemma2",
            "gemma3_text",
            "qwen2",
            "qwen3",
            "opt",
            "gptj",
            "gpt_neo",
            "bart",
        ],
        ("q_proj", "v_proj"),
    ),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    **dict.fromkeys(["bloom", "gpt_neox", "falcon", "chatglm"], ("query_key_value",)),
    **dict.fromkeys(["gpt2", "gpt_bigcode"], ("c_attn",)),
    "mpt": ("Wqkv",),
    **dict.fromkeys(["bert", "roberta", "xlm-roberta", "electra"], ("query", "value")),
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
}
"""What peft adapts when `target_modules` is left out, by model type; for other types it refuses (peft 0.21 utils/constants.py
`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`)."""


def dtype_named(text: str) -> DType | None:
    return DTYPES.get(text.removeprefix("torch.").lower())


def saved_dtype(model: ModelSpec) -> DType | None:
    """Type of the published weights, as config.json states it; None where it does not."""
    config = json.loads(model.config_json)
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    stated = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype") or inner.get("torch_dtype")
    return dtype_named(stated) if isinstance(stated, str) else None
