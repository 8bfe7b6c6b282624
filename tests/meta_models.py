"""What transformers itself builds from a config, on the meta device: the judge of advisor.architectures."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

Matrix = tuple[str, int, int, bool]
"""Leaf name, inputs, outputs, bias."""

# Fields whose length is the number of layers, or that count layers.
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True)
class MetaModel:
    params: int
    layers: tuple[tuple[int, Counter[Matrix]], ...]
    """Parameters and matrices of every layer."""
    tied: bool
    architecture: str
    quantizable: tuple[Counter[Matrix], ...] = ()
    """Of every layer: the matrices that transformers hands to bitsandbytes (integrations/bitsandbytes.py `replace_with_bnb_linear`)."""


def build(config: dict[str, Any], architecture: str) -> MetaModel:
    """The model of class `architecture`, built from `config` as AutoConfig would read it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    values = {key: value for key, value in config.items() if key != "quantization_config"}
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        real = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(values)
        model = getattr(transformers, architecture)(real)
    count = next(getattr(real, key) for key in _LAYER_COUNTS if hasattr(real, key))
    head = model.get_output_embeddings()
    return MetaModel(
        params=sum(parameter.numel() for parameter in model.parameters()),
        layers=tuple((sum(p.numel() for p in layer.parameters()), _matrices(layer)) for layer in _layers(model, count)),
        tied=head is not None and head.weight is model.get_input_embeddings().weight,
        architecture=type(model).__name__,
        quantizable=tuple(_matrices(layer, subclasses=False) for layer in _layers(model, count)),
    )


def _layers(model: Any, count: int) -> list[Any]:
    from torch import nn

    lists = [module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and not re.search("norms", name)]
    return next([*modules] for modules in lists if len(modules) == count)


def _matrices(layer: Any, *, subclasses: bool = True) -> Counter[Matrix]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found: Counter[Matrix] = Counter()
    for name, module in layer.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and (subclasses or type(module) is nn.Linear):
            found[leaf, module.in_features, module.out_features, module.bias is not None] += 1
        elif isinstance(module, Conv1D):
            found[leaf, module.nx, module.nf, True] += 1
    return found


def cut(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same config with only its first layers."""
    shorter = {**config, **{key: layers for key in _LAYER_COUNTS if key in config}}
    for key in _PER_LAYER:
        if isinstance(config.get(key), list):
            shorter[key] = config[key][:layers]
    if config["model_type"] == "gpt_neo":
        shorter["attention_types"] = [[["global", "local"], layers // 2]]
    return shorter
