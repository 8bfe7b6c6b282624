"""The real model, its real 4-bit layers and its real adapter, on the meta device: shapes without bytes."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from advisor.architectures import LABEL_MODULES, headed
from advisor.errors import UnsupportedError
from advisor.stacks.targets import refuse_unwrappable
from advisor.tape.cut import Cut, find_cut, signatures_of
from advisor.trace import compat, flash, fused_head, load
from advisor.trace.load import DTYPES
from advisor.trace.recorder import Recorder
from advisor.values import ALL_LINEAR, Attention, DType, Head, ModelSpec, Plan


@dataclass(slots=True)
class MetaModel:
    """What a training step needs, built but not yet run."""

    model: Any
    """What is called in the loop: the peft model, or the bare one for full fine-tuning."""
    base: Any
    """The transformers model inside."""
    layer_path: str
    """Dotted path of the list of repeated layers inside `model`."""
    head: Head
    """What stands on it."""

    @property
    def is_classifier(self) -> bool:
        """One label per row rather than per token."""
        return self.head is Head.CLASSIFICATION


def config_of(spec: ModelSpec, layers: tuple[int, ...] | None = None) -> Any:
    """The transformers config of `spec`, cut to the named layers when given."""
    from transformers import AutoConfig

    content = json.loads(spec.config_json)
    model_type = content.pop("model_type", spec.model_type)
    content.pop("quantization_config", None)
    content.pop("auto_map", None)
    try:
        config = AutoConfig.for_model(model_type, **content)
    except ValueError as error:
        raise UnsupportedError(
            f"{spec.id}: the installed transformers has no model type {model_type!r}; install a version that has it"
        ) from error
    if spec.labels is not None:
        config.num_labels = spec.labels
        config.pad_token_id = config.pad_token_id or 0  # a classifier looks for the last token before the padding
    if layers is not None:
        compat.cut_layers(config, layers)
    return config


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of a model to build."""

    layers: tuple[int, ...] | None = None
    """Only these layers; None for all."""
    device: str = "meta"
    """"cpu" builds the model for real, with random weights."""
    whole_model_bytes: int | None = None
    """What loading the whole model would warm the allocator up with, when only some layers are built."""


WHOLE = Shape()


def build(spec: ModelSpec, plan: Plan, recorder: Recorder, shape: Shape = WHOLE, peft_config: Any = None) -> MetaModel:
    """Build, quantise, prepare and wrap as `plan` says, telling the recorder what is loaded."""
    spec = headed(spec, plan)
    if plan.method.has_adapter and peft_config is None:
        refuse_unwrappable(spec, plan.target_modules)
    config = config_of(spec, shape.layers)
    config.use_cache = plan.kv_cache_in_outputs
    # A quantised model's 16-bit weights reach the card one at a time, as transformers loads them.
    arrives = plan.quantization is not None and shape.device not in ("meta", "cpu")
    with compat.uninitialised() if arrives else nullcontext():
        base = base_model(spec, config, plan, "cpu" if arrives else shape.device)
    if spec.head is Head.LM:
        fused_head.install(base, plan.loss)
    load.load(base, plan, recorder, shape.whole_model_bytes, shape.device if arrives else None)
    if plan.kbit_prepare:
        load.prepare_kbit(base, recorder)
    for parameter in base.parameters():
        parameter.requires_grad_(not plan.method.has_adapter and parameter.is_floating_point())
    model = _wrap(base, plan, peft_config or lora_config(spec, plan), shape.device) if plan.method.has_adapter else base
    if plan.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": plan.use_reentrant})
        if plan.use_reentrant and plan.method.has_adapter:
            base.enable_input_require_grads()  # else no gradient reaches a layer; the Trainer and peft see to it
    model.train()
    _register_adapter(model, plan, recorder)
    return MetaModel(model=model, base=base, layer_path=layer_path(model), head=spec.head)


def whole_model_cut(spec: ModelSpec, plan: Plan) -> tuple[Cut, Shape] | None:
    """How the model can be shortened for tracing; found on the whole model's modules, which cost next to nothing on meta."""
    spec = headed(spec, plan)
    config = config_of(spec)
    base = base_model(spec, config, plan)
    path = layer_path(base)
    cut = find_cut(signatures_of(base.get_submodule(path), config)) if path else None
    if cut is None:
        return None
    return cut, Shape(cut.layers, whole_model_bytes=load.warm_up_bytes(base, plan) if plan.quantization is not None else None)


def base_model(spec: ModelSpec, config: Any, plan: Plan, device: str = "meta") -> Any:
    """The bare transformers model, its attention as the plan wants it: SDPA where the architecture has it, as the library defaults."""
    model = None
    for auto_class in _auto_classes(spec):
        for name in ("eager",) if plan.attention is Attention.EAGER else ("sdpa", "eager"):
            try:
                with torch.device(device):
                    model = compat.from_config(auto_class, config, DTYPES[plan.base_dtype], name)
                break
            except ValueError as error:  # no such class for this config, or no SDPA in this architecture
                problem = error
            except ImportError as error:
                raise UnsupportedError(f"{spec.id}: its code needs more libraries: {first_line(error)}") from error
        if model is not None:
            break
    else:
        raise UnsupportedError(f"{spec.id}: {first_line(problem)}") from problem
    _refuse_state_spaces(spec, model)
    model.tie_weights()
    if plan.attention is Attention.FLASH:
        flash.install(model)
    return model


_AUTO_CLASSES = {
    Head.MLM: "AutoModelForMaskedLM",
    Head.CLASSIFICATION: "AutoModelForSequenceClassification",
    Head.TOKENS: "AutoModelForTokenClassification",
    Head.EMBEDDING: "AutoModel",
}
_TASKS = {Head.LM: "CAUSAL_LM", Head.CLASSIFICATION: "SEQ_CLS", Head.TOKENS: "TOKEN_CLS"}
"""peft's word for the task; none for masked language models."""


def _auto_classes(spec: ModelSpec) -> tuple[Any, ...]:
    import transformers

    if spec.head is not Head.LM:
        return (getattr(transformers, _AUTO_CLASSES[spec.head]),)
    multimodal = getattr(transformers, "AutoModelForImageTextToText", None)
    return (transformers.AutoModelForCausalLM, multimodal) if multimodal else (transformers.AutoModelForCausalLM,)


_STATE_SPACE_MODULES = re.compile(r"Mamba|GatedDeltaNet|DeltaAttention|Rwkv|SelectiveScan")


def _refuse_state_spaces(spec: ModelSpec, model: Any) -> None:
    """State-space and linear-attention layers run in kernels of other packages (mamba_ssm, flash-linear-attention) that have no meta form;
    transformers' reference loops in their place would be slow and save other tensors."""
    found = next((type(module).__name__ for module in model.modules() if _STATE_SPACE_MODULES.search(type(module).__name__)), None)
    if found is not None:
        raise UnsupportedError(f"{spec.id}: {found} layers run in CUDA kernels that cannot be dry-run; `advise estimate` prices this model")


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def lora_config(spec: ModelSpec, plan: Plan) -> Any:
    from peft import LoraConfig

    targets: Any = ALL_LINEAR if plan.target_modules == (ALL_LINEAR,) else list(plan.target_modules)
    excluded = {"exclude_modules": [*LABEL_MODULES]} if spec.labels is not None and targets == ALL_LINEAR else {}
    return LoraConfig(
        **excluded,
        r=plan.rank,
        lora_alpha=plan.alpha,
        target_modules=targets,
        use_rslora=plan.use_rslora,
        use_dora=plan.method.is_dora,
        lora_dropout=plan.lora_dropout,
        bias="none",
        task_type=_TASKS.get(spec.head),
    )


def _wrap(base: Any, plan: Plan, peft_config: Any, device: str) -> Any:
    from peft import get_peft_model

    try:
        with torch.device(device):
            model = get_peft_model(base, peft_config, autocast_adapter_dtype=plan.adapter_dtype is DType.FP32)
    except (ValueError, ImportError) as error:
        raise UnsupportedError(f"peft cannot wrap this model: {first_line(error)}") from error
    if plan.adapter_dtype is not DType.FP32:  # fp32 is peft's own doing, and it leaves some of what it trains in 16 bit (LN tuning)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ".modules_to_save." not in name:  # which are copies of the head, in the head's own type
                parameter.data = parameter.data.to(DTYPES[plan.adapter_dtype])
    return model


def _register_adapter(model: Any, plan: Plan, recorder: Recorder) -> None:
    if not plan.method.has_adapter:
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not recorder.knows(tensor):
            recorder.label(tensor, "adapter", name)


def layer_path(model: Any) -> str:
    """Dotted path of the longest list of modules: the repeated layers."""
    best, best_length = "", 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) > best_length and not name.split(".")[-1].isdigit():
            best, best_length = name, len(module)
    return best
