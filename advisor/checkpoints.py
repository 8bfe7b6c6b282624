"""What a checkpoint's `quantization_config` means for training: the storage that adapters train on, 16 bit again, or a refusal.

Sources: transformers 5.23 utils/quantization_config.py, quantizers/*.py (`is_trainable`, `validate_environment`); peft 0.21
tuners/lora/{awq,gptq}.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.names import without_format
from advisor.values import CheckpointFormat, Method, ModelSpec, Plan, Quantization

EXPANDED = {
    "fp8": "FineGrainedFP8Config",
    "mxfp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
    "compressed-tensors": "CompressedTensorsConfig",
}
"""Methods whose loader expands the weights to 16 bit on request (`dequantize=True`), and the class that the request is made with."""

PACKED = {Quantization.AWQ: "AwqConfig", Quantization.GPTQ: "GPTQConfig"}
"""Storages of GPT-QModel's layers, and transformers' class for them."""

CLASSES = {
    "AqlmConfig": "aqlm",
    "AwqConfig": "awq",
    "BitsAndBytesConfig": "bitsandbytes",
    "CompressedTensorsConfig": "compressed-tensors",
    "EetqConfig": "eetq",
    "FineGrainedFP8Config": "fp8",
    "FbgemmFp8Config": "fbgemm_fp8",
    "GPTQConfig": "gptq",
    "HqqConfig": "hqq",
    "Mxfp4Config": "mxfp4",
    "QuantoConfig": "quanto",
    "TorchAoConfig": "torchao",
}
"""transformers' classes of quantisation settings, and the `quant_method` that each stands for."""

_DEFAULT_GROUP = 128
"""`group_size` of GPTQConfig and AwqConfig where it is left out."""
_AWQ_LAYOUTS = ("gemm",)
_NO_TRAINING = "transformers 5.23 does not train it (is_trainable)"
_NOT_PRICED = "what its layers hold in training is not priced"
_REFUSED = {
    **dict.fromkeys(
        ("auto-round", "bitnet", "fbgemm_fp8", "fouroversix", "fp_quant", "gemma", "gguf", "higgs", "metal", "nvfp4", "quark"), _NO_TRAINING
    ),
    **dict.fromkeys(("spqr", "vptq"), _NO_TRAINING),
    **dict.fromkeys(("aqlm", "eetq", "hqq", "quanto", "sinq", "torchao"), _NOT_PRICED),
}


def format_of(settings: Mapping[str, Any], where: str) -> CheckpointFormat | None:
    """The storage that a `quantization_config` describes; None where it describes weights that are expanded already.

    `where` names the file in errors. Raises InvalidInputError for settings that no quantizer of transformers would take.
    """
    method = settings.get("quant_method") or _bitsandbytes(settings)
    method = str(getattr(method, "value", method) or "").lower().removesuffix("_4bit").removesuffix("_8bit")
    if not method:
        raise InvalidInputError(f"{where}: quantization_config names no quant_method, so transformers cannot load it")
    if settings.get("dequantize"):
        return None
    skipped = _names(settings, where, "modules_to_not_convert", "llm_int8_skip_modules", "ignore", "ignored_layers")
    if method == "bitsandbytes":
        return _of_bitsandbytes(settings, where, skipped)
    if method in ("awq", "gptq"):
        return _packed(method, settings, where, skipped)
    return CheckpointFormat(method=method, bits=_bits(settings, where), skipped=skipped)


def _bitsandbytes(settings: Mapping[str, Any]) -> str:
    return "bitsandbytes" if _on(settings, "load_in_4bit") or _on(settings, "load_in_8bit") else ""


def _on(settings: Mapping[str, Any], name: str) -> bool:
    """A live BitsAndBytesConfig writes its two switches with an underscore, too."""
    return bool(settings.get(name) or settings.get(f"_{name}"))


def _of_bitsandbytes(settings: Mapping[str, Any], where: str, skipped: tuple[str, ...]) -> CheckpointFormat:
    if not _on(settings, "load_in_4bit"):
        return CheckpointFormat(method="bitsandbytes", bits=8, trained_as=Quantization.INT8, skipped=skipped)
    kind = str(settings.get("bnb_4bit_quant_type") or "fp4")
    if kind not in (Quantization.NF4.value, Quantization.FP4.value):
        raise InvalidInputError(f"{where}: bnb_4bit_quant_type is {kind[:40]!r}; it must be nf4 or fp4")
    return CheckpointFormat(
        method="bitsandbytes",
        bits=4,
        trained_as=Quantization(kind),
        double_quant=bool(settings.get("bnb_4bit_use_double_quant")),
        stored_as_bytes=str(settings.get("bnb_4bit_quant_storage") or "uint8").removeprefix("torch.") in ("uint8", "int8"),
        skipped=skipped,
    )


def _packed(method: str, settings: Mapping[str, Any], where: str, skipped: tuple[str, ...]) -> CheckpointFormat:
    """AWQ and GPTQ: widths and groups as `AwqConfig` and `GPTQConfig` check them."""
    bits = _bits(settings, where) or 4
    if bits not in ((4,) if method == "awq" else (2, 3, 4, 8)):
        raise InvalidInputError(f"{where}: bits is {bits}; {method.upper()} stores 4 bit{'' if method == 'awq' else ', or 2, 3 or 8'}")
    group = settings.get("group_size", settings.get("q_group_size", _DEFAULT_GROUP))
    if isinstance(group, bool) or not isinstance(group, int) or not (group == -1 or 0 < group <= 1 << 20):
        raise InvalidInputError(f"{where}: group_size must be a positive whole number, or -1 for whole columns")
    layout = str(settings.get("version") or settings.get("format") or "gemm").lower()
    known = method == "gptq" or layout in _AWQ_LAYOUTS
    return CheckpointFormat(
        method=method if known else f"awq ({layout[:20]})",
        bits=bits,
        group_size_weights=None if group == -1 else group,
        trained_as=Quantization(method) if known else None,
        skipped=skipped,
    )


def _bits(settings: Mapping[str, Any], where: str) -> int | None:
    bits = next((settings[name] for name in ("bits", "w_bit", "nbits") if settings.get(name) is not None), None)
    if bits is None:
        return None
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 < bits <= 32:
        raise InvalidInputError(f"{where}: bits must be a whole number from 1 to 32")
    return bits


def _names(settings: Mapping[str, Any], where: str, *keys: str) -> tuple[str, ...]:
    for key in keys:
        value = settings.get(key)
        if value is None:
            continue
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise InvalidInputError(f"{where}: {key} must be a list of module names")
        return tuple(name.removeprefix("re:") for name in value)
    return ()


def usual_format(method: str, bits: int, why: str) -> CheckpointFormat:
    """The storage that a checkpoint's name stands for, in its usual layout; `why` says that only the name was known.

    Groups of 128 are the defaults of AutoAWQ 0.2.9 and GPT-QModel 7.7, nf4 with double quantisation that of Unsloth's uploads.
    """
    if method.startswith("bnb"):
        eight = {"load_in_8bit": True}
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        settings: dict[str, Any] = {"quant_method": "bitsandbytes", **(eight if bits == 8 else four)}
    else:
        settings = {"quant_method": method, "bits": bits} if method in ("awq", "gptq") else {"quant_method": method}
    found = format_of(settings, why)
    assert found is not None  # nothing here is expanded already
    return found.model_copy(update={"assumed": why})


# ---------------------------------------------------------------------------------------------- what trains on it


def trained_as(model: ModelSpec) -> Quantization | None:
    """The quantised storage that training runs on, as the checkpoint fixes it; None where the weights are in 16 bit by then."""
    return model.checkpoint_format.trained_as if model.checkpoint_format else None


def packed(quantization: Quantization | None) -> bool:
    """Whether the weights rest in GPT-QModel's packed layers (AWQ, GPTQ)."""
    return quantization in PACKED


def unshardable(model: ModelSpec, quantization: Quantization | None) -> str:
    """Why FSDP and ZeRO-3 cannot split the stored weights over cards, in words; empty where they can."""
    if packed(quantization) and quantization is not None:
        return f"the packed integers of {quantization.value.upper()} layers are buffers, which FSDP and ZeRO-3 do not shard"
    if quantization is not None and model.checkpoint_format is not None and model.checkpoint_format.stored_as_bytes:
        return "the checkpoint holds 4-bit weights as uint8, which is not sharded together with 16-bit ones (bnb_4bit_quant_storage)"
    return ""


def expanded_by(model: ModelSpec) -> str:
    """transformers' class whose `dequantize=True` loads the checkpoint in 16 bit; empty where none is needed."""
    return EXPANDED.get(model.checkpoint_format.method, "") if model.checkpoint_format else ""


_EXPERT_COUNTS = frozenset({"num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"})
"""Fields of a config.json that count a layer's experts (transformers 5.23 models/*/configuration_*.py)."""


def stacks_experts(model: ModelSpec) -> bool:
    """Whether transformers 5 keeps a layer's experts in one parameter; of a model without tables, whether its config counts experts."""
    if model.tables is None:
        return _counts_experts(json.loads(model.config_json))
    linears = (linear for block in model.tables.blocks for linear in block.linears)
    return any(not linear.is_module and linear.part == "mlp" and linear.copies > 1 for linear in linears)


EXPERTS_IN_16_BIT = (
    "transformers 5 keeps a layer's experts in one parameter, which bitsandbytes leaves in 16 bit; "
    "axolotl's quantize_moe_experts and Unsloth quantise them, and take less"
)
"""bitsandbytes issue 1849; axolotl 0.19 monkeypatch/moe_quant.py."""


def expert_notes(model: ModelSpec, plan: Plan) -> tuple[str, ...]:
    """What a price of a quantised Mixture-of-Experts rests on."""
    left = plan.quantization is not None and not packed(plan.quantization) and not plan.quantized_experts and stacks_experts(model)
    return (EXPERTS_IN_16_BIT,) if left else ()


def _counts_experts(config: Mapping[str, object]) -> bool:
    counted = any(isinstance(value, int) and value > 1 for key, value in config.items() if key in _EXPERT_COUNTS)
    return counted or any(_counts_experts(part) for part in config.values() if isinstance(part, dict))


def check_trainable(model: ModelSpec) -> None:
    """Raises UnsupportedError, with the reason in one line, for a storage that nothing trains on, or that is not priced."""
    stored = model.checkpoint_format
    if stored is None or stored.method in EXPANDED:
        return
    if stored.trained_as is None:
        reason = _REFUSED.get(stored.method, _NOT_PRICED)
        raise UnsupportedError(f"{model.id} is stored in {stored.label}: {reason}; train from {_original(model)}")
    if stacks_experts(model):
        raise UnsupportedError(
            f"{model.id} is stored in {stored.label}, expert by expert, while transformers 5 builds the experts as stacked parameters: "
            f"what such a checkpoint needs depends on the release and is not priced; train from {_original(model)}"
        )


def refusal(model: ModelSpec, method: Method) -> str:
    """Why `method` cannot be trained from this checkpoint, in words; empty where it can."""
    stored = model.checkpoint_format
    if stored is None or stored.trained_as is None:
        return ""
    if not method.is_quantized:
        return f"the checkpoint is stored in {stored.label}: 16-bit training needs {_original(model)}"
    if method.is_dora and packed(stored.trained_as):
        return f"peft 0.21 has no DoRA for {stored.method.upper()} layers (tuners/lora/{stored.method}.py)"
    return ""


def check_method(model: ModelSpec, method: Method) -> None:
    """Raises UnsupportedError, one line, for a method that the checkpoint is not stored for."""
    why = refusal(model, method)
    if why:
        raise UnsupportedError(f"--method {method.value}: {why}; --method qlora trains on it as it is")


def check_plan(model: ModelSpec, method: Method, quantization: Quantization | None) -> None:
    """Raises UnsupportedError, one line, where a plan is not what the checkpoint can be trained as."""
    check_trainable(model)
    check_method(model, method)
    stored = model.checkpoint_format
    fixed = trained_as(model)
    if fixed is not None and stored is not None and quantization is not fixed:
        wanted = quantization.value if quantization else "16 bit"
        raise UnsupportedError(f"--quantization {wanted}: the checkpoint is stored in {stored.label}, and transformers keeps it so")
    if fixed is None and packed(quantization) and quantization is not None:
        raise UnsupportedError(
            f"--quantization {quantization.value}: {model.id} is stored in {stored.label if stored else '16 bit'}; "
            f"name a checkpoint whose config.json says {quantization.value}"
        )


def in_16_bit(model: ModelSpec) -> ModelSpec:
    """The model as its original 16-bit checkpoint holds it."""
    return model.model_copy(update={"checkpoint_format": None}) if model.checkpoint_format else model


def _original(model: ModelSpec) -> str:
    """The 16-bit weights in words, with their name where the checkpoint's own gives it away."""
    organisation, _, name = model.id.rpartition("/")
    bare = without_format(name)
    said = f" ({bare} by its name)" if organisation and bare != name else ""
    return f"the original 16-bit weights{said}"
