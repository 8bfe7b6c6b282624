"""What every option that was left out was taken to be, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.checkpoints import expanded_by, trained_as
from advisor.stacks.facts import StackDefaults
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_LABELS, FIRST_RANK, batch, first_attention, first_seq_len
from advisor.stacks.known import defaults_of
from advisor.stacks.targets import first_targets
from advisor.values.card import GpuSpec
from advisor.values.model import ModelSpec
from advisor.values.plan import ALL_LINEAR
from advisor.values.request import Request
from advisor.values.vocabulary import Attention, Head, Method, ModelKind, Quantization, Stack

_BESIDE_TEXT = {ModelKind.IMAGE_TEXT: "images", ModelKind.AUDIO_TEXT: "sounds or images"}


def echo_defaults(model: ModelSpec, gpu: GpuSpec | None, request: Request) -> tuple[str, ...]:
    """The defaults that were used, by subject. What the user gave is not repeated."""
    stack = defaults_of(request.stack or Stack.HF)
    subjects = (
        ("checkpoint", _checkpoint(model)),
        ("batch", _batch(model, request)),
        ("adapter", _adapter(model, request, stack)),
        ("head", _head(model, request)),
        ("training loop", _loop(model, gpu, request, stack)),
        ("gradient checkpointing", _checkpointing(request, stack)),
        ("several GPUs", _several(gpu, request)),
    )
    return tuple(f"{subject}: {', '.join(parts)}" for subject, parts in ((name, list(parts)) for name, parts in subjects) if parts)


def _loop(model: ModelSpec, gpu: GpuSpec | None, request: Request, stack: StackDefaults) -> Iterator[str]:
    if request.stack is None:
        yield f"{stack.label} ({stack.stack.value})"
    if request.precision is None:
        if trained_as(model) is Quantization.AWQ:
            yield "fp16 with loss scaling, as transformers loads AWQ"
        elif gpu is None or gpu.bf16_supported:
            yield "bf16"
        else:
            yield f"fp16 with loss scaling, as {gpu.name} has no bf16 (fp32 weights where all are trained)"
    if request.optimizer is None:
        yield stack.optimizer.value.value
    if request.loss is None:
        yield f"{stack.loss.value.value} loss"
    if request.attention is None:
        attention = first_attention(model)
        yield f"{attention.value} attention{' (transformers has no SDPA for this model)' if attention is Attention.EAGER else ''}"


def _checkpoint(model: ModelSpec) -> Iterator[str]:
    """How it is stored, and what that means for training."""
    stored = model.checkpoint_format
    if stored is None:
        return
    yield f"stored in {stored.label}{f' ({stored.assumed})' if stored.assumed else ''}"
    if expanded_by(model):
        yield "expanded to 16 bit on loading (dequantize=True)"
    elif stored.trained_as is not None:
        yield "adapters train on it as it is"


def _adapter(model: ModelSpec, request: Request, stack: StackDefaults) -> Iterator[str]:
    if request.method is Method.FULL:
        return
    if request.rank is None:
        yield f"rank {FIRST_RANK}"
    if request.alpha is None:
        yield f"alpha {ALPHA_PER_RANK * (request.rank or FIRST_RANK)} (twice the rank)"
    if request.lora_dropout is None and stack.lora_dropout.value:
        yield f"dropout {stack.lora_dropout.value:g} (none for DoRA)"
    if request.target_modules is None:
        named = first_targets(model)
        yield "on all linear layers of the blocks" if named == (ALL_LINEAR,) else f"on {', '.join(named)}, all that peft can wrap"
    if request.quantization is None and trained_as(model) is None and (request.method is None or request.method.is_quantized):
        yield "4-bit bases in nf4" + (" with double quantisation" if request.double_quant is None else "")


def _head(model: ModelSpec, request: Request) -> Iterator[str]:
    """Only for a classifier: that a decoder scores words goes without saying."""
    head = request.head or model.first_head
    if head not in (Head.CLASSIFICATION, Head.TOKENS):
        return
    if request.head is None:
        yield f"{head.value}, say --head mlm to train on masked words" if model.kind is ModelKind.ENCODER else head.value
    if request.labels is None:
        yield f"{model.labels or FIRST_LABELS} labels"
    if request.method is None or request.method.is_quantized:
        yield "kept out of quantisation (llm_int8_skip_modules)"


def _batch(model: ModelSpec, request: Request) -> Iterator[str]:
    n_gpus = request.gpus or 1
    micro_batch, accumulation = batch(request, n_gpus)
    if request.batch_size is None:
        yield f"micro-batch {micro_batch}{' per GPU' if n_gpus > 1 else ''}"
    if request.grad_accum is None:
        yield f"accumulation {accumulation} ({micro_batch * accumulation * n_gpus} sequences per step)"
    if request.seq_len is None:
        yield f"sequences of {first_seq_len(model):,} tokens{'' if request.padding else ' without padding'}"
    if request.images is None and (unpriced := beside_text(model)):
        yield f"text alone, without {unpriced}"


def _checkpointing(request: Request, stack: StackDefaults) -> Iterator[str]:
    if request.checkpointing is not None:
        return
    plain, quantized = (("on" if default.value else "off") for default in (stack.checkpointing, stack.quantized_checkpointing))
    yield f"starts {plain}" if plain == quantized else f"starts {plain}, on 4-bit bases {quantized} (the stack's defaults)"


def _several(gpu: GpuSpec | None, request: Request) -> Iterator[str]:
    if (request.gpus or 1) > 1:
        if gpu is not None and request.gpus == gpu.gpus_of_machine:
            yield f"all {request.gpus} of the machine (--gpus says otherwise)"
        if request.shard is None:
            yield "a replica on each first (DDP), sharded (FSDP) where that does not fit, on fewer cards where only that fits"


def beside_text(model: ModelSpec) -> str:
    """What the batches of its kind hold beside text, in a word; empty for a model of text alone, and for one of sound, whose sound is
    priced."""
    return _BESIDE_TEXT.get(model.kind, "")
