"""A trainer's arguments and a loaded model as the settings that `stacks.hf_arguments` reads. It looks at objects and loads no library.

What the model shows is right where the arguments say otherwise: the types of its weights, the modules that carry an adapter.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from advisor.architectures import spec_from_config
from advisor.errors import InvalidInputError
from advisor.hooks import jobs
from advisor.stacks.keys import not_priced_names
from advisor.stacks.targets import available_targets
from advisor.values import ALL_LINEAR, Head, ModelSpec, Stack

_ARGUMENTS = (
    "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps gradient_checkpointing bf16 fp16 optim "
    "max_length max_seq_length use_liger_kernel loss_type learning_rate deepspeed activation_offloading"
)
_STRATEGIES = ("eval_strategy", "fsdp")
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "axolotl", "llamafactory", "ms-swift")


class Live(NamedTuple):
    """Settings by name, and what only the model shows."""

    settings: dict[str, Any]
    stack: Stack
    n_gpus: int
    partly_frozen: bool = False
    """Some base weights are trained and some are not, without an adapter."""
    head: Head | None = None
    labels: int | None = None
    adapter_params: int | None = None
    """Elements of every adapter that the model holds, whatever their configs say; None without one."""
    devices: int = 1
    """Over how many devices `device_map` spread the model."""
    own_loss: str = ""
    """The class of the user's own that computes the loss."""


def stack_of(args: Any) -> Stack:
    """Whose trainer it is, by the class of its arguments."""
    modules = {base.__module__.partition(".")[0] for base in type(args).__mro__}
    for name, stack in (
        ("axolotl", Stack.AXOLOTL),
        ("llamafactory", Stack.LLAMAFACTORY),
        ("swift", Stack.MS_SWIFT),
        ("trl", Stack.TRL),
    ):
        if name in modules:
            return stack
    return Stack.HF


def settings_of(args: Any) -> dict[str, Any]:
    """The arguments that move bytes, as a file would state them."""
    found = {name: value for name in _ARGUMENTS.split() if (value := getattr(args, name, None)) is not None}
    for name in _STRATEGIES:
        value = getattr(args, name, None)
        if value:
            found[name] = [_word(entry) for entry in value] if isinstance(value, (list, tuple)) else _word(value)
    found["gradient_checkpointing"] = bool(found.get("gradient_checkpointing") or getattr(args, "activation_checkpointing", False))
    found["optim"] = _word(found.get("optim", "adamw_torch_fused"))
    found |= _launched(args, found)
    found |= {name: value for name in not_priced_names(stack_of(args)) if (value := getattr(args, name, None))}
    found |= _engine(args)
    if "max_length" in found and not isinstance(found["max_length"], int):
        del found["max_length"]
    if isinstance(found.get("loss_type"), (list, tuple)):  # trl 1.16 takes several
        found["loss_type"] = ",".join(map(_word, found["loss_type"]))
    return found


def _engine(args: Any) -> dict[str, Any]:
    """How checkpoints are run again, and which FSDP it is."""
    found: dict[str, Any] = {}
    kwargs, config = getattr(args, "gradient_checkpointing_kwargs", None), getattr(args, "fsdp_config", None)
    if isinstance(kwargs, dict) and isinstance(kwargs.get("use_reentrant"), bool):
        found["gradient_checkpointing_kwargs"] = {"use_reentrant": kwargs["use_reentrant"]}
    config = config if isinstance(config, dict) else {}
    stated = {name: config[name] for name in ("version", "reshard_after_forward") if config.get(name) is not None}
    version = os.environ.get("FSDP_VERSION", "")
    if "version" not in stated and version.isdecimal() and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        stated["version"] = int(version)
    if stated:
        found["fsdp_config"] = stated
    if config.get("activation_checkpointing"):
        found["gradient_checkpointing"] = True
    return found


def _launched(args: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """What accelerate's launcher decides where the arguments do not (accelerate 1.15 utils/launch.py: by the environment)."""
    added: dict[str, Any] = {}
    mixed = getattr(args, "mixed_precision", None) or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if mixed in ("bf16", "fp16") and not (found.get("bf16") or found.get("fp16")):
        added[mixed] = True
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and not found.get("fsdp"):
        added["fsdp"] = "full_shard"
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true" and stage.isdecimal() and not found.get("deepspeed"):
        added["deepspeed"] = {"zero_optimization": {"stage": int(stage)}}
    return added


def gpus_of(args: Any) -> int:
    return max(1, int(getattr(args, "world_size", 1) or 1))


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))


def inner_of(model: Any) -> Any:
    """The model inside DDP and its like. A model may name itself as its module, so that each is looked at once."""
    seen: set[int] = set()
    while id(model) not in seen and not hasattr(model, "peft_config") and not hasattr(model, "config") and hasattr(model, "module"):
        seen.add(id(model))
        model = model.module
    return model


def spec_of(model: Any) -> ModelSpec:
    """The shape of a loaded model, by its config."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise InvalidInputError("the model has no config of transformers: its shape cannot be read")
    return spec_of_config(config)


def spec_of_config(config: Any) -> ModelSpec:
    content = json.loads(json.dumps(config.to_dict(), default=str))
    stated = quantization_settings(getattr(config, "quantization_config", None))
    content.pop("quantization_config", None)
    if stated and not _is_bitsandbytes(stated):  # bitsandbytes quantises 16-bit weights on loading: a matter of the plan
        content["quantization_config"] = stated
    name = getattr(config, "_name_or_path", "") or content.get("model_type", "model")
    return spec_from_config(content, id=str(name), source="the loaded model's config", config_json=json.dumps(content))


def live_of(model: Any, args: Any, spec: ModelSpec, trainer: Any = None, optimizer: Any = None) -> Live:
    """Everything about a loaded model that moves bytes. Nothing of it is changed, moved or computed with.

    Raises UnsupportedError where the trainer has another objective than supervised fine-tuning, or the head is not priced.
    """
    jobs.refuse_other_objectives(args, trainer)
    settings, inner = settings_of(args), inner_of(model)
    handed_over = jobs.optimizer_word(optimizer if optimizer is not None else getattr(trainer, "optimizer", None))
    settings["optim"] = handed_over or settings["optim"]
    config = inner.config
    settings["attn_implementation"] = getattr(config, "_attn_implementation", None) or "eager"
    settings["gradient_checkpointing"] = settings["gradient_checkpointing"] or _checkpoints(inner)
    frozen, trained = _dtypes(inner)
    adapters = getattr(inner, "peft_config", None)
    quantization = _quantization(config)
    if quantization is not None:
        settings["quantization_config"] = quantization
    base = frozen if adapters else trained or frozen
    if base:
        settings["dtype"] = base
    found = Live(
        settings,
        stack_of(args),
        gpus_of(args),
        head=jobs.head_of(inner),
        labels=getattr(config, "num_labels", None),
        devices=len(set((getattr(inner, "hf_device_map", None) or {"": 0}).values())),
        own_loss=jobs.own_loss_of(trainer),
    )
    if not adapters:
        every = [parameter.requires_grad for parameter in inner.parameters()]
        return found._replace(partly_frozen=any(every) and not all(every))
    settings["peft"] = _peft(inner, next(iter(adapters.values())), spec)
    settings["adapter_dtype"] = trained or "float32"
    if quantization is not None:
        _lifted(settings, config, frozen)
    return found._replace(adapter_params=_adapter_params(inner))


def _adapter_params(model: Any) -> int:
    """Elements of every adapter, active or not (peft 0.21 names them `lora_…`: tuners/lora/model.py `prefix`), and trained biases."""
    held = {
        id(parameter): parameter.numel()
        for name, parameter in model.named_parameters()
        if "lora_" in name or (parameter.requires_grad and "modules_to_save" not in name)
    }
    return sum(held.values())


def _checkpoints(model: Any) -> bool:
    """transformers 5.23 calls it activation checkpointing, and warns of the older name."""
    stated = getattr(model, "is_activation_checkpointing", None)
    return bool(getattr(model, "is_gradient_checkpointing", False) if stated is None else stated)


def _lifted(settings: dict[str, Any], config: Any, frozen: str | None) -> None:
    """fp32 beside 4-bit weights: `prepare_model_for_kbit_training` ran, and the model was loaded in its 16-bit type."""
    stated = str(getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or "").removeprefix("torch.")
    compute = str(settings["quantization_config"].get("bnb_4bit_compute_dtype", "")).removeprefix("torch.")
    loaded = next((name for name in (compute, stated) if name in ("bfloat16", "float16")), None)
    lifted = frozen == "float32" and loaded is not None
    settings["prepare_model_for_kbit_training"] = lifted
    settings["use_gradient_checkpointing"] = settings["gradient_checkpointing"]
    if lifted:
        settings["dtype"] = loaded


def _dtypes(model: Any) -> tuple[str | None, str | None]:
    """The commonest floating type, by elements, of what is frozen and of what is trained."""
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for name, parameter in model.named_parameters():
        if parameter.dtype.is_floating_point and not (parameter.requires_grad and "modules_to_save" in name):
            counts[parameter.requires_grad][str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    frozen, trained = (counts[key].most_common(1) for key in (False, True))
    return frozen[0][0] if frozen else None, trained[0][0] if trained else None


def _quantization(config: Any) -> dict[str, Any] | None:
    """bitsandbytes' settings by name; None where something else quantised the weights: the model's shape holds that."""
    fields = quantization_settings(getattr(config, "quantization_config", None))
    if not _is_bitsandbytes(fields):
        return None
    names = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage")
    four, eight = bool(fields.get("load_in_4bit")), bool(fields.get("load_in_8bit"))
    return {"load_in_4bit": four, "load_in_8bit": eight, **{name: str(fields[name]) for name in names if name in fields}}


def quantization_settings(stated: Any) -> dict[str, Any]:
    """A quantisation config of transformers, or a mapping, as plain values by name; empty for None."""
    if stated is None:
        return {}
    fields = dict(stated) if isinstance(stated, Mapping) else dict(stated.to_dict())
    return {str(name): _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    value = getattr(value, "value", value)
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)


def _is_bitsandbytes(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("load_in_4bit") or fields.get("load_in_8bit"))


def _peft(model: Any, config: Any, spec: ModelSpec) -> dict[str, Any]:
    """The adapter as it is: ranks and targets of the modules that carry it."""
    fields = {name: getattr(config, name, None) for name in ("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora")}
    wrapped = tuple(dict.fromkeys(_wrapped(model)))
    everything = spec.tables is not None and set(available_targets(spec)) <= set(wrapped)
    targets = (ALL_LINEAR,) if everything or not wrapped else tuple(sorted(wrapped))
    return {
        **fields,
        "peft_type": _word(config.peft_type),
        "target_modules": list(targets),
        "modules_to_save": list(getattr(config, "modules_to_save", None) or ()) or None,
    }


def _wrapped(model: Any) -> Iterator[str]:
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            parts = [part for part in name.split(".") if part != "base_layer"]
            yield str(getattr(module, "parameter_name", None) or parts[-1])


def peft_settings(config: Any) -> dict[str, Any]:
    """A LoraConfig before it is applied, or a mapping of the same names."""
    fields = dict(config) if isinstance(config, Mapping) else dict(config.to_dict())
    targets = fields.get("target_modules")
    fields["target_modules"] = sorted(targets) if isinstance(targets, (set, frozenset)) else targets
    fields["peft_type"] = _word(fields.get("peft_type") or "LORA")
    return fields


def loaded_versions() -> dict[str, str]:
    """Releases that this process has loaded."""
    found = {name: getattr(sys.modules.get(name.replace("ms-swift", "swift")), "__version__", None) for name in _PACKAGES}
    return {name: str(version) for name, version in found.items() if version}
