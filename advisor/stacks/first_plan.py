"""The plan that a practitioner would run first: the user's options, then the stack's defaults, then the field's habits."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from advisor.checkpoints import check_plan, packed, trained_as
from advisor.errors import InvalidInputError
from advisor.stacks.engines import masters_of, reentrant_of
from advisor.stacks.facts import FOUR_BIT, StackDefaults
from advisor.stacks.known import defaults_of
from advisor.stacks.liger import check_loss
from advisor.stacks.targets import available_targets, check_rank, check_targets, first_targets, stacked_targets, without_stacked
from advisor.values.card import GpuSpec
from advisor.values.model import ModelSpec
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.request import Precision, Request
from advisor.values.vocabulary import Attention, DType, Method, Mixers, Quantization, Sharding, Stack

# trl 1.16 trainer/model_config.py: lora_r=16, lora_alpha=32; the field's commonest pair.
FIRST_RANK = 16
# Facts S1 and S5: alpha = 2 × rank did better than alpha = rank or a fixed alpha as the rank grew.
ALPHA_PER_RANK = 2
# Fact Q11 (LoRA Land) and QLoRA: micro-batch 1 with 16 accumulation steps; facts B1 and B2: LoRA is at its best up to 32 sequences.
FIRST_MICRO_BATCH = 1
FIRST_EFFECTIVE_BATCH = 16
# Judgement: holds nearly every example of the common instruction sets; the length that memory tables of the field are quoted at.
FIRST_SEQ_LEN_TOKENS = 2048
# transformers 5.23 configuration_utils.py: `num_labels` where a config names no classes.
FIRST_LABELS = 2


class _Numbers(NamedTuple):
    """Types of the weights and of the computation."""

    base_dtype: DType
    autocast: bool
    autocast_dtype: DType


def default_plan(method: Method, model: ModelSpec, gpu: GpuSpec | None, request: Request) -> Plan:
    """What would be run first with `method`, with the request's options applied.

    Raises InvalidInputError, one line that names the option, where the model or the method cannot take what was asked.
    """
    stack = defaults_of(request.stack or Stack.HF)
    _check_request(model, request, stack.stack)
    quantization = _quantization(method, model, request)
    check_plan(model, method, quantization)
    targets = _targets(model, request, quantization)
    if method.has_adapter:
        check_targets(model, targets)
        targets = without_stacked(model, targets) if method.is_dora else targets
        if not targets:
            raise InvalidInputError(f"--target-modules: peft has no DoRA for stacked experts; name attention projections of {model.id} too")
        check_rank(model, targets, request.rank or FIRST_RANK)
    numbers = _numbers(method, gpu, _with_fp16(request, quantization), stack)
    n_gpus = request.gpus or 1
    micro_batch, accumulation = batch(request, n_gpus)
    sharding = sharding_of(request)
    checkpointing = _given(request.checkpointing, (stack.quantized_checkpointing if quantization else stack.checkpointing).value)
    reentrant = _given(request.reentrant, reentrant_of(stack, sharding, adapter=method.has_adapter))
    try:
        return Plan(
            method=method,
            rank=request.rank or FIRST_RANK,
            alpha=request.alpha or ALPHA_PER_RANK * (request.rank or FIRST_RANK),
            target_modules=targets,
            lora_dropout=_dropout(method, model, targets, request, stack),
            adapter_dtype=_adapter_dtype(stack, quantization, numbers),
            base_dtype=numbers.base_dtype,
            autocast=numbers.autocast,
            autocast_dtype=numbers.autocast_dtype,
            quantization=quantization,
            double_quant=quantization in FOUR_BIT and _double_quant(model, request),
            kbit_prepare=quantization is not None and not packed(quantization) and _given(request.kbit_prepare, stack.kbit_prepare.value),
            optimizer=request.optimizer or stack.optimizer.value,
            micro_batch_size=micro_batch,
            seq_len_tokens=request.seq_len or first_seq_len(model),
            grad_accum_steps=accumulation,
            images_per_row=request.images or 0,
            image_size_pixels=request.image_size,
            gradient_checkpointing=checkpointing,
            use_reentrant=reentrant,
            attention=request.attention or first_attention(model),
            mixers=request.mixers or Mixers.INSTALLED,
            padding=_given(request.padding, False),
            kv_cache_in_outputs=stack.kv_cache_in_outputs.value,
            head=None if request.head is model.first_head else request.head,
            labels=request.labels or model.labels or FIRST_LABELS,
            loss=request.loss or stack.loss.value,
            shift=stack.shift.value,
            stack=stack.stack,
            n_gpus=n_gpus,
            sharding=sharding,
            masters=masters_of(sharding, stack.stack, mixed=numbers.autocast, quantized=quantization is not None),
            **_shared(request, n_gpus),
        )
    except ValidationError as error:
        raise InvalidInputError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None


def _check_request(model: ModelSpec, request: Request, stack: Stack) -> None:
    check_loss(request.loss, stack, model)
    if request.images is not None or request.image_size is not None:
        from advisor.images import check_images  # text alone is priced without it

        check_images(model, request)


def sharding_of(request: Request) -> Sharding:
    """The engine that was asked for, else replicas where there are several cards. DeepSpeed may run on one, where that is said."""
    if (request.gpus or 1) == 1:
        if request.shard in (None, Sharding.NONE):
            return Sharding.NONE
        if request.gpus == 1 and request.shard.is_zero:
            return request.shard
        own = ", or --gpus 1 for DeepSpeed on one" if request.shard.is_zero else ""
        raise InvalidInputError(f"--shard {request.shard.value}: one GPU shares nothing; say how many there are with --gpus N{own}")
    if request.shard is Sharding.NONE:
        raise InvalidInputError(f"--shard none: {request.gpus} GPUs that train one model share it or its gradients; ddp shares least")
    return request.shard or Sharding.DDP


def _shared(request: Request, n_gpus: int) -> dict[str, Any]:
    """What the request says of how cards share, beyond the engine."""
    return {
        "shard_group": None if request.shard_group == n_gpus else request.shard_group,
        "sync_each_batch": bool(request.sync_each_batch),
        "offload": request.offload or (),
    }


def _given(option: bool | None, default: bool) -> bool:
    return default if option is None else option


def _dropout(method: Method, model: ModelSpec, targets: tuple[str, ...], request: Request, stack: StackDefaults) -> float:
    """The stack's own; none where nothing is adapted, where peft refuses it, and for DoRA, whose fast path runs without only (fact D5)."""
    if not method.has_adapter:
        return 0.0
    stacked = stacked_targets(model, targets)
    if request.lora_dropout and stacked:
        raise InvalidInputError(f"--lora-dropout: peft has none for the stacked experts of {model.id} ({', '.join(stacked)}); give 0")
    if request.lora_dropout is not None:
        return request.lora_dropout
    return 0.0 if method.is_dora or stacked else stack.lora_dropout.value


def _targets(model: ModelSpec, request: Request, quantization: Quantization | None) -> tuple[str, ...]:
    """Every linear layer where nothing is asked for. peft 0.21's "all-linear" looks for `nn.Linear`, which AWQ's and GPTQ's layers are
    not (tuners/tuners_utils.py `_maybe_include_all_linear_layers`): there the layers are named."""
    asked = request.target_modules or first_targets(model)
    named = available_targets(model) if packed(quantization) and asked == (ALL_LINEAR,) else ()
    return named or asked


def _quantization(method: Method, model: ModelSpec, request: Request) -> Quantization | None:
    """The one asked for, else that of a checkpoint which is quantised already, else nf4."""
    if method.is_quantized:
        return request.quantization or trained_as(model) or Quantization.NF4
    return None


def _double_quant(model: ModelSpec, request: Request) -> bool:
    """A checkpoint that is quantised already has fixed it."""
    stored = model.checkpoint_format
    fixed = stored.double_quant if stored is not None and stored.trained_as is not None else None
    if fixed is not None and request.double_quant not in (None, fixed):
        raise InvalidInputError(
            f"--{'' if request.double_quant else 'no-'}double-quant: {model.id} is stored {'with' if fixed else 'without'} it"
        )
    return _given(request.double_quant, True if fixed is None else fixed)


def _with_fp16(request: Request, quantization: Quantization | None) -> Request:
    """AWQ runs in fp16: transformers 5.23 loads its checkpoints so on GPUs (quantizers/quantizer_awq.py `update_dtype`)."""
    if quantization is not Quantization.AWQ:
        return request
    if request.precision is Precision.BF16:
        raise InvalidInputError("--precision bf16: transformers loads an AWQ checkpoint in fp16; leave the option out")
    return request.model_copy(update={"precision": request.precision or Precision.FP16})


def _numbers(method: Method, gpu: GpuSpec | None, request: Request, stack: StackDefaults) -> _Numbers:
    """bf16 as the stack runs it; on cards without bf16, fp16 with autocast, as the loss must be scaled.

    torch's GradScaler refuses fp16 gradients (torch 2.13 amp/grad_scaler.py "Attempting to unscale FP16 gradients"), so what is
    trained stays fp32 there: the adapters, or with full fine-tuning the whole model.
    """
    first = Precision.BF16 if gpu is None or gpu.bf16_supported else Precision.FP16_AMP if method is Method.FULL else Precision.FP16
    match request.precision or first:
        case Precision.FP32:
            return _Numbers(DType.FP32, False, DType.BF16)
        case Precision.BF16_AMP:
            return _Numbers(DType.FP32, True, DType.BF16)
        case Precision.FP16_AMP:
            return _Numbers(DType.FP32, True, DType.FP16)
        case Precision.FP16:
            return _Numbers(DType.FP16, method is not Method.FULL, DType.FP16)
        case Precision.BF16:
            return _Numbers(DType.BF16, (stack.full_autocast if method is Method.FULL else stack.autocast).value, DType.BF16)


def _adapter_dtype(stack: StackDefaults, quantization: Quantization | None, numbers: _Numbers) -> DType:
    if numbers.base_dtype is DType.FP32 and quantization is None:
        return DType.FP32
    return (stack.quantized_adapter_dtype if quantization else stack.adapter_dtype).value


def batch(request: Request, n_gpus: int) -> tuple[int, int]:
    """Micro-batch and accumulation steps: accumulation fills up to the first effective batch."""
    micro_batch = request.batch_size or FIRST_MICRO_BATCH
    return micro_batch, request.grad_accum or max(1, FIRST_EFFECTIVE_BATCH // (micro_batch * n_gpus))


def first_seq_len(model: ModelSpec) -> int:
    return min(FIRST_SEQ_LEN_TOKENS, model.max_position_tokens or FIRST_SEQ_LEN_TOKENS)


def first_attention(model: ModelSpec) -> Attention:
    """transformers 5.23 modeling_utils.py: SDPA, and eager for classes that set `_supports_sdpa = False`."""
    return Attention.SDPA if model.sdpa else Attention.EAGER
