"""Reads adapter_config.json as peft 0.21 writes it: what decides the rank and the scale of every module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import read_object

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")

ZERO_B_INITS = frozenset({"True", "gaussian", "eva"})
"""Initialisations that begin with B = 0, so that B = 0 at the end means untrained (peft 0.21, tuners/lora/layer.py)."""
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Initialisations that take the first product out of the base weights, so that the file holds it too (same place)."""
_OTHER_SHAPES = {"use_qalora": "QALoRA", "use_bdlora": "BD-LoRA"}
"""Variants whose factors are no plain B and A (peft 0.21, tuners/lora/variants.py)."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    path: Path
    rank: int
    alpha: float
    use_rslora: bool
    use_dora: bool
    fan_in_fan_out: bool
    init: str
    base_model: str | None
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_parameters: tuple[str, ...]

    @property
    def begins_with_zero_b(self) -> bool:
        return self.init in ZERO_B_INITS

    @property
    def changes_base(self) -> bool:
        return self.init.startswith(BASE_CHANGING_INITS)

    def rank_of(self, module: str) -> int:
        return _matching(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / √r with rsLoRA (peft 0.21, tuners/lora/layer.py update_layer)."""
        alpha = float(_matching(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _matching(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The first entry whose key matches the end of the module's name (peft 0.21, utils/other.py get_pattern_key)."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def adapter_folder(path: str | Path) -> Path:
    """The folder that holds an adapter in safetensors; says what is there instead when it is none."""
    folder = Path(path).expanduser()
    if folder.is_file():
        _refuse_pickle(folder.parent, folder)
        folder = folder.parent
    if not folder.is_dir():
        raise InvalidInputError(f"{path}: no such folder; give the one that holds {CONFIG} and {WEIGHTS}")
    if not (folder / CONFIG).is_file():
        raise InvalidInputError(_no_adapter(folder))
    if not (folder / WEIGHTS).is_file():
        for name in PICKLES:
            if (folder / name).is_file():
                _refuse_pickle(folder, folder / name)
        raise InvalidInputError(f"{folder} holds {CONFIG} and no {WEIGHTS}: the adapter's weights are missing")
    return folder


def _refuse_pickle(folder: Path, file: Path) -> None:
    if file.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        better = f"; {folder} holds {WEIGHTS} too: give the folder" if (folder / WEIGHTS).is_file() else ""
        raise UnsupportedError(
            f"{file} is a pickle, which can run any code when it is opened, so it is not read: save the adapter again with "
            f"save_pretrained(…, safe_serialization=True){better}"
        )


def _no_adapter(folder: Path) -> str:
    checkpoints = sorted(child.name for child in folder.iterdir() if (child / CONFIG).is_file())
    if checkpoints:
        return f"{folder} holds no {CONFIG}, but {', '.join(checkpoints[:3])} {'do' if len(checkpoints) > 1 else 'does'}: give that folder"
    if (folder / "config.json").is_file():
        return f"{folder} holds a whole model, not an adapter: there is no {CONFIG}"
    return f"{folder} holds no {CONFIG}: give the folder that peft's save_pretrained wrote"


def read_adapter_config(folder: Path) -> AdapterConfig:
    """`folder`'s adapter_config.json. Refuses what is no LoRA or DoRA."""
    path = folder / CONFIG
    config = read_object(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{path}: peft_type is {kind}; only LORA, with or without DoRA, has the two factors that are read here")
    for key, name in _OTHER_SHAPES.items():
        if config.get(key):
            raise UnsupportedError(f"{path}: {name} ({key}) stores factors that are not B and A of the weight's shape")
    patterns = {key: _pattern(path, config, key) for key in ("rank_pattern", "alpha_pattern")}
    base_model = config.get("base_model_name_or_path")
    return AdapterConfig(
        path=path,
        rank=_rank(path, config.get("r"), "r"),
        alpha=_number(path, config.get("lora_alpha"), "lora_alpha"),
        use_rslora=bool(config.get("use_rslora")),
        use_dora=bool(config.get("use_dora")),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        init=str(config.get("init_lora_weights", True)),
        base_model=base_model if isinstance(base_model, str) and base_model else None,
        rank_pattern={key: _rank(path, value, f"rank_pattern[{key}]") for key, value in patterns["rank_pattern"].items()},
        alpha_pattern={key: _number(path, value, f"alpha_pattern[{key}]") for key, value in patterns["alpha_pattern"].items()},
        target_parameters=_names(path, config.get("target_parameters")),
    )


def _rank(path: Path, value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidInputError(f"{path}: {field} is {json.dumps(value)}; it must be a whole number above 0")
    return value


def _number(path: Path, value: object, field: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidInputError(f"{path}: {field} is {json.dumps(value)}; it must be a number")
    return float(value)


def _pattern(path: Path, config: Mapping[str, object], field: str) -> Mapping[str, object]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{path}: {field} must be an object")
    for key in value:
        try:
            re.compile(key)
        except re.error as error:
            raise InvalidInputError(f"{path}: {field} has the key {key!r}, which is no regular expression ({error})") from error
    return value


def _names(path: Path, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidInputError(f"{path}: target_parameters must be a list of names")
    return tuple(value)
