"""Which layers to trace so that the rest can be repeated: a short model with the same kinds of layers in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

UNITS = 4
"""First, two equal ones in the middle (so that their equality can be checked), last."""
MAX_PERIOD = 12
"""Longest pattern of layer kinds that is looked for; the longest among released models is 8 (Jamba), Gemma 3 has 6."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A model of `total_units` equal units (of one layer, or of one period of the layer pattern), cut to four of them."""

    layers: tuple[int, ...]
    """Layers to keep, by their number in the whole model."""
    units: tuple[int, ...]
    """Unit of each kept layer, 0 to 3. Odd layers before the pattern count to the first unit, a rest after it to the last."""
    total_units: int


def find_cut(signatures: list[Any]) -> Cut | None:
    """The cheapest cut, or None where it saves nothing."""
    count = len(signatures)
    best: tuple[int, int, int] | None = None
    for period in range(1, MAX_PERIOD + 1):
        start = _start_of_pattern(signatures, period)
        cost = start + UNITS * period + (count - start) % period
        if (count - start) // period > UNITS and (best is None or cost < best[0]):
            best = (cost, period, start)
    if best is None:
        return None
    _, period, start = best
    rest = (count - start) % period
    body = UNITS * period
    layers = [*range(start), *range(start, start + body), *range(count - rest, count)]
    units = [0] * start + [index // period for index in range(body)] + [UNITS - 1] * rest
    return Cut(tuple(layers), tuple(units), (count - start) // period)


def _start_of_pattern(signatures: list[Any], period: int) -> int:
    """First layer from which on every layer equals the one a period later."""
    start = len(signatures) - period
    while start > 0 and signatures[start - 1] == signatures[start - 1 + period]:
        start -= 1
    return max(start, 0)


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
