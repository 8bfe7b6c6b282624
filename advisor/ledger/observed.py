"""What a Trainer's arguments, its model and the card say of a run. Nothing here loads torch or transformers; it looks at theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from advisor.ledger.build import run_from
from advisor.stacks.words import ATTENTIONS, OPTIMIZERS
from advisor.values.run import RunRecord
from advisor.values.vocabulary import Quantization

_LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
_DTYPES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


def from_trainer(args: Any, model: Any, dataloader: Any) -> RunRecord:
    """The set-up as `TrainingArguments` and the model have it (transformers 4.48 to 5.23, peft 0.13 to 0.21)."""
    cards = getattr(args, "world_size", None) or 1
    optimizer = str(getattr(args.optim, "value", args.optim))
    notes = () if optimizer in OPTIMIZERS else (f"optimizer: {optimizer}",)
    schedule = getattr(args, "lr_scheduler_type", None)
    fields = {
        "learning_rate": args.learning_rate or None,
        "lr_schedule": None if schedule is None else str(getattr(schedule, "value", schedule)),
        "batch_size": args.per_device_train_batch_size,
        "grad_accum": args.gradient_accumulation_steps,
        "gpus": cards,
        "effective_batch": args.per_device_train_batch_size * args.gradient_accumulation_steps * cards,
        "optimizer": OPTIMIZERS.get(optimizer),
        "checkpointing": bool(args.gradient_checkpointing),
        "seed": args.seed,
        "seq_len": _first(args, "max_length", "max_seq_length"),
        "examples": _length(getattr(dataloader, "dataset", None)),
        "source": type(args).__name__,
        "versions": dict(_versions()),
        "notes": notes,
        **({} if model is None else _of_model(model, args)),
    }
    return run_from(fields, "the Trainer: ")


def _of_model(model: Any, args: Any) -> dict[str, Any]:
    config, inner = getattr(model, "config", None), model
    while hasattr(inner, "module") and not hasattr(inner, "peft_config"):  # DDP and its like
        inner = inner.module
    config = getattr(inner, "config", config)
    quantization = _quantization(getattr(config, "quantization_config", None))
    parameters = list(inner.named_parameters())
    trained = sum(parameter.numel() for _, parameter in parameters if parameter.requires_grad)
    base = next((str(parameter.dtype) for name, parameter in parameters if "lora_" not in name and parameter.dtype.is_floating_point), "")
    fields: dict[str, Any] = {
        "model": getattr(config, "_name_or_path", None) or None,
        "precision": _precision(_DTYPES.get(base), args),
        "attention": ATTENTIONS.get(str(getattr(config, "_attn_implementation", ""))),
        "quantization": quantization,
    }
    adapters = getattr(inner, "peft_config", None)
    if not adapters:
        return {**fields, "method": "full", "quantization": None} if quantization is None else fields
    lora = next(iter(adapters.values()))
    if str(getattr(lora.peft_type, "value", lora.peft_type)) != "LORA":
        return {**fields, "notes": (f"peft type {lora.peft_type}: not a method of the ladder",)}
    init, targets = lora.init_lora_weights, lora.target_modules
    return {
        **fields,
        "method": ("q" if quantization is not None else "") + ("dora" if lora.use_dora else "lora"),
        "rank": lora.r,
        "alpha": lora.lora_alpha,
        "target_modules": sorted(targets) if isinstance(targets, (list, set, tuple)) else [str(targets)],
        "use_rslora": bool(lora.use_rslora),
        "dropout": lora.lora_dropout,
        "init": init if isinstance(init, str) else None,
        "adapter_params": trained or None,
    }


def _quantization(config: Any) -> Quantization | None:
    """bitsandbytes' kinds, AWQ and GPTQ; a config may be an object or a mapping."""
    if config is None:
        return None
    fields = config if isinstance(config, dict) else vars(config)
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method")))
    if method in (Quantization.AWQ.value, Quantization.GPTQ.value):
        return Quantization(method)
    if fields.get("load_in_4bit") or fields.get("_load_in_4bit"):
        return Quantization(str(fields.get("bnb_4bit_quant_type", "fp4")))
    return Quantization.INT8 if fields.get("load_in_8bit") or fields.get("_load_in_8bit") else None


def _precision(base: str | None, args: Any) -> str | None:
    """None where no word of the vocabulary says it: 16-bit weights under autocast."""
    amp = "bf16" if args.bf16 else "fp16" if args.fp16 else None
    if amp is None:
        return base
    return f"{amp}-amp" if base == "fp32" else None


def _first(holder: Any, *names: str) -> int | None:
    return next((value for name in names if isinstance(value := getattr(holder, name, None), int) and value > 0), None)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset) or None
    except TypeError:  # a stream
        return None


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "__version__"):
            yield name, str(module.__version__)


def peak_memory() -> dict[str, int]:
    """The process's largest memory on its card; nothing without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {"peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_bytes": torch.cuda.max_memory_reserved()}
