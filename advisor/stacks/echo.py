"""What every option that was left out was taken to be, one line each."""

from __future__ import annotations

from advisor.stacks.facts import StackDefaults
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_RANK, batch, first_attention, first_seq_len
from advisor.stacks.known import defaults_of
from advisor.values.card import GpuSpec
from advisor.values.model import ModelSpec
from advisor.values.request import Request
from advisor.values.vocabulary import Attention, Stack


def echo_defaults(model: ModelSpec, gpu: GpuSpec | None, request: Request) -> tuple[str, ...]:
    """One line for each option that was not given and what it was taken to be."""
    stack = defaults_of(request.stack or Stack.HF)
    lines: list[str] = []
    if request.stack is None:
        lines.append(f"stack {stack.stack.value}: {stack.label} (--stack)")
    lines.extend(_echo_adapter(request))
    lines.extend(_echo_batch(model, request))
    lines.extend(_echo_numbers(gpu, request))
    if request.optimizer is None:
        lines.append(f"optimizer {stack.optimizer.value.value}: the stack's default (--optimizer)")
    if request.loss is None:
        lines.append(f"loss {stack.loss.value.value}: the stack's default (--loss)")
    if request.attention is None:
        attention = first_attention(model)
        why = "transformers has no SDPA for this model" if attention is Attention.EAGER else "transformers' default"
        lines.append(f"attention {attention.value}: {why} (--attention)")
    if request.checkpointing is None:
        lines.append(_echo_checkpointing(stack))
    return tuple(lines)


def _echo_adapter(request: Request) -> list[str]:
    lines = []
    rank = request.rank or FIRST_RANK
    if request.rank is None:
        lines.append(f"rank {rank} (--rank)")
    if request.alpha is None:
        lines.append(f"alpha {ALPHA_PER_RANK * rank}: twice the rank (--alpha)")
    if request.target_modules is None:
        lines.append("adapters on all linear layers of the blocks (--target-modules)")
    if request.quantization is None:
        lines.append("quantised bases: nf4 with double quantisation (--quantization)")
    return lines


def _echo_batch(model: ModelSpec, request: Request) -> list[str]:
    n_gpus = request.gpus or 1
    micro_batch, accumulation = batch(request, n_gpus)
    lines = []
    if request.batch_size is None:
        lines.append(f"micro-batch {micro_batch} per card (--batch-size)")
    if request.grad_accum is None:
        lines.append(f"accumulation {accumulation}: {micro_batch * accumulation * n_gpus} sequences per step (--grad-accum)")
    if request.seq_len is None:
        lines.append(f"sequences of {first_seq_len(model):,} tokens, full length, no padding (--seq-len)")
    if n_gpus > 1:
        lines.append(f"{n_gpus} cards: a replica on each first (DDP), sharded (FSDP) where that does not fit")
    return lines


def _echo_numbers(gpu: GpuSpec | None, request: Request) -> list[str]:
    if request.precision is not None:
        return []
    if gpu is None or gpu.bf16_supported:
        return ["16-bit weights and computation in bf16 (--precision)"]
    return [f"fp16 with loss scaling, as {gpu.name} has no bf16; full fine-tuning keeps fp32 weights (--precision)"]


def _echo_checkpointing(stack: StackDefaults) -> str:
    def word(on: bool) -> str:
        return "on" if on else "off"

    plain, quantized = stack.checkpointing.value, stack.quantized_checkpointing.value
    if plain == quantized:
        return f"gradient checkpointing starts {word(plain)}: the stack's default (--checkpointing)"
    return f"gradient checkpointing starts {word(plain)}, {word(quantized)} on quantised bases: the stack's defaults (--checkpointing)"
