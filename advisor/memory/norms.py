"""Tapes of the norms. Sizes are bytes; sources are files of transformers 5.23."""

from __future__ import annotations

from advisor.memory.layers import FP32_BYTES, Setting, cast
from advisor.memory.tape import Size, Tape, Tensor
from advisor.values import Block


def rms_norm(tape: Tape, x: Tensor, features: int, setting: Setting, x_bytes: int, rows: int = 1) -> Tensor:
    """RMSNorm as written out in Llama (models/llama/modeling_llama.py `LlamaRMSNorm`): in fp32, rounded, times the weight.

    `rows` is how many vectors of a token are normed: the heads, where each is normed by itself.
    """
    wide = Size(features * FP32_BYTES)
    narrow = Size(features * x_bytes)
    x32 = cast(tape, x, features, x_bytes, FP32_BYTES)
    # pow(2) keeps its input; its backward makes pow(1), times 2, times the gradient (FunctionsManual.cpp pow_backward)
    variance = tape.op((x32,), Size(rows * FP32_BYTES), keeps=(x32,), scratch=(wide, wide.scaled(3)))
    rsqrt = _rsqrt(tape, variance)
    normed = tape.op((x32, rsqrt), wide, keeps=(x32, rsqrt), scratch=(Size(), wide))
    tape.hold(x32)
    normed = cast(tape, normed, features, FP32_BYTES, x_bytes)
    weight_gradient = features // rows * setting.weight_bytes if setting.trains_base else 0  # heads share one vector
    keeps = (normed,) if setting.trains_base else ()
    result = tape.op(
        (normed,),
        narrow,
        keeps=keeps,
        scratch=(Size(), narrow if setting.trains_base else Size()),
        parameter_gradient_bytes=weight_gradient,
    )
    tape.hold(variance)
    return result


def rms_norm_gemma(tape: Tape, x: Tensor, features: int, setting: Setting, x_bytes: int, rows: int = 1) -> Tensor:
    """RMSNorm as in Gemma (models/gemma2/modeling_gemma2.py): `norm(x.float()) * (1 + weight.float())`, rounded at the end."""
    wide = Size(features * FP32_BYTES)
    x32 = cast(tape, x, features, x_bytes, FP32_BYTES)
    variance = tape.op((x32,), Size(rows * FP32_BYTES), keeps=(x32,), scratch=(wide, wide.scaled(3)))
    rsqrt = _rsqrt(tape, variance)
    normed = tape.op((x32, rsqrt), wide, keeps=(x32, rsqrt), scratch=(Size(), wide))
    tape.hold(x32)
    weight_gradient = features // rows * setting.weight_bytes if setting.trains_base else 0  # heads share one vector
    keeps = (normed,) if setting.trains_base else ()
    scaled = tape.op(
        (normed,), wide, keeps=keeps, scratch=(Size(), wide if setting.trains_base else Size()), parameter_gradient_bytes=weight_gradient
    )
    return cast(tape, scaled, features, FP32_BYTES, x_bytes)


def _rsqrt(tape: Tape, variance: Tensor) -> Tensor:
    """`rsqrt` keeps its result, not the mean of squares that it is given (torch 2.13 derivatives.yaml)."""
    result = tape.op((variance,), variance.size)
    tape.ops[-1].kept = (result,)
    return result


def layer_norm(tape: Tape, x: Tensor, features: int, setting: Setting, x_bytes: int, rows: int = 1) -> Tensor:
    """`native_layer_norm` of a weight and a bias."""
    gradient = 2 * features * setting.weight_bytes if setting.trains_base else 0
    return _native_layer_norm(tape, x, features, x_bytes, rows=rows, gradient=gradient)


def _native_layer_norm(tape: Tape, x: Tensor, features: int, x_bytes: int, *, rows: int = 1, gradient: int = 0) -> Tensor:
    """It keeps its input, mean and reciprocal deviation (derivatives.yaml)."""
    statistics = Tensor(Size(2 * rows * FP32_BYTES))
    return tape.op((x,), Size(features * x_bytes), keeps=(x, statistics), parameter_gradient_bytes=gradient)


def _layer_norm_fp32_kernel(tape: Tape, x: Tensor, features: int, setting: Setting) -> Tensor:
    """The kernel, without weights, between two casts (models/olmo/modeling_olmo.py `OlmoLayerNorm`)."""
    x32 = cast(tape, x, features, setting.stream_bytes, FP32_BYTES)
    return cast(tape, _native_layer_norm(tape, x32, features, FP32_BYTES), features, FP32_BYTES, setting.stream_bytes)


def _layer_norm_fp32_ops(tape: Tape, x: Tensor, features: int, setting: Setting) -> Tensor:
    """Written out in fp32: the centred input is made twice, once for the variance (models/cohere/modeling_cohere.py)."""
    wide = Size(features * FP32_BYTES)
    x32 = cast(tape, x, features, setting.stream_bytes, FP32_BYTES)
    centred = tape.op((x32,), wide, aliases=(True,))
    variance = tape.op((centred,), Size(FP32_BYTES), keeps=(centred,), scratch=(wide, wide.scaled(3)))
    rsqrt = _rsqrt(tape, variance)
    centred = tape.op((x32,), wide, aliases=(True,))
    normed = tape.op((centred, rsqrt), wide, keeps=(centred, rsqrt), scratch=(Size(), wide))
    tape.hold(x32)
    trained = setting.trains_base
    gradient = features * setting.weight_bytes if trained else 0
    weight32 = Tensor(Size(constant=features * FP32_BYTES if setting.weight_bytes != FP32_BYTES else 0))
    keeps = (normed, weight32) if trained else (weight32,)
    weighted = tape.op((normed,), wide, keeps=keeps, parameter_gradient_bytes=gradient)
    result = cast(tape, weighted, features, FP32_BYTES, setting.stream_bytes)
    tape.hold(variance)
    return result


def norm(tape: Tape, x: Tensor, block: Block, features: int, setting: Setting) -> Tensor:
    """The norm of the residual stream as the family computes it."""
    if block.norm == "rms":
        return rms_norm(tape, x, features, setting, setting.stream_bytes)
    if block.norm == "rms_gemma":
        return rms_norm_gemma(tape, x, features, setting, setting.stream_bytes)
    if block.layer_norm == "fp32_kernel":
        return _layer_norm_fp32_kernel(tape, x, features, setting)
    if block.layer_norm == "fp32_ops":
        return _layer_norm_fp32_ops(tape, x, features, setting)
    return layer_norm(tape, x, features, setting, setting.stream_bytes)
