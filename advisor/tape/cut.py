"""Which layers to record so that they stand for all: a short model in which each has the neighbours that it has in the whole one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

MAX_PERIOD = 12
"""Longest pattern of layer kinds that is looked for; the longest among released models is 8 (Jamba), Gemma 3 has 6."""


class _Role(NamedTuple):
    """What a layer does otherwise than another by: its own kind and its neighbours', and whether it is the first or the last of its kind,
    which makes or lets go of what all of a kind share (a mask, a table of rotations)."""

    before: int | None
    kind: int
    after: int | None
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """Some layers of a model, and for which of all layers each of them stands."""

    layers: tuple[int, ...]
    """Layers to keep, by their number in the whole model."""
    order: tuple[int, ...]
    """For each layer of the whole model the kept one, by its place among them, that does what it does."""


def find_cuts(signatures: Sequence[Any]) -> tuple[Cut, ...]:
    """Cuts of a model whose layers have these signatures, the cheapest first; none where nothing is saved.

    One leaves out whatever comes again. Another leaves out whole periods of a pattern only, for configs that count the pattern (every sixth
    layer) where others list it.
    """
    kinds = kinds_of(signatures).of_layer
    by_list, by_count = _without_what_comes_again(kinds), _without_periods(kinds)
    return tuple(cut for cut in dict.fromkeys((by_list, by_count)) if cut is not None)


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kind of each layer of a model, and a few of its layers among which every kind is."""

    of_layer: tuple[int, ...]
    few: tuple[int, ...]
    """By their number in the whole model. The first layer's kind is there twice: nothing before a first layer wants a gradient."""


def kinds_of(signatures: Sequence[Any]) -> Kinds:
    """Number the layers' kinds in the order in which they come."""
    numbers: dict[Any, int] = {}
    kinds = tuple(numbers.setdefault(signature, len(numbers)) for signature in signatures)
    first_again = (layer for layer, kind in enumerate(kinds) if layer and kind == kinds[0])
    few = {*map(kinds.index, numbers.values()), *islice(first_again, 1)}
    return Kinds(kinds, tuple(sorted(few)))


def _roles(kinds: Sequence[int]) -> list[_Role]:
    count = len(kinds)
    first = {kind: count - 1 - place for place, kind in enumerate(reversed(kinds))}
    last = {kind: place for place, kind in enumerate(kinds)}
    edged = [None, *kinds, None]
    return [_Role(edged[place], kind, edged[place + 2], place == first[kind], place == last[kind]) for place, kind in enumerate(kinds)]


def _wanted(roles: Sequence[_Role]) -> Counter[_Role]:
    """How many layers of each role are kept: one, and of the commonest two, so that what they did can be compared."""
    wanted = Counter(dict.fromkeys(roles, 1))
    role, count = Counter(roles).most_common(1)[0]
    wanted[role] = min(count, 2)
    return wanted


def _cut(kinds: Sequence[int], layers: tuple[int, ...]) -> Cut | None:
    """The cut that keeps `layers`; None where that saves nothing, or too few of them have some role."""
    if len(layers) >= len(kinds):
        return None
    whole, kept = _roles(kinds), _roles([kinds[layer] for layer in layers])
    if _wanted(whole) - Counter(kept):
        return None
    place = {role: number for number, role in enumerate(kept)}
    return Cut(layers, tuple(place[role] for role in whole))


def _without_what_comes_again(kinds: Sequence[int]) -> Cut | None:
    """The layers that are left when stretches are taken out, the longest first, whose ends fit together without them."""
    if not kinds:
        return None
    roles = _roles(kinds)
    kept = list(range(len(kinds)))
    spare = Counter(roles) - _wanted(roles)
    while (stretch := _longest_to_spare(kinds, roles, kept, spare)) is not None:
        first, last = stretch
        spare.subtract(roles[layer] for layer in kept[first : last + 1])
        del kept[first : last + 1]
    return _cut(kinds, tuple(kept))


def _longest_to_spare(kinds: Sequence[int], roles: Sequence[_Role], kept: Sequence[int], spare: Counter[_Role]) -> tuple[int, int] | None:
    """Places of the first and the last of the longest stretch that can be taken out."""
    best: tuple[int, int] | None = None
    for first in range(1, len(kept) - 1):
        taken: Counter[_Role] = Counter()
        for last in range(first, len(kept) - 1):
            role = roles[kept[last]]
            taken[role] += 1
            if taken[role] > spare[role]:
                break
            fits = kinds[kept[last]] == kinds[kept[first - 1]] and kinds[kept[last + 1]] == kinds[kept[first]]
            if fits and (best is None or last - first >= best[1] - best[0]):
                best = first, last
    return best


def _without_periods(kinds: Sequence[int]) -> Cut | None:
    """The layers before a pattern, as few periods of it as may do, and what is left after the last whole period."""
    count = len(kinds)
    cuts: list[Cut | None] = []
    for period in range(1, min(MAX_PERIOD, count) + 1):
        start = count - period
        while start > 0 and kinds[start - 1] == kinds[start - 1 + period]:
            start -= 1
        rest = range(count - (count - start) % period, count)
        cuts.extend(_cut(kinds, (*range(start + periods * period), *rest)) for periods in (2, 3, 4))
    return min((cut for cut in cuts if cut is not None), key=lambda cut: len(cut.layers), default=None)


def signatures_of(layers: Any, config: Any) -> list[Any]:
    """What tells one layer's kind from another's: module classes, parameter shapes, plain attributes, and the config's word for it.

    `config` is the one, of those in a model's config, that counts these layers.
    """
    per_layer = [value for value in vars(config).values() if isinstance(value, (list, tuple)) and len(value) == len(layers)]
    return [(signature(layer), tuple(repr(values[index]) for values in per_layer)) for index, layer in enumerate(layers)]


_NOT_A_KIND = ("layer_idx", "layer_id", "layer_index", "layer_number", "training", "idx")
"""Attributes that differ between equal layers."""


def signature(layer: Any) -> tuple[Any, ...]:
    """Module classes, parameter shapes and plain attributes of one layer."""
    parts: list[Any] = []
    for name, module in layer.named_modules():
        plain = tuple(
            sorted(
                (key, repr(value))
                for key, value in vars(module).items()
                if key not in _NOT_A_KIND and not key.startswith("_") and isinstance(value, (int, float, bool, str, type(None)))
            )
        )
        parts.append((name, type(module).__name__, plain))
    parts.extend((name, tuple(parameter.shape), str(parameter.dtype)) for name, parameter in layer.named_parameters())
    return tuple(parts)
