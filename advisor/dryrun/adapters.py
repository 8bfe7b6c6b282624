"""Any peft adapter for a dry run, from an `adapter_config.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.bounded import is_folder, named, place
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import read_json

FILE_NAME = "adapter_config.json"


def read_peft_config(path: str | Path) -> Any:
    """The peft config of an `adapter_config.json`, or of the directory that holds it."""
    file = place(path)
    file = file / FILE_NAME if is_folder(file) else file
    try:
        content = read_json(file)
    except InvalidInputError as error:
        raise InvalidInputError(f"peft config: {error}") from None
    if not isinstance(content, dict) or "peft_type" not in content:
        raise InvalidInputError(f"peft config: {named(file)} has no peft_type")
    return peft_config_of(content, named(file))


def peft_config_of(content: Mapping[str, Any], where: str) -> Any:
    """The peft config that an `adapter_config.json` with that content stands for; `where` names it in the error."""
    import peft

    if content.get("megatron_config"):
        raise UnsupportedError(f"peft config: {where} is of a model in Megatron's parallel layers, which are not dry-run")
    try:
        return peft.PeftConfig.from_peft_type(**{**content, "inference_mode": False})
    except (KeyError, TypeError, ValueError, ImportError) as error:
        raise InvalidInputError(f"peft config: peft {peft.__version__} does not take {where} ({error})") from error


_OF_LAYERS = ("layers_to_transform", "layer_replication", "adapter_layers", "num_layers")
"""Fields that count or list layers (peft 0.21, tuners/*/config.py)."""
_OF_MODULES = ("target_modules", "exclude_modules", "target_parameters", "modules_to_save", "rank_pattern", "alpha_pattern")
_A_LAYER = re.compile(r"(?<![A-Za-z_])\d|\\d")
"""A number that stands by itself in a module's path ("layers.3.q_proj", "[0-7]"), or a pattern of one; not that of "fc1"."""


def names_layers(peft_config: Any) -> bool:
    """Whether the adapter differs from layer to layer, so that a shortened model would carry another one."""
    if peft_config is None:
        return False
    if any(getattr(peft_config, name, None) for name in _OF_LAYERS):
        return True
    named = (getattr(peft_config, name, None) or () for name in _OF_MODULES)
    return any(_A_LAYER.search(text) for texts in named for text in ([texts] if isinstance(texts, str) else texts))
