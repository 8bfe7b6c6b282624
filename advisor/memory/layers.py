"""Tapes of single layers: what transformers, peft, bitsandbytes and GPT-QModel run for a linear layer.

Sizes are bytes. Legend: in/out features of a matrix, r rank, e bytes per element of the residual stream, c of the computation
inside matrices. Sources are files of transformers 5.23, peft 0.21 and bitsandbytes 0.50, unless they say otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.checkpoints import packed
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.values import Linear, Quantization

FP32_BYTES = 4
HALF_BYTES = 2
INDEX_BYTES = 8
"""torch's int64 indices."""
ABSMAX_SCRATCH_PER_PARAM = 1 / 16
"""Dequantising doubly quantised weights first makes an fp32 absmax per 64 weights (bitsandbytes/functional.py, dequantize_4bit)."""


class Setting(NamedTuple):
    """Everything about a plan that changes what a layer does."""

    stream_bytes: int
    """Bytes per element of the hidden states between blocks (fp32 when embeddings were lifted by k-bit preparation)."""
    compute_bytes: int
    """Bytes per element inside matrix products: the 16-bit type under autocast or in 4-bit layers."""
    weight_bytes: int
    """Bytes per element of an unquantised weight matrix."""
    adapter_bytes: int
    trains_base: bool
    """Full fine-tuning: every parameter gets a gradient."""
    quantization: Quantization | None
    double_quant: bool
    quantized_experts: bool
    rank: int
    dora: bool
    autocast: bool
    adapted: frozenset[tuple[str, bool]]
    """Matrices that carry an adapter: leaf name, and whether it is a module."""
    adapter_dropout: bool = False
    """Inputs of adapters are dropped at random (peft `lora_dropout` above 0, in training)."""
    hands_over: bool = False
    """What backward needs comes from a checkpoint's hook, which keeps it no longer than the operation's own backward runs (torch 2.13
    utils/checkpoint.py `_checkpoint_hook`); else it stays until the gradients are cast (csrc/autograd/engine.cpp, `release_variables`)."""

    def outside_blocks(self) -> Setting:
        """The same for embeddings, head and final norm, which carry no adapter and are never quantised."""
        return self._replace(
            quantization=None, double_quant=False, quantized_experts=False, adapter_bytes=0, rank=0, dora=False, adapted=frozenset()
        )

    @property
    def by_bitsandbytes(self) -> bool:
        """The base's matrices are bitsandbytes' layers."""
        return self.quantization is not None and not packed(self.quantization)

    def wraps(self, layer: Linear) -> bool:
        return (layer.name, layer.is_module) in self.adapted


def cast(tape: Tape, x: Tensor, features: int, from_bytes: int, to_bytes: int) -> Tensor:
    """`x.to(dtype)`: nothing when the type is already right, else a new tensor; keeps nothing."""
    if from_bytes == to_bytes:
        return x
    return tape.op((x,), Size(features * to_bytes))


def linear(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """A linear layer with whatever is wrapped around it. The result has `x_bytes` per element, except under autocast."""
    if layer.is_module and setting.wraps(layer):
        return _adapted(tape, x, layer, setting, x_bytes)
    return _base(tape, x, layer, setting, x_bytes)


def output_bytes(setting: Setting, x_bytes: int, quantized: bool) -> int:
    """Bytes per element of what a linear layer returns: autocast decides, else the type that came in.

    bitsandbytes' layers return their input's type also under autocast (nn/modules.py `Linear4bit.forward`, `.to(inp_dtype)`), and so
    do AWQ's; GPTQ's end in torch's own product.
    """
    own_type = quantized and setting.quantization is not Quantization.GPTQ
    return setting.compute_bytes if setting.autocast and not own_type else x_bytes


def quantizes(setting: Setting, layer: Linear) -> bool:
    """Whether a layer of bitsandbytes stands in its place."""
    return setting.quantization is not None and layer.can_be_quantized


def _base(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    if not quantizes(setting, layer):
        return _dense(tape, x, layer, setting, x_bytes)
    if setting.quantization is Quantization.INT8:
        return _int8(tape, x, layer, setting, x_bytes)
    if setting.quantization is Quantization.AWQ:
        return _awq(tape, x, layer, setting, x_bytes)
    if setting.quantization is Quantization.GPTQ:
        return _gptq(tape, x, layer, setting, x_bytes)
    return _four_bit(tape, x, layer, setting, x_bytes)


def _dense(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """`F.linear`: keeps its input only where the weight is trained (derivatives.yaml, `mm`)."""
    params = layer.in_features * layer.out_features
    inner_bytes = setting.compute_bytes if setting.autocast else x_bytes
    x = cast(tape, x, layer.in_features, x_bytes, inner_bytes)
    keeps: list[Tensor] = [x] if setting.trains_base else []
    if setting.autocast and setting.weight_bytes != inner_bytes:
        # autocast makes a 16-bit copy of the weight, which the product keeps to differentiate by its input
        copied_bytes = params * inner_bytes
        keeps.append(tape.cached(copied_bytes) if setting.trains_base else Tensor(Size(constant=copied_bytes)))
    gradient = (params + (layer.out_features if layer.bias else 0)) * setting.weight_bytes if setting.trains_base else 0
    return tape.op((x,), Size(layer.out_features * inner_bytes), keeps=tuple(keeps), parameter_gradient_bytes=gradient)


def _four_bit(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """`Linear4bit`: computes in 16 bit and returns the input's type; dequantises the weight anew in both directions.

    Source: bitsandbytes/nn/modules.py `Linear4bit.forward`, bitsandbytes/autograd/_functions.py `MatMul4Bit` (keeps no input).
    """
    inner_bytes = setting.compute_bytes
    params = layer.in_features * layer.out_features
    absmax_bytes = int(params * ABSMAX_SCRATCH_PER_PARAM) if setting.double_quant else 0
    scratch = Size(constant=params * inner_bytes + absmax_bytes)
    x = cast(tape, x, layer.in_features, x_bytes, inner_bytes)
    y = tape.op((x,), Size(layer.out_features * inner_bytes), scratch=(scratch, scratch))
    return cast(tape, y, layer.out_features, inner_bytes, x_bytes)


def _int8(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """`Linear8bitLt`: quantises the input per row and keeps it (bitsandbytes/autograd/_functions.py `MatMul8bitLt`).

    Forward scratch: an fp16 copy and an int8 copy of the input, the int32 product. Backward scratch: the weight in 16 bit.
    """
    inner_bytes = setting.compute_bytes
    x = cast(tape, x, layer.in_features, x_bytes, inner_bytes)
    forward_scratch = Size(layer.in_features * 3 + layer.out_features * 4)
    backward_scratch = Size(constant=layer.in_features * layer.out_features * inner_bytes)
    y = tape.op((x,), Size(layer.out_features * inner_bytes), keeps=(x,), scratch=(forward_scratch, backward_scratch))
    return cast(tape, y, layer.out_features, inner_bytes, x_bytes)


DORA_FACTORS = 3
"""Kept for each output of a layer: its row's norm |w|, m/|w| and m/|w| - 1 (peft 0.21 tuners/lora/dora.py `DoraLinearLayer.forward`)."""


GPTQ_UNPACK_BYTES_PER_PARAM = 5
"""Beside the result while GPT-QModel unpacks a matrix in torch: the shifted words in int32 and their cast to int8 (GPT-QModel 7.7
nn_modules/qlinear/__init__.py `dequantize_weight`). Where torch.compile fuses them they are not there: an upper bound."""


def _awq(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """`AwqGEMMLinear`: computes in the input's 16-bit type, expands the weight anew in both directions and keeps no input.

    Source: GPT-QModel 7.7 nn_modules/qlinear/gemm_awq.py `AwqGemmFn`. Up to 1,024 tokens its forward does not expand the weight; it is
    priced as if it did. Under autocast in another 16-bit type the product casts the expanded weight once more.
    """
    inner_bytes = min(x_bytes, HALF_BYTES)
    weight = layer.in_features * layer.out_features * inner_bytes
    x = cast(tape, x, layer.in_features, x_bytes, inner_bytes)
    forward = Size(constant=weight * (2 if setting.autocast else 1))
    y = tape.op((x,), Size(layer.out_features * inner_bytes), scratch=(forward, Size(constant=weight)))
    if layer.bias:
        y = tape.op((y,), Size(layer.out_features * inner_bytes))
    return cast(tape, y, layer.out_features, inner_bytes, x_bytes)


def _gptq(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """`TorchLinear`, which GPT-QModel's other trainable kernels become in training: torch's product keeps the expanded weight.

    Source: GPT-QModel 7.7 nn_modules/qlinear/torch.py `_forward_eager`, tritonv2.py `forward` (`if self.training`). Older kernels
    expand the weight again in backward and keep nothing: with checkpointing the two differ by one layer's weights.
    """
    params = layer.in_features * layer.out_features
    inner_bytes = setting.compute_bytes if setting.autocast else x_bytes
    x = cast(tape, x, layer.in_features, x_bytes, inner_bytes)
    unpacking = Size(constant=params * GPTQ_UNPACK_BYTES_PER_PARAM)
    weight = tape.op((), Size(constant=params * inner_bytes), scratch=(unpacking, Size()))
    y = tape.op((x,), Size(layer.out_features * inner_bytes), keeps=(weight,))
    tape.hold(weight)
    return y


def _adapted(tape: Tape, x: Tensor, layer: Linear, setting: Setting, x_bytes: int) -> Tensor:
    """LoRA or DoRA around a base layer (peft/tuners/lora/layer.py `Linear.forward`, lora/bnb.py `Linear4bit.forward`)."""
    quantized = quantizes(setting, layer)
    argument, y_bytes = x, output_bytes(setting, x_bytes, quantized)
    result = _base(tape, x, layer, setting, x_bytes)
    if quantized and setting.by_bitsandbytes:
        result = tape.op((result,), Size(layer.out_features * y_bytes))  # "defensively clone", lora/bnb.py
    if not (setting.autocast and quantized and _keeps_type(setting)):
        x = cast(tape, x, layer.in_features, x_bytes, setting.adapter_bytes)
        x_bytes = setting.adapter_bytes
    y = _updated(tape, result, x, layer, setting, (x_bytes, y_bytes))
    for tensor in (argument, x):
        tape.hold(tensor)  # an argument lives until its call returns
    return y


def _keeps_type(setting: Setting) -> bool:
    """peft casts the input to the adapter's type; under autocast it skips that for these layers (lora/{bnb,awq}.py requires_conversion)."""
    return setting.by_bitsandbytes or setting.quantization is Quantization.AWQ


def _updated(tape: Tape, result: Tensor, x: Tensor, layer: Linear, setting: Setting, widths: tuple[int, int]) -> Tensor:
    """The base's result plus the adapter's, whose input is dropped, and cast where there is autocast. `widths` are bytes per element
    of the adapter's input and of the result."""
    inner_bytes, y_bytes = widths
    if setting.adapter_dropout:
        x = dropout(tape, x, layer.in_features, inner_bytes)
    if setting.autocast:
        x = cast(tape, x, layer.in_features, inner_bytes, setting.compute_bytes)
        inner_bytes = setting.compute_bytes
    keeps, gradient = (x, *_factor_copy(tape, layer.in_features, setting)), layer.in_features * setting.rank * setting.adapter_bytes
    low = tape.op((x,), Size(setting.rank * inner_bytes), keeps=keeps, parameter_gradient_bytes=gradient)
    if setting.dora:
        return _dora(tape, (x, result, low), layer, setting, (inner_bytes, y_bytes))
    wide = Size(layer.out_features * inner_bytes)
    keeps, gradient = (low, *_factor_copy(tape, layer.out_features, setting)), layer.out_features * setting.rank * setting.adapter_bytes
    update = tape.op((low,), wide, keeps=keeps, parameter_gradient_bytes=gradient)
    update = tape.op((update,), wide)  # times scaling
    if quantizes(setting, layer) and _keeps_type(setting):
        update = cast(tape, update, layer.out_features, inner_bytes, y_bytes)
        return tape.op((result, update), Size(layer.out_features * y_bytes), aliases=(True, True))
    return _add_and_round(tape, result, update, layer.out_features, (y_bytes, inner_bytes))


def _factor_copy(tape: Tape, features: int, setting: Setting) -> tuple[Tensor, ...]:
    """The 16-bit copy of an fp32 adapter's A or B under autocast, which the product keeps to differentiate by its input."""
    if not setting.autocast or setting.adapter_bytes == setting.compute_bytes:
        return ()
    return (tape.cached(features * setting.rank * setting.compute_bytes),)


def _add_and_round(tape: Tape, result: Tensor, update: Tensor, features: int, widths: tuple[int, int]) -> Tensor:
    """`(result + update).to(result.dtype)` where the update may be wider: the sum is as wide as the wider of the two."""
    result_bytes, update_bytes = widths
    sum_bytes = max(widths)
    total = tape.op((result, update), Size(features * sum_bytes), aliases=(result_bytes == sum_bytes, update_bytes == sum_bytes))
    return cast(tape, total, features, sum_bytes, result_bytes)


def _dora(tape: Tape, parts: tuple[Tensor, Tensor, Tensor], layer: Linear, setting: Setting, widths: tuple[int, int]) -> Tensor:
    """DoRA's forward (peft/tuners/lora/dora.py `DoraLinearLayer.forward`; the norm is detached, DoRA paper section 4.3).

    Each call multiplies an identity matrix through the adapter to get B·A, and adds it to a copy of the weight in the adapter's
    type: matrices of in x in and in x out, whatever the batch. `parts` are the adapter's input, the base's result, and A's.
    """
    x, result, low = parts
    inner_bytes, y_bytes = widths
    matrix = layer.in_features * layer.out_features * setting.adapter_bytes
    rounded = setting.compute_bytes if setting.autocast else setting.adapter_bytes
    if rounded != setting.adapter_bytes:  # the product keeps a 16-bit copy of the identity, which itself is gone after it
        both = layer.in_features**2 * (setting.adapter_bytes + rounded) + layer.in_features * layer.out_features * rounded
        tape.op((), ZERO, scratch=(Size(constant=both), ZERO))
    identity = layer.in_features * (layer.in_features + setting.rank) * rounded
    needs_copy = quantizes(setting, layer) or setting.weight_bytes != setting.adapter_bytes
    held = tape.op((), Size(constant=identity + matrix * (2 if needs_copy else 1)), scratch=(Size(constant=2 * matrix), Size()))
    out = layer.out_features
    wide = Size(out * inner_bytes)
    keeps = (low, *_factor_copy(tape, out, setting))
    update = tape.op((low,), wide, keeps=keeps, parameter_gradient_bytes=out * setting.rank * setting.adapter_bytes)
    magnitude = out * setting.adapter_bytes
    # m / |w| keeps |w|; (m/|w| - 1) * base keeps both factors, m/|w| * update likewise; each sums a product for the magnitude's gradient
    factors = Tensor(Size(constant=DORA_FACTORS * magnitude))
    scaled_bytes = max(y_bytes, setting.adapter_bytes)
    scaled = Size(out * scaled_bytes)
    if setting.adapter_dropout:
        base = _product_of_dropped(tape, x, layer, setting, inner_bytes)
    else:
        base = tape.op((result,), Size(out * y_bytes), aliases=(True,)) if layer.bias else result  # minus the bias: a new tensor
    base_products, update_products = (Size(), _two_products(scaled, base.size)), (Size(), _two_products(scaled, update.size))
    base_part = tape.op((base,), scaled, keeps=(base, factors), scratch=base_products, parameter_gradient_bytes=magnitude)
    update_part = tape.op((update,), scaled, keeps=(update,), scratch=update_products)
    update_part = tape.op((update_part,), scaled)  # times scaling
    extra = tape.op((base_part, update_part), scaled, aliases=(True, True))
    tape.hold(held)
    return _add_and_round(tape, result, extra, out, (y_bytes, scaled_bytes))


def _two_products(made: Size, gradient: Size) -> Size:
    """Beside the `gradient` of a factor while backward makes the products of both factors, each as large as what forward `made`: one is
    summed over tokens for the other factor, one cast to the gradient's type (torch 2.13 csrc/autograd/engine.cpp, validate_outputs)."""
    return made.scaled(2).plus(gradient, -1)


def _product_of_dropped(tape: Tape, x: Tensor, layer: Linear, setting: Setting, inner_bytes: int) -> Tensor:
    """With dropout DoRA multiplies the base's weight by the dropped input anew, and keeps its copy of the weight for backward
    (peft 0.21 tuners/lora/variants.py `DoraLinearVariant.forward`, tuners/lora/dora.py `base_result is None`)."""
    is_copied = quantizes(setting, layer) or setting.weight_bytes != inner_bytes or setting.adapter_bytes != inner_bytes
    weight = Tensor(Size(constant=layer.in_features * layer.out_features * inner_bytes if is_copied else 0))
    return tape.op((x,), Size(layer.out_features * inner_bytes), keeps=(weight,))


def dropout(tape: Tape, x: Tensor, features: int, x_bytes: int) -> Tensor:
    """`native_dropout` keeps a mask of one byte per element (derivatives.yaml); its result is a tensor of its own."""
    return tape.op((x,), Size(features * x_bytes), keeps=(Tensor(Size(features)),))
