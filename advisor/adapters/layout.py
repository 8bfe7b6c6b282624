"""Which tensors of an adapter file belong together: the two factors of each module, and what else was saved."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from advisor.adapters.config import AdapterConfig
from advisor.adapters.tensors import FLOATS, Tensor, TensorFile
from advisor.errors import InvalidInputError, UnsupportedError

# Names as peft 0.21 saves them (utils/save_and_load.py): the adapter's own name is taken out.
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?$")
_MAGNITUDE = re.compile(r"^(?P<module>.+)\.lora_magnitude_vector(?:\.weight)?$")
_BIAS = re.compile(r"^.+\.lora_B\.bias$")
_PREFIX = "base_model.model."
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Pair:
    """The factors of one module. Several experts' factors lie interleaved in one pair (peft 0.21, ParamWrapper.get_delta_weight)."""

    module: str
    a: Tensor
    """(rank · experts, in, …)"""
    b: Tensor
    """(out, rank · experts, …)"""
    rank: int
    scale: float
    experts: int = 1
    is_embedding: bool = False
    magnitude: Tensor | None = None

    @property
    def in_features(self) -> int:
        return math.prod(self.a.shape[1:])

    @property
    def out_features(self) -> int:
        return self.b.shape[0]

    @property
    def kind(self) -> str:
        return self.module.replace(".base_layer", "").rpartition(".")[2]

    @property
    def layer(self) -> int | None:
        match = _LAYER.search(self.module)
        return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class Layout:
    pairs: tuple[Pair, ...]
    """In the order of the file's layers."""
    others: tuple[Tensor, ...]
    """Everything that is no factor: DoRA's magnitudes, biases, whole weights."""


def lay_out(file: TensorFile, config: AdapterConfig) -> Layout:
    """Pairs the factors and holds their shapes against the config. Raises one line for the first that does not match."""
    sides: dict[str, dict[str, Tensor]] = {}
    magnitudes: dict[str, Tensor] = {}
    others: list[Tensor] = []
    for tensor in file.tensors.values():
        if factor := _FACTOR.match(tensor.name):
            sides.setdefault(factor["module"], {})[f"{factor['embedding'] or ''}{factor['side']}"] = tensor
            continue
        if magnitude := _MAGNITUDE.match(tensor.name):
            magnitudes[magnitude["module"]] = tensor
        elif ".lora_" in tensor.name and not _BIAS.match(tensor.name):
            raise UnsupportedError(f"{file.path}: {tensor.name} belongs to a variant of LoRA that is not read here")
        others.append(tensor)
    if not sides:
        raise InvalidInputError(f"{file.path} holds no lora_A and lora_B as peft saves them")
    settings = config.settings_of([module.removeprefix(_PREFIX) for module in sides])
    pairs = [
        _pair(file, config, settings[module.removeprefix(_PREFIX)], module, found, magnitudes.get(module))
        for module, found in sides.items()
    ]
    return Layout(tuple(sorted(pairs, key=_order)), tuple(others))


def _order(pair: Pair) -> tuple[int, str]:
    return (-1 if pair.layer is None else pair.layer, pair.module)


def _pair(
    file: TensorFile,
    config: AdapterConfig,
    setting: tuple[int, float],
    module: str,
    found: Mapping[str, Tensor],
    magnitude: Tensor | None,
) -> Pair:
    is_embedding = "embedding_A" in found or "embedding_B" in found
    prefix = "embedding_" if is_embedding else ""
    a, b = found.get(f"{prefix}A"), found.get(f"{prefix}B")
    if a is None or b is None:
        raise InvalidInputError(f"{file.path}: {module} has only one of its two factors; the file is incomplete")
    for tensor in (a, b):
        if len(tensor.shape) < 2 or 0 in tensor.shape:
            raise InvalidInputError(
                f"{file.path}: {tensor.name} has the shape {list(tensor.shape)}, which is no factor: was it saved from ZeRO-3 or FSDP "
                "shards without gathering them?"
            )
        if tensor.dtype not in FLOATS:
            raise UnsupportedError(f"{file.path}: {tensor.name} is stored as {tensor.dtype}, which is no plain floating-point type")
    name = module.removeprefix(_PREFIX)
    rank, scale = setting
    experts = _experts(config, name, a, rank)
    for side, tensor, held in (("A", a, a.shape[0]), ("B", b, math.prod(b.shape[1:]))):
        if held != rank * experts:
            raise InvalidInputError(
                f"{file.path} does not match {config.path.name}: {name} has rank {held} in {side} (shape {list(tensor.shape)}), "
                f"and the config says {rank}"
            )
    if magnitude is not None and math.prod(magnitude.shape) not in (b.shape[0], math.prod(a.shape[1:])):
        raise InvalidInputError(f"{file.path}: {magnitude.name} has the shape {list(magnitude.shape)}, and {name} {b.shape[0]} outputs")
    return Pair(name, a, b, rank, scale, experts, is_embedding, magnitude)


def _experts(config: AdapterConfig, name: str, a: Tensor, rank: int) -> int:
    """How many experts' factors a tensor holds: more than one only where the config targets a bare parameter."""
    holder = name.replace(".base_layer", "")
    owners = (parameter.rpartition(".")[0] for parameter in config.target_parameters)
    if any(holder == owner or holder.endswith(f".{owner}") for owner in owners) and a.shape[0] % rank == 0:
        return a.shape[0] // rank
    return 1


def expert_names(pair: Pair) -> Iterator[str]:
    """The module's name; with its number in brackets for each expert of several."""
    if pair.experts == 1:
        yield pair.module
    else:
        yield from (f"{pair.module}[{number}]" for number in range(pair.experts))
