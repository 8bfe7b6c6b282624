"""Which layers slide a window over the sequence, and which rotate: the part in which layers of one model differ."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.architectures.config import Config
from advisor.architectures.parts import FULL, SLIDING, every_nth_full, layer_types


@dataclass(frozen=True, slots=True)
class Layer:
    window: int | None = None
    rotates: bool = True


def plain_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    return (Layer(),) * layers


def window_everywhere(config: Config, layers: int) -> tuple[Layer, ...]:
    """`sliding_window` in every layer, none where it is null (Phi-3, Starcoder2, Ministral 3: models/phi3/modeling_phi3.py)."""
    return (Layer(config.optional_count("sliding_window")),) * layers


def mistral_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """As above; the class default is 4096 tokens (models/mistral/configuration_mistral.py)."""
    return (Layer(config.optional_count("sliding_window", default=4096)),) * layers


def ministral_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    window = config.optional_count("sliding_window", default=4096)
    return _typed(config, layers, (SLIDING if window else FULL,) * layers, window)


def qwen_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """From layer `max_window_layers` on, and only with `use_sliding_window` (models/qwen2/configuration_qwen2.py)."""
    window = config.optional_count("sliding_window", default=4096) if config.flag("use_sliding_window", default=False) else None
    full_layers = config.count_or_zero("max_window_layers", default=28)
    default = tuple(SLIDING if window and layer >= full_layers else FULL for layer in range(layers))
    return _typed(config, layers, default, window)


def gemma2_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    return _typed(config, layers, every_nth_full(layers, 2), config.count("sliding_window", default=4096))


def gemma3_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    window = config.count("sliding_window", default=4096)
    if config.flag("use_bidirectional_attention", default=False):
        window = window // 2 + 1
    period = config.count("sliding_window_pattern", default=6)
    return _typed(config, layers, every_nth_full(layers, period), window)


def olmo3_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    return _typed(config, layers, every_nth_full(layers, 4), config.count("sliding_window", default=4096))


def cwm_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    default = tuple(SLIDING if layer % 4 else FULL for layer in range(layers))
    return _typed(config, layers, default, config.optional_count("sliding_window", default=8192))


def cohere2_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """Only sliding layers rotate (models/cohere2/modeling_cohere2.py, Cohere2Attention)."""
    window = config.count("sliding_window", default=4096)
    period = config.count("sliding_window_pattern", default=4)
    typed = _typed(config, layers, every_nth_full(layers, period), window)
    return tuple(Layer(layer.window, rotates=layer.window is not None) for layer in typed)


def exaone4_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """Without a window all layers are full and rotate; with one, full layers do not (models/exaone4/modeling_exaone4.py)."""
    window = config.optional_count("sliding_window", default=4096)
    if window is None:
        _typed(config, layers, (FULL,) * layers, None)
        return (Layer(),) * layers
    pattern = config.raw("sliding_window_pattern")
    if isinstance(pattern, str):  # EXAONE 4.0 writes "LLLG"; transformers then needs `layer_types`, which decides
        default = tuple(SLIDING if pattern[layer % len(pattern)] == "L" else FULL for layer in range(layers)) if pattern else ()
    else:
        default = every_nth_full(layers, config.count("sliding_window_pattern", default=4))
    typed = _typed(config, layers, default, window)
    return tuple(Layer(layer.window, rotates=layer.window is not None) for layer in typed)


def smollm3_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """`no_rope_layers` holds 1 for a layer that rotates (models/smollm3/configuration_smollm3.py)."""
    rotating = config.numbers("no_rope_layers")
    if rotating is None:
        interval = config.count("no_rope_layer_interval", default=4)
        rotating = tuple(int((layer + 1) % interval != 0) for layer in range(layers))
    if len(rotating) != layers:
        raise config.bad("no_rope_layers", f"has {len(rotating):,} entries for {layers:,} layers")
    window = config.optional_count("sliding_window") if config.flag("use_sliding_window", default=False) else None
    default = tuple(FULL if rotates or window is None else SLIDING for rotates in rotating)
    typed = _typed(config, layers, default, window)
    return tuple(Layer(layer.window, bool(rotates)) for layer, rotates in zip(typed, rotating, strict=True))


def _typed(config: Config, layers: int, default: tuple[str, ...], window: int | None) -> tuple[Layer, ...]:
    types = layer_types(config, layers, default)
    return tuple(Layer(window if name == SLIDING else None) for name in types)
