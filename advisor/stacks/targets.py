"""Which matrices an adapter wraps, and the limits that the model sets: names that exist, ranks that its matrices can carry."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.values.model import Block, Linear, ModelSpec
from advisor.values.plan import ALL_LINEAR

_STACKED_LIKE_QWEN = {"gate": ("gate",), "gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_STACKED_LIKE_MIXTRAL = {"gate": ("gate",), "gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}
_QWEN_LIKE = (
    "deepseek_v2 deepseek_v3 dots1 ernie4_5_moe flex_olmo glm4_moe glm4_moe_lite hunyuan_v1_moe longcat_flash olmoe qwen3_moe solar_open"
)
STACKED_NAMES = {
    **dict.fromkeys(_QWEN_LIKE.split(), _STACKED_LIKE_QWEN),
    **dict.fromkeys(("mixtral", "minimax", "minimax_m2"), _STACKED_LIKE_MIXTRAL),
}
"""Experts and routers that transformers 5 keeps in bare parameters, and the names of transformers 4's modules under which peft still
adapts them, "all-linear" included (peft 0.21 utils/transformers_weight_conversion.py, `_MOE_TARGET_MODULE_MAPPING` and
`_MODEL_TO_CONVERSION_PATTERN`). Other types' experts are not adapted unless `target_parameters` names them."""


_ATTENTION, _GATED = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
_WRAPPABLE: dict[str, tuple[str, ...]] = {
    "deepseek_v4": ("q_a_proj", "q_b_proj", "kv_proj", "o_b_proj", *_GATED),
    "falcon_h1": ("in_proj", *_ATTENTION, *_GATED),
    "falcon_mamba": ("in_proj", "x_proj", "dt_proj"),
    "llama4": (*_ATTENTION, *_GATED),
    "mamba": ("in_proj", "x_proj", "dt_proj"),
    "mamba2": ("in_proj",),
    "nemotron_h": ("in_proj", *_ATTENTION, "up_proj", "down_proj"),
}
"""Types without tables → the linear layers that peft 0.21 wraps, where it does not wrap them all: no `out_proj` of types with Mamba layers
(tuners/tuners_utils.py, `_check_lora_target_modules_mamba`); no DeepSeek-V4 `o_a_proj`, which multiplies by groups, nor Llama 4's
routers, which return two tensors: both are `nn.Linear` to it, and fail in the first step (transformers 5.23
models/deepseek_v4/modeling_deepseek_v4.py, models/llama4/modeling_llama4.py). `benchmarks/coverage_of_profiles.py` runs them."""


class Target(NamedTuple):
    """A wrapped matrix: the run of layers that it belongs to, and how it is wrapped."""

    block: Block
    linear: Linear
    rank_factor: int = 1
    """Two matrices that are fused into one parameter get one adapter of twice the rank."""
    place: int = 0
    """Of the run among the model's: two runs may be equal."""


def available_targets(model: ModelSpec) -> tuple[str, ...]:
    """Leaf names that peft can wrap, in the order of the blocks; none are known of a model without tables."""
    if model.tables is None:
        return ()
    names = (name for block in model.shape.blocks for linear in block.linears for name in _names(model, linear))
    return tuple(dict.fromkeys(names))


def _names(model: ModelSpec, linear: Linear) -> tuple[str, ...]:
    """Under which names peft wraps this matrix; none where it does not.

    Where names of experts are taken for stacked parameters, modules of the same name (shared experts, dense layers) go without: peft
    moves the name from `target_modules` to `target_parameters` (`_convert_peft_config_moe`).
    """
    stacked = STACKED_NAMES.get(model.model_type, {})
    if linear.is_module:
        return () if any(linear.name in names for names in stacked.values()) else (linear.name,)
    return stacked.get(linear.name, ()) if linear.part == "mlp" else ()


@lru_cache(maxsize=256)
def targets(model: ModelSpec, target_modules: tuple[str, ...]) -> tuple[Target, ...]:
    """Every wrapped matrix.

    "all-linear" is every `nn.Linear` but the output head (peft 0.21 tuners/tuners_utils.py `_maybe_include_all_linear_layers`), and
    the experts and routers of `STACKED_NAMES`.
    """
    everything = target_modules == (ALL_LINEAR,)
    found = []
    for place, block in enumerate(model.shape.blocks):
        for linear in block.linears:
            names = _names(model, linear)
            if names and (everything or all(name in target_modules for name in names)):
                found.append(Target(block, linear, len(names), place))
    return tuple(found)


def stacked_targets(model: ModelSpec, target_modules: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the wrapped bare parameters: stacked experts and their router; none are known of a model without tables."""
    if model.tables is None:
        return ()
    return tuple(dict.fromkeys(linear.name for _, linear, *_ in targets(model, target_modules) if not linear.is_module))


def without_stacked(model: ModelSpec, target_modules: tuple[str, ...]) -> tuple[str, ...]:
    """The same targets without stacked experts, for which peft has no DoRA (peft 0.21 lora/layer.py `ParamWrapper.update_layer`)."""
    if not stacked_targets(model, target_modules):
        return target_modules
    return tuple(dict.fromkeys(linear.name for _, linear, *_ in targets(model, target_modules) if linear.is_module))


def first_targets(model: ModelSpec) -> tuple[str, ...]:
    """What is wrapped where nobody says otherwise: everything, but for modules that peft cannot wrap."""
    if model.tables is None:
        return _WRAPPABLE.get(model.model_type, (ALL_LINEAR,))
    linears = [linear for block in model.shape.blocks for linear in block.linears]
    if all(linear.can_be_wrapped for linear in linears):
        return (ALL_LINEAR,)
    return tuple(dict.fromkeys(name for linear in linears if linear.can_be_wrapped for name in _names(model, linear)))


def refuse_unwrappable(model: ModelSpec, target_modules: tuple[str, ...]) -> None:
    """Raises UnsupportedError where a target is known as a module that peft fails on, with the targets that work."""
    if model.tables is None:
        return
    wrong = sorted({linear.name for _, linear, *_ in targets(model, target_modules) if not linear.can_be_wrapped})
    if wrong:
        raise UnsupportedError(
            f"--target-modules: peft 0.21 wraps {', '.join(wrong)} of {model.id} for a linear layer, and fails in its first step, as it "
            f"returns several tensors; name {','.join(first_targets(model))}"
        )


def check_targets(model: ModelSpec, target_modules: tuple[str, ...]) -> None:
    """Raises InvalidInputError when a name matches no linear layer, listing those that exist; of a model without tables the dry run
    tells."""
    if model.tables is None:
        return
    available = available_targets(model)
    if target_modules == (ALL_LINEAR,):
        if not available:
            raise InvalidInputError(f"--target-modules: {model.id} has no linear layer that peft can wrap")
        return
    missing = [name for name in target_modules if name not in available]
    if missing:
        listed = ", ".join(available)
        raise InvalidInputError(f"--target-modules: no linear layer of {model.id} is called {', '.join(missing)}; there are {listed}")


class Smallest(NamedTuple):
    """The wrapped matrix that carries the lowest rank."""

    limit: int
    linear: Linear


def smallest_wrapped(model: ModelSpec, target_modules: tuple[str, ...]) -> Smallest | None:
    """The smallest matrix that would be wrapped; None where nothing would, or the model has no tables.

    Routers and expert gates (as many outputs as experts, or one) are left out: peft wraps them at any rank, and they say nothing
    about what the rank is for.
    """
    if model.tables is None:
        return None
    sizes = [
        Smallest(min(linear.in_features, linear.out_features), linear)
        for block, linear, *_ in targets(model, target_modules)
        if not _is_router(block, linear)
    ]
    return min(sizes, key=lambda size: size.limit, default=None)


def check_rank(model: ModelSpec, target_modules: tuple[str, ...], rank: int) -> None:
    """Raises InvalidInputError when the rank exceeds the smallest wrapped matrix."""
    smallest = smallest_wrapped(model, target_modules)
    if smallest is not None and rank > smallest.limit:
        linear = smallest.linear
        shape = f"{linear.name} is {linear.out_features:,} × {linear.in_features:,}"
        raise InvalidInputError(
            f"--rank {rank}: above the smallest matrix of {model.id} that it would wrap ({shape}); at most {smallest.limit}"
        )


def _is_router(block: Block, linear: Linear) -> bool:
    return block.mlp.kind == "moe" and linear.out_features in (1, block.mlp.experts)
