"""Everything that differs between library versions: transformers 4.48, peft 0.13, bitsandbytes 0.46 up to the newest."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from advisor.values import Quantization


def from_config(auto_class: Any, config: Any, dtype: Any, attention: str) -> Any:
    """`from_config` renamed `torch_dtype` to `dtype` in transformers 4.56."""
    new = _release("transformers") >= (4, 56)
    return auto_class.from_config(config, attn_implementation=attention, **{"dtype" if new else "torch_dtype": dtype})


@cache
def _release(library: str) -> tuple[int, int]:
    major, minor = importlib.metadata.version(library).split(".")[:2]
    return int(major), int(minor)


def keys_to_keep(model: Any) -> list[str]:
    """Modules that transformers leaves unquantised: the output head and what is tied to it."""
    try:
        from transformers.quantizers.base import get_keys_to_not_convert
    except ImportError:
        from transformers.integrations.bitsandbytes import get_keys_to_not_convert  # type: ignore[no-redef]
    return list(get_keys_to_not_convert(model))


def special_float(content: dict[str, Any]) -> Any:
    """Read `{"__float__": "Infinity"}`, as transformers writes what JSON lacks (5.23 configuration_utils.py, `_decode_special_floats`)."""
    return float(content["__float__"]) if [*content] == ["__float__"] else content


_REASONS = {
    "'exclude_modules'": "peft before 0.14 cannot leave a classifier's own layer out of all-linear",
    "is incompatible with Mamba-based models": "peft adapts no out_proj and no conv1d of Mamba layers: name --target-modules without them",
    "does not support activation checkpointing": "transformers has no checkpointing for this type: train with --no-checkpointing",
    "`get_input_embeddings` not auto": "peft asks for its input embedding, and the type names none: full fine-tuning alone",
    "a leaf Variable that requires grad is being used in an in-place operation": "its code adds to the embeddings in place, which "
    "checkpointing does not allow when they are not trained; so it fails on a card, too: train with --no-checkpointing",
    "'tuple' object has no attribute 'dtype'": "peft adapts a linear layer that returns several tensors (a router) and fails in its first "
    "step, on a card too: name --target-modules without it",
    "no attribute 'prepare_inputs_for_generation'": "peft wraps it as a language model that generates token by token, which it is not",
    "to match target batch_size": "it scores every position that its config names: say --seq-len with its max_position_embeddings",
    "does not require grad and does not have a grad_fn": "no gradient reaches what is trained, on a card neither: a tower without images "
    "in its batches (--images), or reversible layers over a frozen embedding, which take full fine-tuning alone",
}
"""What a library's error says → why the step cannot be run, in words that say what to do (errors of transformers 5.23, peft 0.21 and
torch 2.13)."""
_VALUES = {
    "Cannot copy out of meta tensor": "it asks for values that its weights decide, which a dry run does not have: try a step on a card",
    "nonzero": "it chooses rows by values that its weights decide, which a dry run does not have: try a step on a card",
}
"""What torch 2.13 says where values are asked for that advisor/dryrun/known.py does not know."""
_OF_TYPES = {
    "blt": "it cuts the text where a small model of its own is surprised, so that the number of pieces depends on text and "
    "weights: try a step on a card",
    "glm5_next": "its attention keeps pools of tokens by a mark that it packs among learned numbers, which a dry run cannot follow: "
    "try a step on a card",
    "csm": "it reads rows of text beside codes of sound, which no batch of a dry run holds: try a step on a card",
    "voxtral_realtime": "it hears a piece of its sound with every token, which no batch of a dry run holds: try a step on a card",
    "qwen3_omni_moe": "it is several models without a forward pass of their own: train the part that thinks (Qwen3OmniMoeThinker)",
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"),
        "it drafts for Gemma 4 out of that model's keys and values, and has no loss of its own: train Gemma 4",
    ),
}
"""Model type → why transformers 5.23 or a dry run does not run its step, where the library's error says something else."""


def known_reason(error: Exception, model_type: str = "") -> str:
    """Say why a step cannot be run where the library's own words do not; empty for other errors."""
    return _said(_REASONS, error) or _OF_TYPES.get(model_type, "") or _said(_VALUES, error)


def _said(reasons: Mapping[str, str], error: Exception) -> str:
    return next((reason for words, reason in reasons.items() if words in str(error)), "")


def missing_libraries(error: ImportError) -> str:
    """Name the libraries that a model's code asks for, and what installs them (transformers 5.23 utils/import_utils.py, the messages of
    `requires_backends`); the error's first line where it names none."""
    names = dict.fromkeys(re.findall(r"requires the (\S+) library", str(error)))
    if not names:
        return f"it cannot be imported ({str(error).strip().splitlines()[0][:200]})"
    install = dict.fromkeys(re.findall(r"pip install ([\w\-]+)", str(error)))
    how = f": pip install {' '.join(install)}" if len(install) >= len(names) else " installed; their own pages say how"
    return f"it needs {' and '.join(names)}{how}"


def takes_loss_kwargs(model: Any) -> bool:
    """Whether the Trainer hands the loss its number of items (trainer.py, `model_accepts_loss_kwargs`). Older models take arbitrary
    arguments only to complain of them."""
    parameters = inspect.signature(model.forward).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD and parameter.name != "deprecated_arguments" for parameter in parameters)


def accepts(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters


def set_attention(config: Any, name: str) -> None:
    """Bypass the checks (which ask for the flash-attn package) and name the implementation."""
    field = "_attn_implementation_internal" if "_attn_implementation_internal" in config.__dict__ else "_attn_implementation"
    object.__setattr__(config, field, name)


def config_dtype(config: Any) -> Any:
    """`torch_dtype` became `dtype` in transformers 4.56."""
    return getattr(config, "dtype", None) or config.torch_dtype


def uninitialised() -> Any:
    """A context in which transformers builds a model without drawing its weights (a module of its own since 5.0)."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:
        from transformers.modeling_utils import no_init_weights
    return no_init_weights()


def warms_up_allocator() -> bool:
    """`caching_allocator_warmup` came with transformers 4.50."""
    return _release("transformers") >= (4, 50)


def quantized_item_bytes(quantization: Quantization | None) -> float:
    """Bytes per element that transformers expects of a quantised weight (quantizer_bnb_4bit.py and _8bit.py, quantized_element_size)."""
    return 1.0 if quantization is Quantization.INT8 else 0.5


def is_linear(module: Any) -> bool:
    """Modules that bitsandbytes replaces (transformers integrations/bitsandbytes.py, replace_with_bnb_linear)."""
    return type(module).__name__ in ("Linear", "Conv1D")


def efficient_attention_knows_groups() -> bool:
    """The mem-efficient kernel takes grouped queries since pytorch pull request 191085 (after 2.13)."""
    return _release("torch") >= (2, 14)
