"""Which matrices an adapter wraps, and the limits that the model sets: names that exist, ranks that its matrices can carry."""

from __future__ import annotations

from advisor.errors import InvalidInputError
from advisor.values.model import Block, Linear, ModelSpec
from advisor.values.plan import ALL_LINEAR


def available_targets(model: ModelSpec) -> tuple[str, ...]:
    """Leaf names of the linear layers that peft can wrap, in the order of the blocks."""
    names = (linear.name for block in model.blocks for linear in block.linears if linear.is_module)
    return tuple(dict.fromkeys(names))


def targeted_linears(model: ModelSpec, target_modules: tuple[str, ...]) -> tuple[tuple[Block, Linear], ...]:
    """Every wrapped matrix with the run of layers that it belongs to.

    "all-linear" is every `nn.Linear` but the output head (peft 0.21 tuners/tuners_utils.py `_maybe_include_all_linear_layers`);
    weights held in bare parameters (fused experts) are not modules and are not wrapped.
    """
    everything = target_modules == (ALL_LINEAR,)
    return tuple(
        (block, linear)
        for block in model.blocks
        for linear in block.linears
        if linear.is_module and (everything or linear.name in target_modules)
    )


def check_targets(model: ModelSpec, target_modules: tuple[str, ...]) -> None:
    """Raises InvalidInputError when a name matches no linear layer, listing those that exist."""
    available = available_targets(model)
    if target_modules == (ALL_LINEAR,):
        if not available:
            raise InvalidInputError(f"--target-modules: {model.id} has no linear layer that peft can wrap")
        return
    missing = [name for name in target_modules if name not in available]
    if missing:
        listed = ", ".join(available)
        raise InvalidInputError(f"--target-modules: no linear layer of {model.id} is called {', '.join(missing)}; there are {listed}")


def check_rank(model: ModelSpec, target_modules: tuple[str, ...], rank: int) -> None:
    """Raises InvalidInputError when the rank exceeds the smallest wrapped matrix.

    Routers and expert gates (as many outputs as experts, or one) are left out: peft wraps them at any rank, and they say nothing
    about what the rank is for.
    """
    sizes = [
        (min(linear.in_features, linear.out_features), linear)
        for block, linear in targeted_linears(model, target_modules)
        if not _is_router(block, linear)
    ]
    limit, smallest = min(sizes, key=lambda pair: pair[0], default=(rank, None))
    if smallest is not None and rank > limit:
        shape = f"{smallest.name} is {smallest.out_features:,} × {smallest.in_features:,}"
        raise InvalidInputError(f"--rank {rank}: above the smallest matrix of {model.id} that it would wrap ({shape}); at most {limit}")


def _is_router(block: Block, linear: Linear) -> bool:
    return block.mlp.kind == "moe" and linear.out_features in (1, block.mlp.experts)
