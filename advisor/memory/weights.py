"""Bytes of the base weights as they rest on the card, and the highest moment of loading them."""

from __future__ import annotations

from advisor.memory.params import adapter_params
from advisor.values import Block, Linear, ModelSpec, Plan, Quantization

FP32_BYTES = 4
FOUR_BIT_BLOCK = 64
"""Weights per absmax in nf4/fp4 (bitsandbytes 0.50 nn/modules.py `Params4bit`, blocksize; QLoRA section 3)."""
NESTED_BLOCK = 256
"""First-level absmax values per second-level absmax under double quantisation (QLoRA section 3)."""
NESTED_EXTRA_BYTES = 256 * FP32_BYTES + FP32_BYTES
"""Per matrix: the second-level code table and the offset (bitsandbytes/functional.py `QuantState`)."""
CODE_BYTES = 16 * FP32_BYTES
"""Per matrix: the 16 values of nf4 or fp4."""


def quantized_linear_bytes(layer: Linear, quantization: Quantization, double_quant: bool) -> int:
    """One quantised matrix with its scales (without bias)."""
    params = layer.in_features * layer.out_features
    if quantization is Quantization.INT8:
        return params + layer.out_features * FP32_BYTES  # SCB: one fp32 scale per output row
    absmaxes = -(-params // FOUR_BIT_BLOCK)
    if not double_quant:
        return -(-params // 2) + absmaxes * FP32_BYTES + CODE_BYTES
    return -(-params // 2) + absmaxes + -(-absmaxes // NESTED_BLOCK) * FP32_BYTES + NESTED_EXTRA_BYTES + CODE_BYTES


def _unshared_bytes(layer: Linear, quantization: Quantization, double_quant: bool) -> int:
    """The part of a quantised matrix that no engine shares: the scales and code tables of 4-bit weights, which are no parameters, and
    8-bit matrices altogether, whose type no collective takes (accelerate 1.15 utils/fsdp_utils.py, "Params4bit")."""
    whole = quantized_linear_bytes(layer, quantization, double_quant)
    packed = 0 if quantization is Quantization.INT8 else -(-layer.in_features * layer.out_features // 2)
    return whole - packed


def scales_bytes(model: ModelSpec, plan: Plan) -> int:
    """What is whole on each card of the quantised weights, however they are shared."""
    return sum(block_scales_bytes(block, plan) * block.count for block in model.blocks)


def block_scales_bytes(block: Block, plan: Plan) -> int:
    """The same of one layer; nothing without quantisation."""
    if plan.quantization is None:
        return 0
    return sum(_unshared_bytes(x, plan.quantization, plan.double_quant) * x.copies for x in block.linears if x.is_module)


def unquantized_bytes_per_param(plan: Plan) -> int:
    """fp32 once `prepare_model_for_kbit_training` has lifted them (peft/utils/other.py), else the base type."""
    return FP32_BYTES if plan.kbit_prepare and plan.quantization else plan.base_dtype.size_bytes


def block_weights_bytes(block: Block, plan: Plan) -> int:
    """Base weights of one layer at rest."""
    per_param = unquantized_bytes_per_param(plan)
    size = block.params * per_param
    if plan.quantization is None:
        return size
    for layer in block.linears:
        if layer.is_module:
            packed = quantized_linear_bytes(layer, plan.quantization, plan.double_quant)
            size += (packed - layer.in_features * layer.out_features * per_param) * layer.copies
    return size


def weights_bytes(model: ModelSpec, plan: Plan) -> int:
    """Base weights at rest. bitsandbytes replaces `nn.Linear` modules except the head; bare 3-D parameters keep their type
    (bitsandbytes issue 1849)."""
    outside = model.embedding_params + model.head_params + model.other_params
    return outside * unquantized_bytes_per_param(plan) + sum(block_weights_bytes(block, plan) * block.count for block in model.blocks)


def adapter_bytes(model: ModelSpec, plan: Plan) -> int:
    """Adapter weights on the card. peft keeps them in fp32 on a 16-bit base unless told otherwise."""
    return adapter_params(model, plan) * plan.adapter_dtype.size_bytes if plan.method.has_adapter else 0


def load_extra_bytes(model: ModelSpec, plan: Plan) -> int:
    """Beyond the resting weights, at the highest moment of loading.

    Lifting to fp32 happens tensor by tensor, and the last one's 16-bit original is still there (peft/utils/other.py);
    quantising holds one 16-bit matrix beside its 4-bit result (bitsandbytes nn/modules.py `Params4bit._quantize`).
    """
    if plan.quantization is None:
        return 0
    if plan.kbit_prepare:
        return max(model.embedding_params, model.head_params) * plan.base_dtype.size_bytes
    largest = max((x.in_features * x.out_features for b in model.blocks for x in b.linears if x.is_module), default=0)
    return largest * plan.base_dtype.size_bytes
