"""Which layers slide a window over the sequence, and which rotate: the part in which layers of one model differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.parts import FULL, SLIDING, every_nth_full, layer_types

CHUNKED = "chunked_attention"


class Layer(NamedTuple):
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


def dots_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """From layer `max_window_layers` on (models/dots1/configuration_dots1.py)."""
    window = config.optional_count("sliding_window", default=4096)
    full_layers = config.count_or_zero("max_window_layers", default=62)
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


def qwen2_moe_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """Every second of the first `max_window_layers` layers, only with `use_sliding_window` (configuration_qwen2_moe.py)."""
    slides = config.flag("use_sliding_window", default=False)
    window = config.optional_count("sliding_window", default=4096) if slides else None
    first = config.count_or_zero("max_window_layers", default=28)
    default = tuple(SLIDING if slides and (layer + 1) % 2 and layer < first else FULL for layer in range(layers))
    return _typed(config, layers, default, window)


def qwen3_moe_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """`sliding_window` in every layer, only with `use_sliding_window` (configuration_qwen3_moe.py)."""
    slides = config.flag("use_sliding_window", default=False)
    return (Layer(config.optional_count("sliding_window", default=4096) if slides else None),) * layers


def gpt_oss_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    return _typed(config, layers, every_nth_full(layers, 2), config.count("sliding_window", default=128))


def llama4_layers(config: Config, layers: int) -> tuple[Layer, ...]:
    """Layers that rotate attend within chunks, the others to everything (models/llama4/configuration_llama4.py)."""
    rotating = _rotating(config, layers)
    chunk = config.count("attention_chunk_size", default=8192)
    types = config.words("layer_types", layers) or tuple(CHUNKED if rotates else FULL for rotates in rotating)
    unknown = next((name for name in types if name not in (CHUNKED, FULL)), None)
    if unknown is not None:
        raise config.bad("layer_types", f"holds {unknown[:40]!r}; known are {CHUNKED} and {FULL}")
    return tuple(Layer(chunk if name == CHUNKED else None, rotates) for name, rotates in zip(types, rotating, strict=True))


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
    rotating = _rotating(config, layers)
    window = config.optional_count("sliding_window") if config.flag("use_sliding_window", default=False) else None
    default = tuple(FULL if rotates or window is None else SLIDING for rotates in rotating)
    typed = _typed(config, layers, default, window)
    return tuple(Layer(layer.window, rotates) for layer, rotates in zip(typed, rotating, strict=True))


def _rotating(config: Config, layers: int) -> tuple[bool, ...]:
    """`no_rope_layers`, which holds 1 for a layer that does rotate; else all but every `no_rope_layer_interval`-th."""
    listed = config.numbers("no_rope_layers")
    if not listed:
        interval = config.count("no_rope_layer_interval", default=4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if len(listed) != layers:
        raise config.bad("no_rope_layers", f"has {len(listed):,} entries for {layers:,} layers")
    return tuple(map(bool, listed))


def _typed(config: Config, layers: int, default: tuple[str, ...], window: int | None) -> tuple[Layer, ...]:
    types = layer_types(config, layers, default)
    return tuple(Layer(window if name == SLIDING else None) for name in types)


# ------------------------------------------------------------------------------------------------ which layers have experts


def all_sparse(config: Config, layers: int) -> tuple[bool, ...]:
    return (True,) * layers


def first_dense(default: int) -> Callable[[Config, int], tuple[bool, ...]]:
    """Dense for the first `first_k_dense_replace` layers (DeepSeek, GLM-4.5)."""

    def sparse(config: Config, layers: int) -> tuple[bool, ...]:
        dense = config.count_or_zero("first_k_dense_replace", default=default)
        return tuple(layer >= dense for layer in range(layers))

    return sparse


def qwen_sparse(config: Config, layers: int) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer, except those in `mlp_only_layers` (models/qwen3_moe/modeling_qwen3_moe.py)."""
    step = config.count("decoder_sparse_step", default=1)
    dense = set(config.numbers("mlp_only_layers") or ())
    return tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(layers))


def ernie_sparse(config: Config, layers: int) -> tuple[bool, ...]:
    """Every `moe_layer_interval`-th layer from a first to a last (models/ernie4_5_moe/modeling_ernie4_5_moe.py)."""
    start = config.count_or_zero("moe_layer_start_index", default=1)
    end = layers - 1 if config.raw("moe_layer_end_index") in (None, -1) else config.count_or_zero("moe_layer_end_index", default=0)
    interval = config.count("moe_layer_interval", default=1)
    return tuple((layer + 1) % interval == 0 and start <= layer <= end for layer in range(layers))


def typed_sparse(config: Config, layers: int) -> tuple[bool, ...]:
    """`mlp_layer_types`, else all but the first (models/glm4_moe_lite/configuration_glm4_moe_lite.py)."""
    types = config.words("mlp_layer_types", layers) or ("dense",) + ("sparse",) * (layers - 1)
    unknown = next((name for name in types if name not in ("dense", "sparse")), None)
    if unknown is not None:
        raise config.bad("mlp_layer_types", f"holds {unknown[:40]!r}; known are dense and sparse")
    return tuple(name == "sparse" for name in types)


def llama4_sparse(config: Config, layers: int) -> tuple[bool, ...]:
    step = config.count("interleave_moe_layer_step", default=1)
    listed = config.numbers("moe_layers")
    sparse = set(range(step - 1, layers, step) if listed is None else listed)
    return tuple(layer in sparse for layer in range(layers))
