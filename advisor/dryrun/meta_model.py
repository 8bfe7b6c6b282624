"""The real model, its real 4-bit layers and its real adapter, on the meta device: shapes without bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch

from advisor.architectures import LABEL_MODULES, headed
from advisor.dryrun import auto_classes, compat, flash, fused_head, load, shorten
from advisor.dryrun.inputs import reads_text, refuse_untrainable
from advisor.dryrun.load import DTYPES
from advisor.dryrun.recorder import Recorder
from advisor.errors import UnsupportedError
from advisor.stacks.targets import refuse_unwrappable
from advisor.tape.cut import Cut, Kinds
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


ANY_TOKEN = 0
"""An id for a token of the config that class defaults lack: which one it is changes no byte."""


def _tokens_needed(spec: ModelSpec, config: Any) -> tuple[str, ...]:
    """Fields with ids of tokens that a step reads: a classifier looks for the last token before the padding, a decoder beside an encoder
    begins with a token and shifts the others (transformers 5.23 models/t5/modeling_t5.py, `_shift_right`)."""
    if config.is_encoder_decoder:
        return "decoder_start_token_id", "pad_token_id"
    return ("pad_token_id",) if spec.labels is not None else ()


def config_of(spec: ModelSpec, cut: shorten.ConfigCut | None = None) -> Any:
    """Make the transformers config of `spec`, cut as said where something is said.

    Raises UnsupportedError where the installed transformers has no such model type, or cannot make a config of these values.
    """
    from transformers import CONFIG_MAPPING

    content = json.loads(spec.config_json, object_hook=compat.special_float)
    model_type = content.pop("model_type", spec.model_type)
    content.pop("quantization_config", None)
    content.pop("auto_map", None)
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedError(f"{spec.id}: the installed transformers has no model type {model_type!r}; install a version that has it")
    try:
        config = CONFIG_MAPPING[model_type](**content)
    except Exception as error:  # transformers 5 checks what a config says, and raises classes of huggingface_hub's own
        raise UnsupportedError(f"{spec.id}: transformers makes no {model_type} config of it ({lines_of(error)})") from error
    if spec.labels is not None:
        config.num_labels = spec.labels
    for name in _tokens_needed(spec, config):
        if getattr(config, name, None) is None:
            setattr(config, name, ANY_TOKEN)
    if cut is not None:
        shorten.apply(config, cut)
    return config


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of a model to build."""

    cut: shorten.ConfigCut | None = None
    """Only the layers that it keeps; None for all."""
    device: str = "meta"
    """"cpu" builds the model for real, with random weights."""
    layer_path: str = ""
    """Where the cut layers are in the transformers model; empty for its largest list of layers."""
    whole_model_bytes: int | None = None
    """What loading the whole model would warm the allocator up with, when only some layers are built."""


WHOLE = Shape()


def build(spec: ModelSpec, plan: Plan, recorder: Recorder, shape: Shape = WHOLE, peft_config: Any = None) -> MetaModel:
    """Build, quantise, prepare and wrap as `plan` says, telling the recorder what is loaded."""
    spec = headed(spec, plan)
    if plan.method.has_adapter and peft_config is None and spec.tables is not None:
        refuse_unwrappable(spec, plan.target_modules)
    config = config_of(spec, shape.cut)
    config.use_cache = plan.kv_cache_in_outputs
    # A quantised model's 16-bit weights reach the card one at a time, as transformers loads them.
    arrives = plan.quantization is not None and shape.device not in ("meta", "cpu")
    with compat.uninitialised() if arrives else nullcontext():
        base = base_model(spec, config, plan, "cpu" if arrives else shape.device)
    refuse_untrainable(base, spec.id)
    if spec.head is Head.LM:
        fused_head.install(base, plan.loss)
    load.load(base, plan, recorder, shape.whole_model_bytes, shape.device if arrives else None)
    if plan.kbit_prepare:
        load.prepare_kbit(base, recorder)
    for parameter in base.parameters():
        parameter.requires_grad_(not plan.method.has_adapter and parameter.is_floating_point())
    model = base
    if plan.method.has_adapter:
        model = _wrap(base, plan, peft_config or lora_config(spec, plan, base), shape.device, spec.id)
    if plan.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": plan.use_reentrant})
        if plan.use_reentrant and plan.method.has_adapter:
            base.enable_input_require_grads()  # else no gradient reaches a layer; the Trainer and peft see to it
    model.train()
    _register_adapter(model, plan, recorder)
    return MetaModel(model=model, base=base, layer_path=_path_in(model, base, shape.layer_path), head=spec.head)


Found = TypeVar("Found", Cut, Kinds)
Find = Callable[[Any, str, Callable[[shorten.ConfigCut], Any]], tuple[Found, shorten.ConfigCut] | None]


def whole_model_cut(spec: ModelSpec, plan: Plan) -> tuple[Cut, Shape] | None:
    """Find how the model can be shortened for tracing, on the whole model's modules, which cost next to nothing on meta; None where
    no shorter config builds the same model with fewer layers."""
    return _shortened(spec, plan, shorten.find)


def few_layers(spec: ModelSpec, plan: Plan) -> tuple[Kinds, Shape] | None:
    """Find a model of a few layers among which is each kind that the whole model has; None where no config builds it."""
    return _shortened(spec, plan, shorten.find_few)


_CUT_BY = ("base_dtype", "attention", "quantization")
"""Fields of a plan, beside its head, that decide how a model is shortened: by its modules before they are quantised or wrapped, and by what
loading all of them takes. Kinds of plan that agree in these share what was found."""


def _shortened(spec: ModelSpec, plan: Plan, find: Find[Found]) -> tuple[Found, Shape] | None:
    return _shortened_once(headed(spec, plan), Plan().model_copy(update={name: getattr(plan, name) for name in _CUT_BY}), find)


@lru_cache(maxsize=32)
def _shortened_once(spec: ModelSpec, plan: Plan, find: Find[Found]) -> tuple[Found, Shape] | None:
    whole = base_model(spec, config_of(spec), plan)
    path = layer_path(whole)
    found = find(whole, path, lambda cut: base_model(spec, config_of(spec, cut), plan))
    if found is None:
        return None
    cut, config_cut = found
    warm_up = load.warm_up_bytes(whole, plan) if plan.quantization is not None else None
    return cut, Shape(config_cut, layer_path=path, whole_model_bytes=warm_up)


def base_model(spec: ModelSpec, config: Any, plan: Plan, device: str = "meta") -> Any:
    """Build the bare transformers model, its attention as the plan wants it: SDPA where the architecture has it, as the library defaults.

    Raises UnsupportedError, with the library's own words, where no Auto class builds it.
    """
    problems: list[Exception] = []
    for auto_class in auto_classes.of(spec, config):
        for name in ("eager",) if plan.attention is Attention.EAGER else ("sdpa", "eager"):
            try:
                with torch.device(device):
                    model = compat.from_config(auto_class, config, DTYPES[plan.base_dtype], name)
            except ValueError as error:  # no such class for this config, or no SDPA in this architecture
                problems.append(error)
            except ImportError as error:
                raise UnsupportedError(f"{spec.id}: {compat.missing_libraries(error)}") from error
            else:
                model.to(device)  # of what old constructors (`torch.FloatTensor`, XLNet) make wherever they are asked to
                model.tie_weights()
                if plan.attention is Attention.FLASH:
                    flash.install(model)
                return model
    problem = next((each for each in problems if "Unrecognized configuration class" not in str(each)), problems[0])
    raise UnsupportedError(f"{spec.id}: {compat.known_reason(problem, spec.model_type) or first_line(problem)}") from problem


_TASKS = {Head.CLASSIFICATION: "SEQ_CLS", Head.TOKENS: "TOKEN_CLS"}


def lines_of(error: BaseException) -> str:
    """The first two lines of what a library says, in one: the first of a validation error names the field alone."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:240] or type(error).__name__


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def lora_config(spec: ModelSpec, plan: Plan, base: Any) -> Any:
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
        task_type=_task(spec.head, base),
    )


def _task(head: Head, base: Any) -> str | None:
    """peft's word for what is trained. Its models of a task name text inputs to the model (peft 0.21 peft_model.py,
    `PeftModelForCausalLM.forward`), so that one that reads sound or images first is wrapped without one."""
    if head is not Head.LM:
        return _TASKS.get(head)
    if not reads_text(base) or base.main_input_name != "input_ids":
        return None
    return "SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM"


def _wrap(base: Any, plan: Plan, peft_config: Any, device: str, name: str) -> Any:
    from peft import get_peft_model

    try:
        with torch.device(device):
            model = get_peft_model(base, peft_config, autocast_adapter_dtype=plan.adapter_dtype is DType.FP32)
    except (ValueError, ImportError) as error:
        raise UnsupportedError(f"{name}: peft cannot wrap this model ({compat.known_reason(error) or first_line(error)})") from error
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


def _path_in(model: Any, base: Any, path: str) -> str:
    """The dotted path in `model`, which may wrap `base`, of the layers at `path` in `base`; empty where it has no list of layers."""
    path = path or layer_path(base)
    if not path:
        return ""
    layers = base.get_submodule(path)
    return next(name for name, module in model.named_modules() if module is layers)


def layer_path(model: Any) -> str:
    """Name the list of modules that has most of the parameters: the repeated layers; empty where there is no list."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList) and len(module) > 1}
    sizes = {name: sum(parameter.numel() for parameter in module.parameters()) for name, module in lists.items()}
    return max(sizes, key=lambda name: sizes[name], default="")
