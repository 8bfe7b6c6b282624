"""Reads adapter_config.json as peft 0.21 writes it: what decides the rank and the scale of every module."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.adapters.patterns import first_matches
from advisor.bounded import children, is_file, is_folder, place
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import read_object
from advisor.shown import capped

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")

ZERO_B_INITS = frozenset({"True", "gaussian", "eva"})
"""Initialisations that begin with B = 0, so that B = 0 at the end means untrained (peft 0.21, tuners/lora/layer.py)."""
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Initialisations that take the first product out of the base weights, so that the file holds it too (same place)."""
MAX_RANK = 1_000_000
"""Judgement: no weight of any model has a smaller side that is as long."""
MAX_ALPHA = 1e12
"""Judgement: beyond it the scale's square leaves the range of a float32."""
_LONGEST_VALUE = 60
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

    def settings_of(self, modules: Sequence[str]) -> Mapping[str, tuple[int, float]]:
        """Rank and scale of each module: alpha / r, or alpha / √r with rsLoRA (peft 0.21, tuners/lora/layer.py update_layer)."""
        rank_keys = first_matches([*self.rank_pattern], modules, f"{self.path}: rank_pattern")
        alpha_keys = first_matches([*self.alpha_pattern], modules, f"{self.path}: alpha_pattern")
        ranks = {name: self.rank_pattern[rank_keys[name]] if name in rank_keys else self.rank for name in modules}
        alphas = {name: self.alpha_pattern[alpha_keys[name]] if name in alpha_keys else self.alpha for name in modules}
        return {name: (rank, alphas[name] / (math.sqrt(rank) if self.use_rslora else rank)) for name, rank in ranks.items()}


def adapter_folder(path: str | Path) -> Path:
    """The folder that holds an adapter in safetensors; says what is there instead when it is none."""
    folder = place(path)
    if is_file(folder):
        _refuse_pickle(folder.parent, folder)
        folder = folder.parent
    if not is_folder(folder):
        raise InvalidInputError(f"{path}: no such folder; give the one that holds {CONFIG} and {WEIGHTS}")
    if not is_file(folder / CONFIG):
        raise InvalidInputError(_no_adapter(folder))
    if not is_file(folder / WEIGHTS):
        for name in PICKLES:
            if is_file(folder / name):
                _refuse_pickle(folder, folder / name)
        raise InvalidInputError(f"{folder} holds {CONFIG} and no {WEIGHTS}: the adapter's weights are missing")
    return folder


def _refuse_pickle(folder: Path, file: Path) -> None:
    if file.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        better = f"; {folder} holds {WEIGHTS} too: give the folder" if is_file(folder / WEIGHTS) else ""
        raise UnsupportedError(
            f"{file} is a pickle, which can run any code when it is opened, so it is not read: save the adapter again with "
            f"save_pretrained(…, safe_serialization=True){better}"
        )


def _no_adapter(folder: Path) -> str:
    checkpoints = [child.name for child in children(folder) if is_file(child / CONFIG)]
    if checkpoints:
        return f"{folder} holds no {CONFIG}, but {', '.join(checkpoints[:3])} {'do' if len(checkpoints) > 1 else 'does'}: give that folder"
    if is_file(folder / "config.json"):
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
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_RANK:
        raise InvalidInputError(f"{path}: {field} is {_written(value)}; it must be a whole number above 0, of {MAX_RANK:,} at most")
    return value


def _number(path: Path, value: object, field: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= MAX_ALPHA:
        raise InvalidInputError(f"{path}: {field} is {_written(value)}; it must be a number")
    return float(value)


def _written(value: object) -> str:
    return capped(json.dumps(value), _LONGEST_VALUE)


def _pattern(path: Path, config: Mapping[str, object], field: str) -> Mapping[str, object]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{path}: {field} must be an object")
    return value


def _names(path: Path, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidInputError(f"{path}: target_parameters must be a list of names")
    return tuple(value)
