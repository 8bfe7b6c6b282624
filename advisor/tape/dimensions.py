"""Which numbers of a config are dimensions, and by how much those of two models of one family differ.

A family of models is one config whose dimensions are scaled in groups: a tape recorded for one of them speaks for all, because sizes are
products of dimensions. All else of the config (flags, patterns, heads' widths, towers) must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

from advisor.tape.cut import MAX_PERIOD, Cut

Path = tuple[str, ...]
"""Fields that lead to a value of a nested config."""
Groups = tuple[tuple[Path, ...], ...]
"""Dimensions that are scaled together."""

WIDTHS = ("hidden_size", "d_model", "n_embd", "block_dim", "conv_dim", "out_hidden_size", "text_hidden_size")
KEY_HEADS = ("num_key_value_heads", "kv_n_heads")
HEADS = (
    *("num_attention_heads", "num_heads", "n_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads"),
    *KEY_HEADS,
    *("mamba_n_heads", "mamba_num_heads", "mamba_d_ssm"),
)
INNER = (
    *("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "block_ff_dim", "ffn_hidden_size"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
    *("shared_intermediate_size", "intermediate_size_mlp", "vocab_size"),
)
"""Names of dimensions in transformers' configs (5.23, models/*/configuration_*.py): widths of the residual stream, numbers of heads, and
widths inside of layers and of the head."""
OF_THE_TEXT = ("out_hidden_size", "text_hidden_size")
"""Dimensions that a tower's config names of the language model."""
_TOWER = re.compile(r"vision|audio|speech|image|visual|encoder_config")
"""Parts of a config whose own width stays: a tower is the same in all of a family but for its inner width."""
_NEVER_A_SIZE = re.compile(
    r"_token_id$|_token_index$|_name_or_path$|^transformers_version$|^(torch_)?dtype$|^auto_map$|^id2label$|^label2id$|^initializer_|_eps$"
    r"|^rope_theta$|^max_window_layers$|^use_cache$|^max_length$|^task_specific_params$|^torchscript$|^quantization_config$|^unsloth|^_"
)
"""Fields that change no tensor of a training step: ids, names, constants, and what the plan says instead (types, storage)."""


class Depth(NamedTuple):
    """Which layers of a family's first model were recorded, and which fields count them."""

    cut: Cut
    holder: Path
    """Fields that lead to the config that counts the layers."""
    counts: tuple[str, ...]
    """Its fields that count them."""

    def order_of(self, layers: int) -> tuple[int, ...] | None:
        """The order (`Cut.order`) of a model of so many layers, whole periods of the pattern more or fewer; None where there is none."""
        order = self.cut.order
        start, stop, period = _pattern(order)
        rest, more = (layers - len(order)) % period, layers - len(order)
        if rest or stop - start + more < period:
            return None
        repeated = tuple(order[start + number % period] for number in range(stop - start + more))
        return (*order[:start], *repeated, *order[stop:])


def _pattern(order: tuple[int, ...]) -> tuple[int, int, int]:
    """Where the longest stretch begins and ends in which an order comes again and again, and after how many layers."""
    best = (0, 0, 1)
    for period in range(1, MAX_PERIOD + 1):
        start = 0
        for layer in range(len(order) + 1):
            comes_again = layer + period < len(order) and order[layer] == order[layer + period]
            if comes_again:
                continue
            if layer > start and layer + period - start > best[1] - best[0]:
                best = (start, layer + period, period)
            start = layer + 1
    return best


def at(config: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none."""
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


FREEDOMS = (4, 3, 2, 1, 0)
"""How freely the dimensions of a family differ, see `groups_of`."""


def groups_of(config: Mapping[str, Any], freedom: int) -> Groups:
    """The dimensions of `config` in groups.

    Of freedom 4 each alone, but equal widths together. Of 3 widths and heads together, for heads that are as wide as the stream divided by
    their number, and heads of keys alone. Of 2 all of these together. Of 1 without them. Of 0 none.
    """
    found = [(path, value) for path, value in _numbers(config) if _is_dimension(path)]
    widths: dict[int, list[Path]] = {}
    for path, value in found:
        if path[-1] in WIDTHS:
            widths.setdefault(value, []).append(path)
    stream = tuple(path for paths in widths.values() for path in paths)
    heads = tuple(path for path, _ in found if path[-1] in HEADS)
    keys = tuple(path for path in heads if path[-1] in KEY_HEADS)
    queries = tuple(path for path in heads if path not in keys)
    inner = [(path,) for path, _ in found if path[-1] in INNER]
    match freedom:
        case 4:
            groups = (*map(tuple, widths.values()), *((path,) for path in heads))
        case 3 if keys:
            groups = ((*stream, *queries), *((path,) for path in keys))
        case 2:
            groups = ((*stream, *heads),)
        case 1:
            groups = ()
        case _:
            return ()
    return (*(paths for paths in groups if paths), *inner)


_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def factors_of(groups: Groups, turn: int) -> tuple[int, ...]:
    """Factors for the groups by which any product of dimensions can be told from any other: of a prime of its own each. Heads stay a
    multiple of the heads of keys and values beside them, and widths a multiple of all heads, as models want them."""
    primes = [_PRIMES[(index + turn) % len(groups)] for index in range(len(groups))]
    names = [{path[-1] for path in paths} for paths in groups]
    keys = prod(prime for prime, found in zip(primes, names, strict=True) if found <= {*KEY_HEADS})
    heads = prod(prime for prime, found in zip(primes, names, strict=True) if found <= {*HEADS})
    factors = []
    for prime, found in zip(primes, names, strict=True):
        if found <= {*KEY_HEADS} or not found & {*WIDTHS, *HEADS}:
            factors.append(prime)
        else:
            factors.append(prime * (keys if found <= {*HEADS} else heads))
    return tuple(factors)


def _numbers(config: Mapping[str, Any], before: Path = ()) -> Iterator[tuple[Path, int]]:
    for name, value in sorted(config.items()):
        if isinstance(value, Mapping):
            yield from _numbers(value, (*before, name))
        elif type(value) is int and value > 1:
            yield (*before, name), value


def _is_dimension(path: Path) -> bool:
    """A tower's own width and heads stay."""
    if any(_TOWER.search(name) for name in path[:-1]):
        return path[-1] in (*OF_THE_TEXT, *INNER)
    return path[-1] in (*WIDTHS, *HEADS, *INNER)


def scaled(config: dict[str, Any], groups: Groups, factors: tuple[int, ...]) -> dict[str, Any]:
    """A copy of `config` whose dimensions are those times a factor for each group."""
    factor_of = {path: factor for paths, factor in zip(groups, factors, strict=True) for path in paths}

    def copied(part: dict[str, Any], before: Path) -> dict[str, Any]:
        found = {}
        for name, value in part.items():
            path = (*before, name)
            found[name] = copied(value, path) if isinstance(value, dict) else value * factor_of[path] if path in factor_of else value
        return found

    return copied(config, ())


class Likeness(NamedTuple):
    """What makes one model of a family of another."""

    scales: tuple[Fraction, ...]
    """By which each group of dimensions is larger."""
    order: tuple[int, ...] | None
    """Of the other model's layers (`Cut.order`); None where the whole model was recorded."""


def likeness(
    first: Mapping[str, Any], other: Mapping[str, Any], defaults: Mapping[str, Any], groups: Groups, depth: Depth | None
) -> Likeness | None:
    """How `other` is made of `first`, a config whose tapes are at hand; None where it is of another family.

    What a config leaves out has the type's default.
    """
    if _are_grouped(first) != _are_grouped(other):
        return None
    scales: list[Fraction] = []
    for paths in groups:
        found = {_ratio(at(other, path), at(first, path)) for path in paths if (at(other, path), at(first, path)) != (None, None)}
        if len(found) != 1:
            return None
        ratio = found.pop()
        if ratio is None:
            return None
        scales.append(ratio)
    order = None
    if depth is not None:
        count = (*depth.holder, depth.counts[0])
        layers = at(other, count) or at(defaults, count)
        order = depth.order_of(layers) if type(layers) is int else None
        short = None if order is None else _short(other, depth, order)
        if short is None:
            return None
        first, other = _short(first, depth, depth.cut.order) or first, short
    free = {path for paths in groups for path in paths}
    same = _flat(first, defaults, free) == _flat(other, defaults, free)
    return Likeness(tuple(scales), order) if same else None


def _are_grouped(config: Mapping[str, Any]) -> list[bool]:
    """Whether there are fewer heads of keys than of queries, wherever both are told: attention goes another way then."""
    told = [path for path, _ in _numbers(config) if path[-1] in KEY_HEADS and _is_dimension(path)]
    return [at(config, path) == at(config, (*path[:-1], "num_attention_heads")) for path in told]


def _ratio(larger: Any, smaller: Any) -> Fraction | None:
    if type(larger) is not int or type(smaller) is not int or smaller <= 0 or larger <= 0:
        return None
    return Fraction(larger, smaller)


def _short(config: Mapping[str, Any], depth: Depth, order: tuple[int, ...]) -> dict[str, Any] | None:
    """The config of the kept layers alone; None where its lists say other things of layers for which one of them stands."""
    holder = at(config, depth.holder) if depth.holder else config
    if not isinstance(holder, Mapping):
        return None
    short = dict(holder)
    for name, value in holder.items():
        if isinstance(value, (list, tuple)) or (isinstance(value, str) and "pattern" in name):
            if len(value) != len(order):
                continue
            said = dict(zip(order, value, strict=True))
            if any(said[kept] != each for kept, each in zip(order, value, strict=True)):
                return None
            short[name] = [said[kept] for kept in sorted(said)]
    short.update(dict.fromkeys(depth.counts, 0))
    return _with(config, depth.holder, short)


def _with(config: Mapping[str, Any], path: Path, value: dict[str, Any]) -> dict[str, Any]:
    if not path:
        return value
    return {**config, path[0]: _with(config[path[0]], path[1:], value)}


def _flat(config: Mapping[str, Any], defaults: Mapping[str, Any], free: set[Path]) -> dict[Path, Any]:
    """Every value that may change a step, by path: none of the free ones, and none that is the default."""

    def values(part: Mapping[str, Any], before: Path) -> Iterator[tuple[Path, Any]]:
        for name, value in part.items():
            path = (*before, name)
            if path in free or _NEVER_A_SIZE.search(name):
                continue
            if isinstance(value, Mapping):
                yield from values(value, path)
            elif _told(value) != _told(at(defaults, path)):
                yield path, _told(value)

    return dict(values(config, ()))


def _told(value: Any) -> Any:
    """A value as it is compared: nothing, zero and no are one."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_told, value))
    return value if value else None
