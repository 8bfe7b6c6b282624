"""Loading, in the order in which transformers fills a card: the peak of a quantised load, and the segments that later steps inherit."""

from __future__ import annotations

import re
from typing import Any

import torch

from advisor.dryrun import compat
from advisor.dryrun.recorder import Recorder
from advisor.tape.stream import EMPTY_CACHE, LOADED, QUANTISED, WARM_UP
from advisor.values import DType, Plan, Quantization

DTYPES = {DType.FP32: torch.float32, DType.BF16: torch.bfloat16, DType.FP16: torch.float16}


def load(model: Any, plan: Plan, recorder: Recorder, whole_model_bytes: int | None = None, device: str | None = None) -> None:
    """Tell the recorder of every weight, quantising on the way where the plan says so.

    Unquantised models are built on the CPU and moved module by module (`.to(device)`, as the Trainer does). Quantised ones are loaded
    straight onto the card: one block for the whole model (`whole_model_bytes` when `model` is a cut) warms the allocator up, then the
    weights come by name (transformers 5.23 modeling_utils.py `caching_allocator_warmup`, core_model_loading.py `dot_natural_key`).
    `device` is the real one that they come onto, where `model` lies elsewhere.
    """
    if plan.quantization is None:
        _register(model, recorder)
        return
    settings = quantization_config(plan)
    if compat.warms_up_allocator():
        block_bytes = whole_model_bytes or warm_up_bytes(model, plan)
        recorder.release(recorder.temporary(block_bytes, WARM_UP))
        if device is not None:
            torch.empty(block_bytes, dtype=torch.uint8, device=device)
    weights = {name: parameter.data for name, parameter in model.named_parameters()}
    _replace_linears(model, settings)
    modules = dict(model.named_modules())
    for name in sorted(weights, key=_natural_key):
        module, leaf = modules[name.rpartition(".")[0]], name.rpartition(".")[2]
        weight = weights.pop(name) if device is None else _random_like(weights.pop(name), device)
        quantised = leaf == "weight" and _is_quantized_linear(module)
        recorder.label(weight, "weights", name, QUANTISED if quantised else LOADED)
        if quantised:
            with recorder:
                _fill(module, weight, plan, settings)
        elif _is_quantized_linear(module):
            module.bias = torch.nn.Parameter(weight, requires_grad=False)
        elif device is not None:
            getattr(module, leaf).data = weight  # the parameter itself stays, and with it every tie
        del weight
    if device is not None:
        _bring_buffers(model, device)
    _register(model, recorder)
    eight_bit = plan.quantization is Quantization.INT8
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = not eight_bit, eight_bit
    model.is_quantized, model.quantization_method = True, "bitsandbytes"
    model.config._is_quantized = True
    model.config.quantization_config = settings


WEIGHT_DEVIATION = 0.02
"""Of random weights: what most configs call `initializer_range`. Any would do."""


def _random_like(weight: Any, device: str) -> Any:
    """A random weight of that shape and type on the device."""
    return torch.empty(weight.shape, dtype=weight.dtype, device=device).normal_(std=WEIGHT_DEVIATION)


def _bring_buffers(model: Any, device: str) -> None:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def quantization_config(plan: Plan) -> Any:
    from transformers import BitsAndBytesConfig

    eight_bit = plan.quantization is Quantization.INT8
    compute_dtype = DTYPES[plan.autocast_dtype if plan.base_dtype is DType.FP32 else plan.base_dtype]
    return BitsAndBytesConfig(
        load_in_8bit=eight_bit,
        load_in_4bit=not eight_bit,
        bnb_4bit_quant_type="nf4" if eight_bit or plan.quantization is None else plan.quantization.value,
        bnb_4bit_use_double_quant=plan.double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
        # shards want one floating type throughout (accelerate 1.15 utils/fsdp_utils.py, "Default uint8 quant_storage cannot survive")
        bnb_4bit_quant_storage=DTYPES[plan.base_dtype] if plan.sharding.shards_weights else None,
    )


def _replace_linears(model: Any, settings: Any) -> None:
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    replace_with_bnb_linear(model, modules_to_not_convert=kept_modules(model), quantization_config=settings)


def kept_modules(model: Any) -> list[str]:
    """Modules that stay unquantised: what transformers leaves, what it keeps in fp32 at need (`wo` of T5; 5.23 quantizers/base.py
    `get_modules_to_not_convert`), and classifiers. It leaves the last parameter's module, but by a name that ends in ".bias" where there is
    one, so that it would quantise a classifier with a bias, which peft then cannot train: the plan is that of `llm_int8_skip_modules` with
    peft's names of such heads (peft 0.21 utils/constants.py `SEQ_CLS_HEAD_NAMES`)."""
    from peft.utils.constants import SEQ_CLS_HEAD_NAMES

    return [*compat.keys_to_keep(model), *(model._keep_in_fp32_modules or ()), *SEQ_CLS_HEAD_NAMES]


def is_kept(name: str, kept: list[str]) -> bool:
    """Whether a module of that name is one of those (5.23 quantizers/quantizers_utils.py `should_convert_module`)."""
    return any(name.endswith(key) or name.startswith(f"{key}.") for key in kept)


def _is_quantized_linear(module: Any) -> bool:
    import bitsandbytes as bnb

    return isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt))


def warm_up_bytes(model: Any, plan: Plan) -> int:
    """Size that transformers expects of the loaded model; `model` is not quantised yet (modeling_utils.py, get_total_byte_count)."""
    kept = kept_modules(model)
    modules = dict(model.named_modules())
    total_bytes = 0.0
    for name, weight in model.named_parameters():
        module_name, _, leaf = name.rpartition(".")
        quantized = leaf == "weight" and compat.is_linear(modules[module_name]) and not is_kept(module_name, kept)
        total_bytes += weight.numel() * (compat.quantized_item_bytes(plan.quantization) if quantized else weight.element_size())
    return int(total_bytes)


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"\.", name)]


def _fill(module: Any, weight: Any, plan: Plan, settings: Any) -> None:
    """Quantise one weight as its 16-bit copy sits on the card."""
    import bitsandbytes as bnb

    if getattr(getattr(module, "source_cls", None), "__name__", "") == "Conv1D":  # GPT-2 holds its weights the other way round
        weight = weight.t()
    if isinstance(module, bnb.nn.Linear8bitLt):
        module.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        module.weight = bnb.nn.Params4bit(
            weight,
            requires_grad=False,
            compress_statistics=plan.double_quant,
            quant_type=settings.bnb_4bit_quant_type,
            quant_storage=settings.bnb_4bit_quant_storage,
            module=module,
        )
    module.weight._quantize(weight.device)


def _register(model: Any, recorder: Recorder) -> None:
    """Every parameter, quantisation state and buffer is a weight."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        recorder.label(tensor, "weights", name)
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            _register_quant_state(state, recorder, name)
        for extra in ("CB", "SCB"):
            held = getattr(tensor, extra, None)
            if isinstance(held, torch.Tensor):
                recorder.label(held, "weights", name)


def _register_quant_state(state: Any, recorder: Recorder, name: str) -> None:
    for held in (state.absmax, state.code, state.offset):
        if isinstance(held, torch.Tensor):
            recorder.label(held, "weights", name)
    if state.state2 is not None:
        _register_quant_state(state.state2, recorder, name)


def prepare_kbit(model: Any, recorder: Recorder) -> None:
    """peft's `prepare_model_for_kbit_training`: every unquantised 16-bit parameter becomes fp32, one after the other."""
    from peft import prepare_model_for_kbit_training

    with recorder:
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if compat.accepts(prepare_model_for_kbit_training, "auto_clear_cache"):
        recorder.mark(EMPTY_CACHE)
    for name, parameter in model.named_parameters():
        recorder.label(parameter, "weights", name)
