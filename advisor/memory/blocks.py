"""Tapes of whole blocks: attention, feed-forward and the residual path of a decoder layer, and the output head with its loss.

Written after transformers 5.23 `models/<type>/modeling_<type>.py`; what differs between families is in the `Block` value.
Legend: e bytes per element of the residual stream, h heads, d head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.errors import UnsupportedError
from advisor.memory.layers import (
    FP32_BYTES,
    Setting,
    cast,
    layer_norm,
    linear,
    output_bytes,
    rms_norm,
    rms_norm_gemma,
)
from advisor.memory.tape import Size, Tape, Tensor
from advisor.values import Attention, Block, Linear, Loss, ModelSpec

LOSS_CHUNK_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Kernel:
    """How attention runs."""

    attention: Attention
    padding: bool
    kv_cache: bool
    """The outputs keep keys and values alive (`use_cache` without checkpointing)."""


def block_tape(block: Block, hidden: int, setting: Setting, kernel: Kernel) -> tuple[Tape, Tensor]:
    """One layer, from its input hidden states to its output."""
    tape = Tape()
    e = setting.stream_bytes
    entry = Tensor(Size(hidden * e), needs_grad=True)
    linears = {layer.name: layer for layer in block.linears}
    if block.norm_placement == "parallel":
        normed = _norm(tape, entry, block, hidden, setting)
        attended = _attention(tape, normed, block, linears, setting, kernel)
        if block.norms > 1:
            normed = _norm(tape, entry, block, hidden, setting)
        fed = _feed_forward(tape, normed, block, linears, setting)
        both = _residual(tape, attended, fed, hidden, e)
        return tape, _finish(tape, entry, both, hidden, e)
    x = entry
    for part in (_attention_part, _feed_forward_part):
        y = _norm(tape, x, block, hidden, setting) if block.norm_placement in ("pre", "both") else x
        y = part(tape, y, block, linears, setting, kernel)
        if block.norm_placement in ("post", "both"):
            y = _norm(tape, y, block, hidden, setting)
        x = _residual(tape, x, y, hidden, e)
    return tape, entry


def _finish(tape: Tape, entry: Tensor, update: Tensor, hidden: int, e: int) -> Tensor:
    _residual(tape, entry, update, hidden, e)
    return entry


def _residual(tape: Tape, x: Tensor, y: Tensor, hidden: int, e: int) -> Tensor:
    return tape.op((x, y), Size(hidden * e), aliases=(True, True))


def _norm(tape: Tape, x: Tensor, block: Block, features: int, setting: Setting) -> Tensor:
    rule = {"rms": rms_norm, "rms_gemma": rms_norm_gemma, "layer": layer_norm}[block.norm]
    return rule(tape, x, features, setting, setting.stream_bytes)


def _attention_part(tape: Tape, x: Tensor, block: Block, linears: dict[str, Linear], setting: Setting, kernel: Kernel) -> Tensor:
    return _attention(tape, x, block, linears, setting, kernel)


def _feed_forward_part(tape: Tape, x: Tensor, block: Block, linears: dict[str, Linear], setting: Setting, kernel: Kernel) -> Tensor:
    return _feed_forward(tape, x, block, linears, setting)


# ------------------------------------------------------------------------------------------------ attention

_QKV = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
_OUT = ("o_proj", "out_proj", "dense", "c_proj", "Wo", "out_lin")


def _attention(tape: Tape, x: Tensor, block: Block, linears: dict[str, Linear], setting: Setting, kernel: Kernel) -> Tensor:
    shape = block.attention
    if shape.kind != "standard":
        raise UnsupportedError(f"attention of kind {shape.kind!r} has no closed form yet; use `advise trace`")
    e = setting.stream_bytes
    c = output_bytes(setting, e)
    q_size, kv_size = Size(shape.heads * shape.head_dim * c), Size(shape.kv_heads * shape.head_dim * c)
    names = next((trio for trio in _QKV if trio[0] in linears), None)
    if names:
        q, k, v = (linear(tape, x, linears[name], setting, e) for name in names)
    else:
        fused = next(layer for layer in block.linears if layer.out_features > layer.in_features or layer.name in _FUSED)
        whole = linear(tape, x, fused, setting, e)
        q = k = v = whole  # chunks are views of one storage
    if shape.qk_norm != "none":
        rule = rms_norm_gemma if block.norm == "rms_gemma" else rms_norm
        q = rule(tape, q, shape.heads * shape.head_dim, setting, c)
        k = rule(tape, k, shape.kv_heads * shape.head_dim, setting, c)
    if shape.rotary_fraction > 0:
        q = _rotate(tape, q, q_size, shape.rotary_fraction)
        k = _rotate(tape, k, kv_size, shape.rotary_fraction)
    if kernel.kv_cache:
        k = tape.op((k,), kv_size, aliases=(True,))  # DynamicCache concatenates with an empty tensor: a copy
        v = tape.op((v,), kv_size, aliases=(True,))
    out = _kernel(tape, (q, k, v), block, c, kernel)
    projection = next(linears[name] for name in _OUT if name in linears)
    return (
        linear(tape, out, projection, setting, c)
        if c == e
        else cast(tape, linear(tape, out, projection, setting, c), projection.out_features, c, e)
    )


_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack", "att_proj")


def _rotate(tape: Tape, x: Tensor, size: Size, fraction: float) -> Tensor:
    """`x * cos + rotate_half(x) * sin` (`apply_rotary_pos_emb`); cos and sin need no gradient, so nothing of x is kept."""
    part = Size(int(size.per_token * fraction))
    half = Size(part.per_token // 2)
    straight = tape.op((x,), part)
    negated = tape.op((x,), half)
    turned = tape.op((negated, x), part)
    turned = tape.op((turned,), part)
    rotated = tape.op((straight, turned), part, aliases=(True, True))
    return rotated if fraction == 1 else tape.op((rotated, x), size)


def _kernel(tape: Tape, qkv: tuple[Tensor, Tensor, Tensor], block: Block, c: int, kernel: Kernel) -> Tensor:
    shape = block.attention
    wide = Size(shape.heads * shape.head_dim * c)
    out_size = Size(shape.heads * shape.v_head_dim * c)
    grouped = shape.kv_heads != shape.heads
    q, k, v = qkv
    flash = kernel.attention is Attention.FLASH or (kernel.attention is Attention.SDPA and not kernel.padding)
    if shape.softcap or kernel.attention is Attention.EAGER:
        return _eager(tape, qkv, block, c)
    row_sums = Tensor(Size(shape.heads * FP32_BYTES), False)
    if flash:
        # flash_api.cpp mha_bwd (torch 2.13): fp32 dq accumulator and row sums; dk and dv at full head count before they are summed
        scratch = Size(shape.heads * (shape.head_dim + 1) * FP32_BYTES + (2 * wide.per_token if grouped else 0))
        return _attend(tape, (q, k, v), out_size, (q, k, v, row_sums), scratch)
    if grouped:
        k = tape.op((k,), wide)  # repeat_kv
        v = tape.op((v,), out_size)
    kept: tuple[Tensor, ...] = (q, k, v, row_sums)
    if kernel.padding:
        kept = (*kept, Tensor(Size(per_pair=c), False))  # the boolean mask as an additive bias, made anew in each layer
    scratch = Size(shape.heads * FP32_BYTES)
    return _attend(tape, (q, k, v), out_size, kept, scratch)


def _attend(tape: Tape, qkv: tuple[Tensor, ...], size: Size, kept: tuple[Tensor, ...], backward_scratch: Size) -> Tensor:
    """A fused attention kernel: it keeps q, k, v, its row sums, and its own output."""
    out = tape.op(qkv, size, keeps=kept, scratch=(Size(), backward_scratch))
    tape.ops[-1].kept = (*kept, out)
    return out


def _eager(tape: Tape, qkv: tuple[Tensor, Tensor, Tensor], block: Block, c: int) -> Tensor:
    """`eager_attention_forward`: scores in the computation's type, softmax in fp32, both of micro-batch x heads x sequence x sequence."""
    shape = block.attention
    wide = Size(shape.heads * shape.head_dim * c)
    q, k, v = qkv
    if shape.kv_heads != shape.heads:
        k = tape.op((k,), wide)
        v = tape.op((v,), Size(shape.heads * shape.v_head_dim * c))
    scores, scores32 = Size(per_pair=shape.heads * c), Size(per_pair=shape.heads * FP32_BYTES)
    weights = tape.op((q, k), scores, keeps=(q, k))
    weights = tape.op((weights,), scores)  # times scaling
    if shape.softcap:
        weights = tape.op((weights,), scores)  # divided by the cap
        weights = tape.op((weights,), scores)
        tape.ops[-1].kept = (weights,)  # tanh keeps its result
        weights = tape.op((weights,), scores)
    weights = tape.op((weights,), scores, aliases=(True,))  # plus the mask
    # softmax keeps its result; CUDA's backward makes grad * output inside (ATen/native/cuda/SoftMax.cu)
    probabilities = tape.op((weights,), scores32, scratch=(Size(), scores32))
    tape.ops[-1].kept = (probabilities,)
    probabilities = cast(tape, probabilities, 0, FP32_BYTES, FP32_BYTES) if c == FP32_BYTES else tape.op((probabilities,), scores)
    return tape.op((probabilities, v), Size(shape.heads * shape.v_head_dim * c), keeps=(probabilities, v))


# ------------------------------------------------------------------------------------------------ feed-forward

_DOWN = ("down_proj", "dense_4h_to_h", "fc2", "c_proj", "fc_out", "w2", "wo", "Wo", "lin2", "output")


def _feed_forward(tape: Tape, x: Tensor, block: Block, linears: dict[str, Linear], setting: Setting) -> Tensor:
    mlp, e = block.mlp, setting.stream_bytes
    if mlp.kind == "moe":
        raise UnsupportedError("Mixture-of-Experts has no closed form yet; use `advise trace`")
    c = output_bytes(setting, e)
    width = Size(mlp.intermediate_size * c)
    if mlp.kind == "gated":
        if mlp.fused_gate_up:
            gate = up = linear(tape, x, linears["gate_up_proj"], setting, e)
        else:
            gate = linear(tape, x, linears["gate_proj"], setting, e)
        active = activation(tape, gate, width, mlp.activation)
        if not mlp.fused_gate_up:
            up = linear(tape, x, linears["up_proj"], setting, e)
        inner = tape.op((active, up), width, keeps=(active, up))
    else:
        first = next(layer for layer in block.linears if layer.out_features == mlp.intermediate_size)
        inner = activation(tape, linear(tape, x, first, setting, e), width, mlp.activation)
    down = next(layer for layer in block.linears if layer.name in _DOWN and layer.in_features == mlp.intermediate_size)
    y = linear(tape, inner, down, setting, c)
    tape.hold(x)
    return y if c == e else cast(tape, y, down.out_features, c, e)


def activation(tape: Tape, x: Tensor, size: Size, name: str) -> Tensor:
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
    return tape.op((x,), size, keeps=(x,))


# ------------------------------------------------------------------------------------------------ head and loss


def head_tape(model: ModelSpec, setting: Setting, loss: Loss) -> tuple[Tape, Tensor, Size]:
    """Final norm, output head and loss. Returns the logits' size too: whether they outlive the forward is the loop's affair.

    Full loss: `logits.float()`, log-softmax and its backward in fp32 (loss/loss_utils.py `ForCausalLMLoss`).
    """
    tape = Tape()
    e, vocab = setting.stream_bytes, model.vocab_size
    entry = Tensor(Size(model.hidden_size * e), needs_grad=True)
    normed = _norm(tape, entry, model.blocks[-1], model.hidden_size, setting)
    head = Linear(name="lm_head", in_features=model.hidden_size, out_features=vocab, bias=model.head_bias)
    unquantised = replace(setting, quantization=None, adapted=frozenset())
    logits = linear(tape, normed, head, unquantised, e)
    logits_bytes = output_bytes(setting, e)
    logits_size = Size(vocab * logits_bytes)
    if model.scales_logits:
        logits = tape.op((logits,), logits_size)
    if model.softcaps_logits:
        logits = tape.op((logits,), logits_size)
        logits = tape.op((logits,), logits_size)
        tape.ops[-1].kept = (logits,)
        logits = tape.op((logits,), logits_size)
    wide = cast(tape, logits, vocab, logits_bytes, FP32_BYTES)
    log_probabilities = tape.op((wide,), Size(vocab * FP32_BYTES))
    tape.ops[-1].kept = (log_probabilities,)
    tape.op((log_probabilities,), Size(), keeps=(log_probabilities,))
    tape.hold(logits)
    tape.hold(normed)  # `outputs.last_hidden_state` lives as long as the model's forward
    return tape, entry, logits_size
