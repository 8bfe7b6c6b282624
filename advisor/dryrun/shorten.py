"""Shorten a model's config to some of its layers, and prove that the shorter model is the same one with fewer layers.

Configs nest (a language model's in an image-text model's), name their number of layers in many ways, and hold lists with an entry per
layer. Which of the fields count the layers at hand is tried, not assumed: a cut holds if the model built from it has the kept layers,
each of its own kind, and everything else as the whole model has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from advisor.tape.cut import Cut, find_cuts, signature, signatures_of

COUNT_NAMES = (
    *("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers"),
    *("num_decoder_layers", "num_encoder_layers", "depth", "decoder_num_hidden_layers", "encoder_num_hidden_layers"),
)
"""Fields of transformers' configs that count layers (5.23, models/*/configuration_*.py)."""


@dataclass(frozen=True, slots=True)
class ConfigCut:
    """What to keep of a config."""

    layers: tuple[int, ...]
    """By their number in the whole model."""
    holder: tuple[str, ...] | None = None
    """Fields that lead to the config that counts the layers; None for that of the language model."""
    total: int | None = None
    """Layers of the whole model; None for what the config says first."""
    fields: tuple[str, ...] | None = None
    """Fields that count them; None for all that hold their number."""


def apply(config: Any, cut: ConfigCut) -> None:
    """Cut `config`, its counts of layers and its lists with an entry per layer, in place.

    Raises KeyError where the language model's config counts no layers.
    """
    holder = _holder(config, cut.holder)
    counts = _counts(holder)
    total = cut.total or next(iter(counts.values()), None)
    if total is None:
        raise KeyError(f"{type(holder).__name__} counts no layers")
    fields = tuple(name for name in counts if counts[name] == total) if cut.fields is None else cut.fields
    for name, value in list(vars(holder).items()):
        if _per_layer(name, value) and len(value) == total and total > 1:
            kept = [value[index] for index in cut.layers]
            setattr(holder, name, "".join(kept) if isinstance(value, str) else kept)
    for name in fields:
        setattr(holder, name, len(cut.layers))


def _per_layer(name: str, value: Any) -> bool:
    """A list, or a word with a letter per layer (`hybrid_override_pattern`)."""
    return isinstance(value, (list, tuple)) or (isinstance(value, str) and "pattern" in name)


def _holder(config: Any, path: tuple[str, ...] | None) -> Any:
    if path is None:
        return config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in path:
        config = getattr(config, name)
    return config


def _counts(config: Any) -> dict[str, int]:
    return {name: vars(config)[name] for name in COUNT_NAMES if isinstance(vars(config).get(name), int)}


def _has_list(config: Any, length: int) -> bool:
    """Whether the layers are counted by a list of them alone (Nemotron-H's `layers_block_type`)."""
    return any(isinstance(value, (list, tuple)) and len(value) == length for value in vars(config).values())


def _configs(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The config and every config in it, innermost first: they name what they count themselves."""
    for name, value in vars(config).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _configs(value, (*path, name))
    yield path, config


def find(whole: Any, layer_path: str, build: Callable[[ConfigCut], Any]) -> tuple[Cut, ConfigCut] | None:
    """Find the cheapest cut of the layers at `layer_path` of the model `whole`, and the fields of its config that make it.

    `build` makes the model of a cut config. None where nothing is saved, or where no field makes the cut.
    """
    if not layer_path:
        return None
    layers = whole.get_submodule(layer_path)
    for path, holder in _configs(whole.config):
        names = tuple(name for name, count in _counts(holder).items() if count == len(layers))
        if not names and not _has_list(holder, len(layers)):
            continue
        for cut in find_cuts(signatures_of(layers, holder)):
            for fields in dict.fromkeys((names, *((name,) for name in names))):
                config_cut = ConfigCut(cut.layers, path, len(layers), fields)
                if _is_the_same(whole, layer_path, cut, partial(build, config_cut)):
                    return cut, config_cut
    return None


def _is_the_same(whole: Any, layer_path: str, cut: Cut, build: Callable[[], Any]) -> bool:
    """Whether the short model has the kept layers, each of its own kind, and everything else as the whole model has it."""
    try:
        short = build()
        layers, kept = whole.get_submodule(layer_path), short.get_submodule(layer_path)
    except Exception:  # whatever a config class or a model says of a combination that it does not take
        return False
    if len(kept) != len(cut.layers) or _outside(whole, layer_path) != _outside(short, layer_path):
        return False
    return all(signature(layers[number]) == signature(layer) for number, layer in zip(cut.layers, kept, strict=True))


def _outside(model: Any, layer_path: str) -> list[tuple[str, tuple[int, ...]]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in tensors if not name.startswith(layer_path + ".")]
