"""Shorten a model's config to some of its layers, and prove that the shorter model is the same one with fewer layers.

Configs nest (a language model's in an image-text model's), name their number of layers in many ways, and hold lists with an entry per
layer. Which of the fields count the layers at hand is tried, not assumed: a cut holds if the model built from it has the kept layers,
each of its own kind, and everything else as the whole model has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from advisor.tape.alike import any_number
from advisor.tape.cut import Cut, Kinds, find_cuts, kinds_of, signature, signatures_of

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
    beside: tuple[ConfigCut, ...] = ()
    """What to keep of other lists of layers."""


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
    for other in cut.beside:
        apply(config, other)


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
    for path, holder, fields_that_count in _counting(whole.config, len(layers)):
        for cut in find_cuts(signatures_of(layers, holder)):
            for fields in fields_that_count:
                config_cut = ConfigCut(cut.layers, path, len(layers), fields)
                if _is_the_same(whole, layer_path, cut.layers, partial(build, config_cut), _outside):
                    return cut, config_cut
    return None


def find_few(whole: Any, layer_path: str, build: Callable[[ConfigCut], Any]) -> tuple[Kinds, ConfigCut] | None:
    """Find the fields of a config that make a model of a few layers of `whole` among which each of its kinds is, and of no more than two
    of any other list of layers where there is such a model; else None."""
    if not layer_path:
        return None
    layers = whole.get_submodule(layer_path)
    for path, holder, fields_that_count in _counting(whole.config, len(layers)):
        kinds = kinds_of(signatures_of(layers, holder))
        beside = tuple(
            ConfigCut((0, 1), other, count, (name,))
            for other, config in _configs(whole.config)
            for name, count in _counts(config).items()
            if other != path and count > 2
        )
        for fields in fields_that_count:
            for config_cut in dict.fromkeys(ConfigCut(kinds.few, path, len(layers), fields, others) for others in (beside, ())):
                if _is_the_same(whole, layer_path, kinds.few, partial(build, config_cut), _kinds_outside):
                    return kinds, config_cut
    return None


def _counting(config: Any, count: int) -> Iterator[tuple[tuple[str, ...], Any, tuple[tuple[str, ...], ...]]]:
    """Configs that count so many layers, with the fields that may do it: all that hold the number, or each alone."""
    for path, holder in _configs(config):
        names = tuple(name for name, each in _counts(holder).items() if each == count)
        if names or _has_list(holder, count):
            yield path, holder, tuple(dict.fromkeys((names, *((name,) for name in names))))


def _is_the_same(
    whole: Any, layer_path: str, kept: tuple[int, ...], build: Callable[[], Any], outside: Callable[[Any, str], Collection[Any]]
) -> bool:
    """Whether the short model has the kept layers, each of its own kind, and everything else as the whole model has it."""
    try:
        short = build()
        layers, few = whole.get_submodule(layer_path), short.get_submodule(layer_path)
    except Exception:  # whatever a config class or a model says of a combination that it does not take
        return False
    if len(few) != len(kept) or outside(whole, layer_path) != outside(short, layer_path):
        return False
    return all(signature(layers[number]) == signature(layer) for number, layer in zip(kept, few, strict=True))


def _outside(model: Any, layer_path: str) -> list[tuple[str, tuple[int, ...]]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in tensors if not name.startswith(layer_path + ".")]


def _kinds_outside(model: Any, layer_path: str) -> set[tuple[str, tuple[int, ...]]]:
    """As `_outside`, each once of all that differ by a number."""
    return {(any_number(name), shape) for name, shape in _outside(model, layer_path)}
