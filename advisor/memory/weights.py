"""Bytes of the base weights as they rest on the card, and the highest moment of loading them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from advisor.architectures.heads import headed
from advisor.checkpoints import packed, trained_as
from advisor.memory.optimizer import group_bytes, trained_bytes_per_param
from advisor.memory.params import TensorGroup, adapter_params
from advisor.values import Block, CheckpointFormat, Linear, Method, ModelSpec, Plan, Quantization

FP32_BYTES = 4
HALF_BYTES = 2
INT32_BYTES = 4
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
    return _quantized_bytes(layer.in_features * layer.out_features, layer.out_features, quantization, double_quant)


def _quantized_bytes(params: int, rows: int, quantization: Quantization, double_quant: bool) -> int:
    if quantization is Quantization.INT8:
        return params + rows * FP32_BYTES  # SCB: one fp32 scale per output row
    absmaxes = -(-params // FOUR_BIT_BLOCK)
    if not double_quant:
        return -(-params // 2) + absmaxes * FP32_BYTES + CODE_BYTES
    return -(-params // 2) + absmaxes + -(-absmaxes // NESTED_BLOCK) * FP32_BYTES + NESTED_EXTRA_BYTES + CODE_BYTES


def packed_linear_bytes(layer: Linear, stored: CheckpointFormat) -> int:
    """One matrix as GPT-QModel holds it: integers, a fp16 scale and a packed zero per group and output, the bias in fp16; GPTQ adds
    the group of each input as int32.

    Source: GPT-QModel 7.7 nn_modules/qlinear/__init__.py `_register_gptq_buffers`, gemm_awq.py; AutoAWQ 0.2.9
    awq/modules/linear/gemm.py `WQLinear_GEMM`. All are buffers: peft's lifting to fp32 leaves them alone.
    """
    bits = stored.bits or 4
    groups = -(-layer.in_features // (stored.group_size_weights or layer.in_features))
    weights = _int32_words(layer.in_features, bits) * layer.out_features
    zeros = groups * _int32_words(layer.out_features, bits)
    scales = groups * layer.out_features * HALF_BYTES
    group_index = layer.in_features * INT32_BYTES if stored.trained_as is Quantization.GPTQ else 0
    return (weights + zeros) * INT32_BYTES + scales + group_index


def _int32_words(values: int, bits: int) -> int:
    return -(-values * bits // 32)


def stored_linear_bytes(layer: Linear, model: ModelSpec, plan: Plan) -> int:
    """One matrix of a quantised base at rest (without bias)."""
    assert plan.quantization is not None
    if packed(plan.quantization) and model.checkpoint_format is not None:
        return packed_linear_bytes(layer, model.checkpoint_format)
    return quantized_linear_bytes(layer, plan.quantization, plan.double_quant)


def _unshared_bytes(layer: Linear, model: ModelSpec, plan: Plan) -> int:
    """The part of a quantised matrix that no engine shares: the scales and code tables of 4-bit weights, which are no parameters, and
    other formats altogether, whose types no collective takes (accelerate 1.15 utils/fsdp_utils.py, "Params4bit")."""
    if plan.quantization not in (Quantization.NF4, Quantization.FP4):
        return stored_linear_bytes(layer, model, plan)
    if layer.is_module:
        return stored_linear_bytes(layer, model, plan) - -(-layer.in_features * layer.out_features // 2)
    rows = layer.copies * layer.in_features
    return _quantized_bytes(layer.weight_params, rows, plan.quantization, plan.double_quant) - -(-layer.weight_params // 2)


def scales_bytes(model: ModelSpec, plan: Plan) -> int:
    """What is whole on each card of the quantised weights, however they are shared."""
    return sum(block_scales_bytes(model, block, plan) * block.count for block in model.shape.blocks)


def block_scales_bytes(model: ModelSpec, block: Block, plan: Plan) -> int:
    """The same of one layer; nothing without quantisation."""
    if plan.quantization is None:
        return 0
    modules = sum(_unshared_bytes(x, model, plan) * x.copies for x in block.linears if x.can_be_quantized)
    stacks = (x for x in block.linears if plan.quantized_experts and is_stacked(x))
    return modules + sum(_unshared_bytes(x, model, plan) for x in stacks)


def unquantized_bytes_per_param(plan: Plan) -> int:
    """fp32 once `prepare_model_for_kbit_training` has lifted them (peft/utils/other.py), else the base type."""
    return FP32_BYTES if plan.kbit_prepare and plan.quantization else plan.base_dtype.size_bytes


def block_weights_bytes(model: ModelSpec, block: Block, plan: Plan) -> int:
    """Base weights of one layer at rest, if all of its modules are quantised."""
    per_param = unquantized_bytes_per_param(plan)
    size = block.params * per_param
    if plan.quantization is None:
        return size
    for layer in block.linears:
        if layer.can_be_quantized:
            saved = layer.in_features * layer.out_features * per_param - stored_linear_bytes(layer, model, plan)
            size -= saved * layer.copies
        elif plan.quantized_experts and is_stacked(layer):
            rows = layer.copies * layer.in_features  # a stack is held as (experts, inputs, outputs) or the other way round
            size -= layer.weight_params * per_param - _quantized_bytes(layer.weight_params, rows, plan.quantization, plan.double_quant)
    return size


def is_stacked(layer: Linear) -> bool:
    """Whether it is a stack of experts in one bare parameter: what `quantize_moe_experts` takes (axolotl monkeypatch/moe_quant.py)."""
    return not layer.is_module and layer.copies > 1


_LAYER_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
_PARTS = {"attention": ("self_attn", "attn", "attention", "self_attention"), "mlp": ("mlp", "feed_forward", "block_sparse_moe")}
"""Names of a layer's halves in transformers' models, for the names of modules that a checkpoint leaves in 16 bit."""


def kept_in_16_bit(model: ModelSpec) -> Iterator[tuple[Linear, int]]:
    """Matrices that a quantised checkpoint leaves in 16 bit, and in how many layers: those that its `skipped` names cover.

    None of one that is expanded on loading: its storage is gone, and bitsandbytes quantises its matrices like any others.
    """
    stored = model.checkpoint_format
    if stored is None or stored.trained_as is None or not stored.skipped:
        return
    index = 0
    for block in model.shape.blocks:
        for layer in (layer for layer in block.linears if layer.can_be_quantized):
            times = sum(any(_covers(name, number, layer) for name in stored.skipped) for number in range(index, index + block.count))
            if times:
                yield layer, times
        index += block.count


def _covers(name: str, number: int, layer: Linear) -> bool:
    """Whether the name of a skipped module ("model.layers.3.mlp", "q_proj") covers a matrix of layer `number`."""
    stated = _LAYER_NUMBER.search(name)
    if stated is not None and int(stated[1]) != number:
        return False
    rest = name[stated.end() :] if stated is not None else name.rpartition(".")[2]
    if not rest:
        return stated is not None
    words = rest.split(".")
    return layer.name == words[-1] or (len(words) == 1 and words[0] in _PARTS.get(layer.part, ()))


def weights_bytes(model: ModelSpec, plan: Plan) -> int:
    """Base weights at rest. bitsandbytes replaces `nn.Linear` modules except the head; bare 3-D parameters keep their type
    (bitsandbytes issue 1849). A checkpoint that is quantised already may leave some matrices in 16 bit."""
    model = headed(model, plan)
    per_param = unquantized_bytes_per_param(plan)
    size = (model.shape.embedding_params + model.shape.head_params + model.shape.other_params) * per_param
    size += sum(block_weights_bytes(model, block, plan) * block.count for block in model.shape.blocks)
    if plan.quantization is None:
        return size
    for layer, times in kept_in_16_bit(model):
        size += (layer.in_features * layer.out_features * per_param - stored_linear_bytes(layer, model, plan)) * layer.copies * times
    return size


def likely_resting_bytes(params: int, plan: Plan) -> int:
    """About what rests in a step of a model whose matrices are not known: all parameters quantised as the plan says, or all of them
    trained, with gradients and states."""
    if plan.quantization is not None:
        return _quantized_bytes(params, 0, plan.quantization, plan.double_quant)
    size = params * plan.base_dtype.size_bytes
    if plan.method is Method.FULL:
        size += params * trained_bytes_per_param(plan) + group_bytes(TensorGroup(params, 1, 0), plan)
    return size


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
        return max(model.shape.embedding_params, model.shape.head_params) * plan.base_dtype.size_bytes
    if trained_as(model) is not None:
        return 0  # the checkpoint's tensors are what rests
    stacks = plan.quantized_experts
    sizes = (
        layer.weight_params if stacks and is_stacked(layer) else layer.in_features * layer.out_features
        for block in model.shape.blocks
        for layer in block.linears
        if layer.can_be_quantized or (stacks and is_stacked(layer))
    )
    largest = max(sizes, default=0)
    return largest * plan.base_dtype.size_bytes
