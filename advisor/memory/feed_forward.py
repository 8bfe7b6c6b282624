"""Tape of the feed-forward half of a layer: dense, gated, or Mixture-of-Experts.

Experts run as transformers 5.23 runs them on a GPU: sorted by expert and multiplied in groups
(integrations/moe.py `grouped_mm_experts_forward`). Legend: c bytes per element of what the layer computes with.
"""

from __future__ import annotations

from advisor.errors import UnsupportedError
from advisor.memory.layers import ABSMAX_SCRATCH_PER_PARAM, FP32_BYTES, Setting, cast, linear, output_bytes, quantizes
from advisor.memory.tape import Size, Tape, Tensor
from advisor.values import Block, Linear

BYTES_PER_16_BIT = 2
INDEX_BYTES = 8
"""torch's int64 indices."""


def feed_forward(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """From normed hidden states to the feed-forward's contribution to the residual stream."""
    linears = tuple(layer for layer in block.linears if layer.part == "mlp")
    if block.mlp.kind == "moe":
        return _experts(tape, x, block, linears, setting)
    return _dense(tape, x, block, linears, setting)


def _dense(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    mlp, e = block.mlp, setting.stream_bytes
    down = linears[-1]
    c = output_bytes(setting, e, quantizes(setting, down))
    width = Size(down.in_features * c)
    if mlp.kind == "plain":
        inner = activation(tape, linear(tape, x, linears[0], setting, e), width, mlp.activation, trained=setting.trains_base)
    elif mlp.fused_gate_up:
        both = linear(tape, x, linears[0], setting, e)
        inner = _gate(tape, both, both, width, mlp.activation)
    else:
        gate = linear(tape, x, linears[0], setting, e)
        active = activation(tape, gate, width, mlp.activation)
        up = linear(tape, x, linears[1], setting, e)
        inner = tape.op((active, up), width, keeps=(active, up))
    y = linear(tape, inner, down, setting, c)
    tape.hold(x)
    return cast(tape, y, down.out_features, output_bytes(setting, c, quantizes(setting, down)), e)


def _gate(tape: Tape, gate: Tensor, up: Tensor, width: Size, name: str) -> Tensor:
    """`act(gate) * up` where both are halves of one tensor: their gradients are put together again in a tensor of twice the width."""
    active = activation(tape, gate, width, name)
    return tape.op((active, up), width, keeps=(active, up))


def _experts(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    mlp, e = block.mlp, setting.stream_bytes
    if mlp.every_expert_computes:
        raise UnsupportedError("experts that all compute every token (Llama 4) have no closed form; `advise trace` runs the real model")
    c = output_bytes(setting, e, setting.quantization is not None)
    router, gate_up, down = linears[:3]
    k, hidden = mlp.experts_per_token, down.out_features
    scores = _route(tape, x, block, router, setting)
    probabilities = tape.op((scores,), Size(mlp.experts * FP32_BYTES))
    tape.ops[-1].kept = (probabilities,)
    indices = Tensor(Size(k * INDEX_BYTES), False)
    routing = tape.op((probabilities,), Size(k * FP32_BYTES), keeps=(indices,))
    # tokens sorted by expert: three index vectors stay for the backward of the gathers
    order = Tensor(Size(3 * k * INDEX_BYTES), False)
    chosen = tape.op((x,), Size(k * hidden * c), keeps=(order,))
    inner = _grouped(tape, chosen, gate_up, k, setting, c)
    bias = tape.op((), Size(k * gate_up.out_features * c if gate_up.bias else 0))  # each token's own, gathered by its expert
    width = Size(k * mlp.intermediate_size * c)
    inner = _clamped_gate(tape, inner, width) if mlp.clamped else _gate(tape, inner, inner, width, mlp.activation)
    tape.hold(bias)
    out = _grouped(tape, inner, down, k, setting, c)
    # fp32 weights make an fp32 product; either factor's gradient is a product of that width, too
    weighted_size = Size(k * hidden * (FP32_BYTES if mlp.weighs_in_fp32 else c))
    scratch = weighted_size.scaled(2) if weighted_size.per_token > k * hidden * c else weighted_size
    weighted = tape.op((out, routing), weighted_size, keeps=(out, routing), scratch=(Size(), scratch))
    restored = tape.op((weighted,), weighted_size)
    y = tape.op((restored,), Size(hidden * c), aliases=(True,))  # a sum, whose gradient is a view
    if mlp.shared_intermediate_size:
        y = _shared(tape, x, y, block, linears[3:], setting)
    tape.hold(x)
    return cast(tape, y, hidden, c, e)


def _route(tape: Tape, x: Tensor, block: Block, router: Linear, setting: Setting) -> Tensor:
    """The router's scores. An adapter on a router that is no module changes its weight, so that the product keeps its input."""
    if block.mlp.routes_in_fp32:
        return _route_in_fp32(tape, x, router, setting)
    if router.is_module or not setting.wraps(router):
        return linear(tape, x, router, setting, setting.stream_bytes)
    gradient = setting.rank * (router.in_features + router.out_features) * setting.adapter_bytes
    return tape.op((x,), Size(router.out_features * setting.stream_bytes), keeps=(x,), parameter_gradient_bytes=gradient)


def _route_in_fp32(tape: Tape, x: Tensor, router: Linear, setting: Setting) -> Tensor:
    """fp32 copies of input and weight (transformers 5.23 models/deepseek_v3/modeling_deepseek_v3.py `DeepseekV3TopkRouter`)."""
    x32 = cast(tape, x, router.in_features, setting.stream_bytes, FP32_BYTES)
    params = router.in_features * router.out_features
    weight32 = Tensor(Size(constant=params * FP32_BYTES), False)
    gradient = 0
    if setting.trains_base:
        gradient = params * setting.weight_bytes
    elif setting.wraps(router):
        gradient = setting.rank * (router.in_features + router.out_features) * setting.adapter_bytes
    keeps = (weight32, x32) if gradient else (weight32,)
    return tape.op((x32,), Size(router.out_features * FP32_BYTES), keeps=keeps, parameter_gradient_bytes=gradient)


def _clamped_gate(tape: Tape, both: Tensor, width: Size) -> Tensor:
    """`(up + 1) * gate * sigmoid(alpha * gate)` of clamped halves (models/gpt_oss/modeling_gpt_oss.py `_apply_gate`)."""
    gate = tape.op((both,), width, keeps=(both,))
    up = tape.op((both,), width, keeps=(both,))
    sigmoid = tape.op((tape.op((gate,), width),), width)
    tape.ops[-1].kept = (sigmoid,)
    glu = tape.op((gate, sigmoid), width, keeps=(gate, sigmoid))
    raised = tape.op((up,), width, aliases=(True,))
    tape.hold(gate)
    tape.hold(up)
    return tape.op((raised, glu), width, keeps=(raised, glu))


def _grouped(tape: Tape, x: Tensor, layer: Linear, per_token: int, setting: Setting, c: int) -> Tensor:
    """One grouped product over all experts; the weights' gradient, where they are trained, is of every expert."""
    size = Size(per_token * layer.out_features * c)
    params = layer.in_features * layer.out_features * layer.copies
    expanded = _expanded(tape, params, setting) if setting.quantized_experts else None
    if not setting.wraps(layer):
        kept = expanded or x  # torch's product keeps the expanded weights to differentiate by its input
        keeps = (kept,) if setting.trains_base or expanded else ()
        gradient = params * setting.weight_bytes if setting.trains_base else 0
        y = tape.op((x,), size, keeps=keeps, parameter_gradient_bytes=gradient)
        tape.hold(kept)
        return y
    # peft adds B A to a copy of every expert's weights, which the product keeps and whose gradient is whole
    # (peft 0.21 lora/layer.py `ParamWrapper._activate_lora`, torch.baddbmm)
    fused = 2 if layer.name == "gate_up_proj" else 1
    factors = setting.rank * fused * layer.copies * (layer.in_features + layer.out_features)
    low = tape.op((), Size(constant=factors * setting.weight_bytes), parameter_gradient_bytes=factors * setting.adapter_bytes)
    weights = tape.op((low,), Size(constant=params * setting.weight_bytes), keeps=(low,))
    if expanded is not None:
        tape.hold(expanded)
    return tape.op((x, weights), size, keeps=(x, weights))


def _expanded(tape: Tape, params: int, setting: Setting) -> Tensor:
    """Every expert's weights in 16 bit, made anew each time the layer runs, and the scales of doubly quantised ones for a moment.

    Source: bitsandbytes 0.50 nn/parametrize.py `Bnb4bitParametrization`; axolotl monkeypatch/moe_quant.py.
    """
    scales = int(params * ABSMAX_SCRATCH_PER_PARAM) if setting.double_quant else 0
    return tape.op((), Size(constant=params * setting.compute_bytes), scratch=(Size(constant=scales), Size()))


def _shared(tape: Tape, x: Tensor, routed: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    """The expert that every token passes, added to the routed ones."""
    mlp, e = block.mlp, setting.stream_bytes
    c = output_bytes(setting, e, setting.quantization is not None)
    width = Size(mlp.shared_intermediate_size * c)
    gate = linear(tape, x, linears[0], setting, e)
    if len(linears) == 2:
        inner = _gate(tape, gate, gate, width, mlp.activation)
    else:
        active = activation(tape, gate, width, mlp.activation)
        up = linear(tape, x, linears[1], setting, e)
        inner = tape.op((active, up), width, keeps=(active, up))
    down = next(layer for layer in linears if layer.in_features == mlp.shared_intermediate_size)
    y = linear(tape, inner, down, setting, c)
    size = Size(down.out_features * c)
    if linears[-1].out_features == 1:  # Qwen2-MoE weighs the shared expert by a sigmoid of its own
        weight = tape.op((linear(tape, x, linears[-1], setting, e),), Size(c))
        y = tape.op((y, weight), size, keeps=(y, weight), scratch=(Size(), size))
    return tape.op((routed, y), size, aliases=(True, True))


def activation(tape: Tape, x: Tensor, size: Size, name: str, *, trained: bool = False) -> Tensor:
    """An activation function: most keep their input; ReLU keeps its result; `gelu_new` is written out in eight operations."""
    if name in ("relu", "relu2"):
        y = tape.op((x,), size)
        tape.ops[-1].kept = (y,)
        return tape.op((y,), size, keeps=(y,), scratch=(Size(), size)) if name == "relu2" else y
    if name in ("gelu_new", "gelu_fast"):
        half = tape.op((x,), size)
        cubed = tape.op((x,), size, keeps=(x,), scratch=(Size(), size.scaled(2)))
        inner = tape.op((tape.op((cubed,), size), x), size, aliases=(True, True))
        tanh = tape.op((tape.op((inner,), size),), size)
        tape.ops[-1].kept = (tanh,)
        shifted = tape.op((tanh,), size, aliases=(True,))
        return tape.op((half, shifted), size, keeps=(half, shifted))
    if name == "bloom_gelu":  # one node, whose forward and backward are written out (models/bloom/modeling_bloom.py `bloom_gelu_back`)
        return tape.op((x,), size, keeps=(x,), scratch=(size.scaled(2), size.scaled(4)))
    if name == "xielu":
        return _xielu(tape, x, size, trained)
    return tape.op((x,), size, keeps=(x,))


def _xielu(tape: Tape, x: Tensor, size: Size, trained: bool) -> Tensor:
    """Written out in Python, as its CUDA package is rarely there: `alpha_p * x * x + beta * x` above zero,
    `(expm1(min(x, eps)) - x) * alpha_n + beta * x` below (transformers 5.23 activations.py `XIELUActivation`)."""
    scaled = tape.op((x,), size, keeps=(x,) if trained else ())
    above = tape.op((tape.op((scaled, x), size, keeps=(scaled, x)), tape.op((x,), size)), size, aliases=(True, True))
    grown = tape.op((tape.op((x,), size, keeps=(x,)),), size)
    tape.ops[-1].kept = (grown,)  # expm1 keeps its result
    less = tape.op((grown, x), size, aliases=(True, False))
    weighted = tape.op((less,), size, keeps=(less,) if trained else ())
    below = tape.op((weighted, tape.op((x,), size)), size, aliases=(True, True))
    chosen = Tensor(Size(size.per_token // BYTES_PER_16_BIT), False)  # one byte per element: where x is above zero
    return tape.op((above, below), size, keeps=(chosen,))
