"""Tape of the feed-forward half of a layer: dense, gated, or Mixture-of-Experts.

Experts run as transformers 5.23 runs them on a GPU: sorted by expert and multiplied in groups
(integrations/moe.py `grouped_mm_experts_forward`). Legend: c bytes per element of what the layer computes with.
"""

from __future__ import annotations

from advisor.errors import UnsupportedError
from advisor.memory.layers import ABSMAX_SCRATCH_PER_PARAM, FP32_BYTES, INDEX_BYTES, Setting, cast, linear, output_bytes, quantizes
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.values import Block, Linear

BYTES_PER_16_BIT = 2


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
        inner = _gate(tape, linear(tape, x, linears[0], setting, e), width, mlp.activation)
    else:
        gate = linear(tape, x, linears[0], setting, e)
        active = activation(tape, gate, width, mlp.activation)
        up = linear(tape, x, linears[1], setting, e)
        inner = tape.op((active, up), width, keeps=(active, up))
    y = linear(tape, inner, down, setting, c)
    tape.hold(x)
    return cast(tape, y, down.out_features, output_bytes(setting, c, quantizes(setting, down)), e)


def _gate(tape: Tape, both: Tensor, width: Size, name: str) -> Tensor:
    """`act(gate) * up`, where both are halves of one tensor."""
    gate, up = tape.halves(both, width)
    active = activation(tape, gate, width, name)
    return tape.op((active, up), width, keeps=(active, up))


def _experts(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    """The routed experts and the shared one, in the order in which the family runs them: backward frees what the latest kept first."""
    mlp = block.mlp
    if mlp.every_expert_computes:
        raise UnsupportedError("experts that all compute every token (Llama 4) have no closed form; `advise trace` runs the real model")
    for _ in range(mlp.noises):
        noise = tape.op((), x.gradient_size)
        x = tape.in_place(x, keeps=(noise,))
        tape.hold(noise)
    if not mlp.shared_intermediate_size:
        return _routed(tape, x, block, linears, setting)
    if mlp.shared_runs_first:
        shared = _shared(tape, x, block, linears[3:], setting)
        routed = _routed(tape, x, block, linears, setting)
    else:
        routed = _routed(tape, x, block, linears, setting)
        shared = _shared(tape, x, block, linears[3:], setting)
    if linears[-1].out_features == 1:  # Qwen2-MoE weighs the shared expert by a sigmoid of its own
        weight = tape.op((linear(tape, x, linears[-1], setting, setting.stream_bytes),), Size(setting.stream_bytes))
        shared = tape.op((shared, weight), shared.size, keeps=(shared, weight), scratch=(Size(), shared.size))
    y = tape.op((routed, shared), routed.size, aliases=(True, True))
    tape.hold(x)
    return y


def _routed(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    """The experts that a token is sent to (transformers 5.23 integrations/moe.py `grouped_mm_experts_forward`)."""
    mlp, e = block.mlp, setting.stream_bytes
    router, gate_up, down = linears[:3]
    k, hidden = mlp.experts_per_token, down.out_features
    c = setting.compute_bytes if setting.quantized_experts else setting.weight_bytes  # `_grouped_mm` casts its input to the weights' type
    scores = _route(tape, x, block, router, setting)
    probabilities = tape.op((scores,), Size(mlp.experts * FP32_BYTES))
    tape.ops[-1].kept = (probabilities,)
    indices = Tensor(Size(k * INDEX_BYTES))
    routing = tape.op((probabilities,), Size(k * FP32_BYTES), keeps=(indices,))
    orders = 3 if gate_up.bias and setting.trains_base else 2  # of tokens, of their weights, and of trained biases, by expert
    order = Tensor(Size(orders * k * INDEX_BYTES))
    chosen = tape.op((x,), Size(k * hidden * e), keeps=(order,))
    inner = _grouped(tape, cast(tape, chosen, k * hidden, e, c), gate_up, k, setting, c)
    bias = tape.op((), Size(k * gate_up.out_features * c if gate_up.bias else 0))  # each token's own, gathered by its expert
    width = Size(k * mlp.intermediate_size * c)
    inner = _clamped_gate(tape, inner, width) if mlp.clamped else _gate(tape, inner, width, mlp.activation)
    tape.hold(bias)
    out = _grouped(tape, inner, down, k, setting, c)
    bias = tape.op((), Size(k * hidden * c if down.bias else 0))
    weighted_bytes = max(c, _weight_bytes(block, setting))
    wide = Size(k * hidden * weighted_bytes)
    weighted = tape.op((out, routing), wide, keeps=(out, routing), scratch=(ZERO, _products_of_backward(out, wide, setting)))
    back = tape.op((), Size(k * INDEX_BYTES))  # to the tokens' own order
    restored = tape.op((weighted,), wide, keeps=(back,))
    tape.hold(back)
    by_token = tape.op((restored,), ZERO)  # a view: the sum's gradient is expanded, which the view before it has to copy
    y = tape.op((by_token,), Size(hidden * weighted_bytes), aliases=(True,))
    y = cast(tape, y, hidden, weighted_bytes, e)
    for local in (chosen, out, bias, x):
        tape.hold(local)
    return y


def _weight_bytes(block: Block, setting: Setting) -> int:
    """Of one of the numbers that weigh the experts' results."""
    if block.mlp.weighs_in == "fp32":
        return FP32_BYTES
    return _logit_bytes(block, setting) if block.mlp.weighs_in == "logits" else setting.stream_bytes


def _logit_bytes(block: Block, setting: Setting) -> int:
    """Of one element of the router's product, which autocast runs in 16 bit even where the model casts its factors to fp32."""
    if block.mlp.routes_in == "own" or (block.mlp.routes_in == "fp32" and setting.autocast):
        return output_bytes(setting, setting.stream_bytes, quantized=False)
    return FP32_BYTES


def _products_of_backward(out: Tensor, wide: Size, setting: Setting) -> Size:
    """Beside the gradient of `out`, the experts' results, which a product of the size `wide` weighs: the product that is summed for the
    weights. With fp32 weights the gradient of `out` is such a product first, too, and cast while both are there (torch 2.13
    csrc/autograd/engine.cpp `call_function`, validate_outputs); by then `out` is gone if a checkpoint's hook handed it over.
    """
    if wide == out.size:
        return wide
    return wide.scaled(2).plus(out.size, -1) if setting.hands_over else wide.scaled(2)


def _route(tape: Tape, x: Tensor, block: Block, router: Linear, setting: Setting) -> Tensor:
    """The router's scores. An adapter on a router that is no module changes its weight, so that the product keeps its input."""
    if block.mlp.routes_in != "own":
        return _route_in_fp32(tape, x, router, setting, _logit_bytes(block, setting))
    if router.is_module or not setting.wraps(router):
        return linear(tape, x, router, setting, setting.stream_bytes)
    gradient = setting.rank * (router.in_features + router.out_features) * setting.adapter_bytes
    return tape.op((x,), Size(router.out_features * setting.stream_bytes), keeps=(x,), parameter_gradient_bytes=gradient)


def _route_in_fp32(tape: Tape, x: Tensor, router: Linear, setting: Setting, inner_bytes: int) -> Tensor:
    """fp32 copies of input and weight (transformers 5.23 models/deepseek_v3/modeling_deepseek_v3.py `DeepseekV3TopkRouter`), which the
    product takes in `inner_bytes` per element."""
    x32 = cast(tape, x, router.in_features, setting.stream_bytes, FP32_BYTES)
    factor = cast(tape, x32, router.in_features, FP32_BYTES, inner_bytes)
    params = router.in_features * router.out_features
    weight = Tensor(Size(constant=params * inner_bytes))
    gradient = 0
    if setting.trains_base:
        gradient = params * setting.weight_bytes
    elif setting.wraps(router):
        gradient = setting.rank * (router.in_features + router.out_features) * setting.adapter_bytes
    keeps = (weight, factor) if gradient else (weight,)
    return tape.op((factor,), Size(router.out_features * inner_bytes), keeps=keeps, parameter_gradient_bytes=gradient)


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
        biases = layer.out_features * layer.copies if layer.bias else 0
        gradient = (params + biases) * setting.weight_bytes if setting.trains_base else 0
        y = tape.op((x,), size, keeps=keeps, parameter_gradient_bytes=gradient)
        tape.hold(kept)
        return y
    # peft adds B A to a copy of every expert's weights, which the product keeps and whose gradient is whole
    # (peft 0.21 lora/layer.py `ParamWrapper._activate_lora`, torch.baddbmm)
    fused = 2 if layer.name == "gate_up_proj" else 1
    factors = setting.rank * fused * layer.copies * (layer.in_features + layer.out_features)
    copied = 0 if setting.weight_bytes == setting.adapter_bytes else factors * setting.weight_bytes  # `lhs` and `rhs`, in the weights' type
    low = tape.op((), Size(constant=copied), parameter_gradient_bytes=factors * setting.adapter_bytes)
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


def _shared(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Tensor:
    """The expert that every token passes."""
    mlp, e = block.mlp, setting.stream_bytes
    c = output_bytes(setting, e, setting.quantization is not None)
    width = Size(mlp.shared_intermediate_size * c)
    gate = linear(tape, x, linears[0], setting, e)
    if len(linears) == 2:
        inner = _gate(tape, gate, width, mlp.activation)
    else:
        active = activation(tape, gate, width, mlp.activation)
        up = linear(tape, x, linears[1], setting, e)
        inner = tape.op((active, up), width, keeps=(active, up))
    down = next(layer for layer in linears if layer.in_features == mlp.shared_intermediate_size)
    return linear(tape, inner, down, setting, c)


def activation(tape: Tape, x: Tensor, size: Size, name: str, *, trained: bool = False) -> Tensor:
    """An activation function: most keep their input; ReLU keeps its result; `gelu_new` is written out in eight operations.

    A power's gradient makes two tensors beside its result (torch csrc/autograd/FunctionsManual.cpp `pow_backward`).
    """
    if name in ("relu", "relu2"):
        y = tape.op((x,), size)
        tape.ops[-1].kept = (y,)
        return tape.op((y,), size, keeps=(y,), scratch=(Size(), size.scaled(2))) if name == "relu2" else y
    if name == "gelu_new":
        half = tape.op((x,), size)
        cubed = tape.op((x,), size, keeps=(x,), scratch=(Size(), size.scaled(2)))
        inner = tape.op((tape.op((cubed,), size), x), size, aliases=(True, True))
        tanh = tape.op((tape.op((inner,), size),), size)
        tape.ops[-1].kept = (tanh,)
        shifted = tape.op((tanh,), size, aliases=(True,))
        return tape.op((half, shifted), size, keeps=(half, shifted))
    if name == "gelu_fast":
        return _gelu_fast(tape, x, size)
    if name == "bloom_gelu":  # one node, whose forward and backward are written out (models/bloom/modeling_bloom.py `bloom_gelu_back`)
        return tape.op((x,), size, keeps=(x,), scratch=(size.scaled(3), size.scaled(4)))
    if name == "xielu":
        return _xielu(tape, x, size, trained)
    return tape.op((x,), size, keeps=(x,))


def _gelu_fast(tape: Tape, x: Tensor, size: Size) -> Tensor:
    """Written out in Python: `0.5 * x * (1 + tanh(x * 0.798 * (1 + 0.0447 * x * x)))` (transformers 5.23 activations.py
    `FastGELUActivation`); a product keeps both of its factors, where both depend on `x`."""
    half = tape.op((x,), size)
    scaled = tape.op((x,), size)
    slope = tape.op((x,), size)
    curved = tape.op((slope, x), size, keeps=(slope, x))
    bent = tape.op((curved,), size, aliases=(True,))
    inner = tape.op((scaled, bent), size, keeps=(scaled, bent))
    tanh = tape.op((inner,), size)
    tape.ops[-1].kept = (tanh,)
    shifted = tape.op((tanh,), size, aliases=(True,))
    return tape.op((half, shifted), size, keeps=(half, shifted))


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
    chosen = Tensor(Size(size.per_token // BYTES_PER_16_BIT))  # one byte per element: where x is above zero
    return tape.op((above, below), size, keeps=(chosen,))
