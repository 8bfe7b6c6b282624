"""Tape of the attention half of a layer: projections, rotation, kernel, output projection.

Written after transformers 5.23 `models/llama/modeling_llama.py` and `models/deepseek_v3/modeling_deepseek_v3.py`; what differs
between families is in the `Block` value. Legend: e bytes per element of the residual stream, c of what the kernel computes with.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory.layers import FP32_BYTES, Setting, cast, linear, output_bytes, quantizes
from advisor.memory.norms import layer_norm, rms_norm, rms_norm_gemma
from advisor.memory.scores import Heads, Run, Widths, eager, math
from advisor.memory.tape import Size, Tape, Tensor
from advisor.values import Attention, AttentionShape, Block, Linear

FLASH_MAX_HEAD_DIM = 256
"""Widest heads that torch's flash kernel takes (torch 2.13 ATen/native/transformers/cuda/sdp_utils.cpp, `check_head_dim_size_flash`)."""


class Kernel(NamedTuple):
    """How attention runs."""

    attention: Attention
    padding: bool
    kv_cache: bool
    """The outputs keep keys and values alive (`use_cache` without checkpointing)."""
    has_flash: bool
    """torch's SDPA can choose its flash kernel."""
    seq_len_tokens: int
    """Decides which layers with a window get a mask: those whose window the sequences reach."""
    fuses_softmax: bool
    """CUDA's softmax reads fp16 and writes fp32 in one kernel; from bf16 it makes an fp32 copy first (aten/src/ATen/native/SoftMax.cpp,
    `softmax`, torch 2.13)."""

    def masks(self, shape: AttentionShape) -> bool:
        """Whether attention gets a mask: of padding, or of a window that the sequences reach (transformers 5.23 masking_utils.py
        `_ignore_causal_mask_sdpa`, `kv_length < local_attention_size`)."""
        return self.padding or (shape.window_tokens is not None and self.seq_len_tokens >= shape.window_tokens)

    autocast: bool = False
    """Forward runs under torch.autocast."""
    several: bool = False
    """Eager attention of more than one sequence."""


def attention(tape: Tape, x: Tensor, block: Block, setting: Setting, kernel: Kernel) -> Tensor:
    """From normed hidden states to the attention's contribution to the residual stream."""
    shape, e = block.attention, setting.stream_bytes
    linears = tuple(layer for layer in block.linears if layer.part == "attention")
    c = output_bytes(setting, e, quantizes(setting, linears[0]))
    if shape.kind == "standard":
        heads = _standard(tape, x, block, linears, setting)
    elif shape.kind == "latent":
        heads = _latent(tape, x, block, linears, setting)
    else:
        raise UnsupportedError(f"attention of kind {shape.kind!r} has no closed form; `advise trace` runs the real model")
    if kernel.kv_cache:
        q, k, v = heads
        # DynamicCache concatenates with an empty tensor, which copies (transformers cache_utils.py `DynamicLayer.update`)
        k = tape.op((k,), Size(shape.kv_heads * shape.head_dim * c), aliases=(True,))
        tape.ops[-1].kept = (k,)  # by the outputs, which a plain loop holds through backward
        v = tape.op((v,), Size(shape.kv_heads * shape.v_head_dim * c), aliases=(True,))
        tape.ops[-1].kept = (v,)
        heads = (q, k, v)
    inner = _kernel_bytes(setting, kernel, c)
    out = _kernel(tape, _in_kernel_type(tape, heads, block, c, inner), block, inner, setting, kernel)
    projection = linears[-1]
    y = linear(tape, out, projection, setting, inner)
    c = output_bytes(setting, inner, quantizes(setting, projection))
    for local in (x, *heads):
        tape.hold(local)
    return cast(tape, y, projection.out_features, c, e)


def _kernel_bytes(setting: Setting, kernel: Kernel, c: int) -> int:
    """Autocast runs attention in 16 bit whatever the projections returned (torch 2.13 autocast_mode.h, lower-precision list), and the
    flash-attention package knows nothing else (transformers integrations/flash_attention.py, `get_target_dtype`)."""
    return setting.compute_bytes if setting.autocast or kernel.attention is Attention.FLASH else c


def _in_kernel_type(tape: Tape, heads: Heads, block: Block, c: int, inner: int) -> Heads:
    q, k, v = heads
    shape = block.attention
    q = cast(tape, q, shape.heads * shape.head_dim, c, inner)
    k = cast(tape, k, shape.kv_heads * shape.head_dim, c, inner)
    return q, k, cast(tape, v, shape.kv_heads * shape.v_head_dim, c, inner)


def _standard(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Heads:
    shape, e = block.attention, setting.stream_bytes
    c = output_bytes(setting, e, quantizes(setting, linears[0]))
    if shape.fused_qkv or len(linears) < 4:
        q = k = v = linear(tape, x, linears[0], setting, e)  # chunks are views of one storage
        if shape.copies_values:
            v = tape.op((v,), Size(shape.kv_heads * shape.v_head_dim * c))
    else:
        q, k, v = (linear(tape, x, layer, setting, e) for layer in linears[:3])
    if shape.qk_norm != "none":
        q = _normed(tape, q, block, shape.heads, setting, c)
        k = _normed(tape, k, block, shape.kv_heads, setting, c)
    if shape.rotary_fraction > 0:
        q = _rotate(tape, q, shape.heads * shape.head_dim * c, shape.rotary_fraction)
        k = _rotate(tape, k, shape.kv_heads * shape.head_dim * c, shape.rotary_fraction)
    return q, k, v


def _normed(tape: Tape, x: Tensor, block: Block, heads: int, setting: Setting, c: int) -> Tensor:
    """Queries or keys normed by the family's norm, head by head or all at once."""
    rule = {"rms": rms_norm, "rms_gemma": rms_norm_gemma, "layer": layer_norm}[block.norm]
    return rule(tape, x, heads * block.attention.head_dim, setting, c, heads if block.attention.qk_norm == "head" else 1)


def _latent(tape: Tape, x: Tensor, block: Block, linears: tuple[Linear, ...], setting: Setting) -> Heads:
    """Multi-head latent attention: low-rank queries, and keys and values expanded from one latent (DeepSeek-V2, section 2.1).

    Keys are assembled in a new tensor; queries are concatenated from a rotated and an unrotated part.
    """
    shape, e = block.attention, setting.stream_bytes
    c = output_bytes(setting, e, quantizes(setting, linears[0]))
    named = {layer.name: layer for layer in linears}
    if "q_a_proj" in named:
        low = linear(tape, x, named["q_a_proj"], setting, e)
        low = rms_norm(tape, low, named["q_a_proj"].out_features, setting, c)
        q = linear(tape, low, named["q_b_proj"], setting, c)
    else:
        q = linear(tape, x, named["q_proj"], setting, e)
    compressed = linear(tape, x, named["kv_a_proj_with_mqa"], setting, e)
    latent_width = named["kv_b_proj"].in_features
    rotated_width = named["kv_a_proj_with_mqa"].out_features - latent_width
    latent = rms_norm(tape, compressed, latent_width, setting, c)
    q_size = shape.heads * shape.head_dim * c
    q_rotated = _turn(tape, q, Size(shape.heads * rotated_width * c))
    k_rotated = _turn(tape, compressed, Size(rotated_width * c))
    q = tape.op((q, q_rotated), Size(q_size))
    expanded = linear(tape, latent, named["kv_b_proj"], setting, c)
    k = tape.op((expanded, k_rotated), Size(q_size))
    return q, k, expanded


def _rotate(tape: Tape, x: Tensor, size_bytes: int, fraction: float) -> Tensor:
    """`apply_rotary_pos_emb` over all or part of each head; the untouched part is concatenated again."""
    rotated = _turn(tape, x, Size(int(size_bytes * fraction)))
    return rotated if fraction == 1 else tape.op((rotated, x), Size(size_bytes))


def _turn(tape: Tape, x: Tensor, size: Size) -> Tensor:
    """`x * cos + rotate_half(x) * sin`; cos and sin need no gradient, so nothing of x is kept."""
    straight = tape.op((x,), size)
    negated = tape.op((x,), Size(size.per_token // 2))
    turned = tape.op((negated, x), size)
    turned = tape.op((turned,), size)
    return tape.op((straight, turned), size, aliases=(True, True))


def _runs_flash(kernel: Kernel, shape: AttentionShape, c: int) -> bool:
    """Whether the flash kernel runs: asked for, or chosen by torch for 16 bit without a mask, where values are as wide as keys and no
    wider than it can."""
    fits = kernel.has_flash and not kernel.masks(shape) and c < FP32_BYTES and shape.head_dim == shape.v_head_dim <= FLASH_MAX_HEAD_DIM
    return kernel.attention is Attention.FLASH or (kernel.attention is Attention.SDPA and fits)


def _kernel(tape: Tape, heads: Heads, block: Block, c: int, setting: Setting, kernel: Kernel) -> Tensor:
    shape = block.attention
    q, k, v = heads
    if kernel.attention is Attention.EAGER or (not shape.sdpa and not (shape.flash and kernel.attention is Attention.FLASH)):
        first = next(layer for layer in block.linears if layer.part == "attention")
        projected = output_bytes(setting, setting.stream_bytes, quantizes(setting, first))
        widths = Widths(c, setting.weight_bytes, projected)
        return _by_token(tape, eager(tape, heads, shape, widths, Run(kernel.fuses_softmax, kernel.autocast, kernel.several)))
    wide = Size(shape.heads * shape.head_dim * c)
    out_size = Size(shape.heads * shape.v_head_dim * c)
    grouped = shape.kv_heads != shape.heads
    row_sums = Tensor(Size(shape.heads * FP32_BYTES))
    if _runs_flash(kernel, shape, c):
        if shape.v_head_dim != shape.head_dim:
            v = tape.op((v,), wide)  # values padded to the width of the keys
            out_size = wide
        # torch 2.13 ATen/native/transformers/cuda/flash_attn/flash_api.cpp `mha_bwd`: an fp32 accumulator for dq and row sums;
        # dk and dv at full head count before they are summed over groups
        scratch = Size(shape.heads * (shape.head_dim + 1) * FP32_BYTES + (2 * wide.per_token if grouped else 0))
        out = _attend(tape, (q, k, v), out_size, (q, k, v, row_sums), scratch)
        return _by_token(tape, out) if _are_joined(shape) else out
    if grouped and kernel.attention is Attention.SDPA and not kernel.masks(shape):
        return _by_token(tape, math(tape, heads, shape, c))
    if grouped and shape.kv_heads > 1:  # a single head is repeated as a view
        k = tape.op((k,), wide)  # repeat_kv
        v = tape.op((v,), out_size)
    kept: tuple[Tensor, ...] = (q, k, v, row_sums)
    if kernel.masks(shape):
        kept = (*kept, Tensor(Size(per_pair=c)))  # the boolean mask as an additive bias, made anew in each layer
    return _attend(tape, (q, k, v), out_size, kept, Size(shape.heads * FP32_BYTES))


def _are_joined(shape: AttentionShape) -> bool:
    """Whether queries are concatenated of a rotated and an untouched part. They then lie head by head, and so does flash's result, which
    is made like them (torch 2.13 transformers/cuda/flash_attn/flash_api.cpp `mha_fwd`, `empty_like(q)`)."""
    return shape.kind == "latent" or 0 < shape.rotary_fraction < 1


def _by_token(tape: Tape, out: Tensor) -> Tensor:
    """`attn_output.transpose(1, 2).contiguous()` of a result that lies head by head: a copy (integrations/sdpa_attention.py)."""
    return tape.op((out,), out.size, aliases=(True,))


def _attend(tape: Tape, heads: Heads, size: Size, kept: tuple[Tensor, ...], backward_scratch: Size) -> Tensor:
    """A fused attention kernel: it keeps q, k, v, its row sums, and its own output."""
    out = tape.op(heads, size, keeps=kept, scratch=(Size(), backward_scratch))
    tape.ops[-1].kept = (*kept, out)
    return out
