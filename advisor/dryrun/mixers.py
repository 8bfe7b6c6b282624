"""Choose whose code runs state-space, linear-attention and short-convolution layers: transformers' torch code, or a package's kernels.

transformers takes the functions of mamba_ssm, flash-linear-attention and causal_conv1d where it can import them (5.23
integrations/hub_kernels.py, `use_kernel_func_from_hub_with_fallback`), which decides what such a layer keeps for backward.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from advisor.dryrun.launch_free import launch_free
from advisor.errors import UnsupportedError
from advisor.values import Mixers

DISTRIBUTIONS = {"fla": "flash-linear-attention", "mamba_ssm": "mamba-ssm", "causal_conv1d": "causal-conv1d"}
"""Package → what pip calls it."""


class _Function(NamedTuple):
    """A function of a model's module that a package may replace."""

    module: ModuleType
    name: str
    as_imported: Any
    package: str
    name_there: str
    of_torch: Any


def _functions(base: Any) -> list[_Function]:
    layers = {type(layer).__module__ for layer in base.modules()}
    found = []
    for module in (sys.modules[name] for name in sorted(layers) if name.startswith("transformers.models.")):
        for name, function in list(vars(module).items()):
            held = inspect.getclosurevars(function).nonlocals if isinstance(function, FunctionType) else {}
            if {"package", "func_name", "torch_function"} <= set(held):
                found.append(_Function(module, name, function, held["package"], held["func_name"], held["torch_function"]))
    return found


@contextmanager
def mixing(base: Any, mixers: Mixers, name: str) -> Iterator[tuple[str, ...]]:
    """Run the layers of the transformers model `base` as `mixers` says; yields what is to be said of it.

    Raises UnsupportedError where kernels are asked for whose package is not installed, or cannot be imported without a card.
    """
    functions = _functions(base)
    packages = dict.fromkeys(function.package for function in functions)
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if mixers is Mixers.PACKAGES and missing:
        raise UnsupportedError(f"{name}: {_listed(missing)} not installed: pip install {' '.join(DISTRIBUTIONS[each] for each in missing)}")
    wanted = [] if mixers is Mixers.TORCH else [package for package in packages if package not in missing]
    with ExitStack() as stack:
        if wanted:
            stack.enter_context(launch_free(tuple(wanted)))
        failed = _set(functions, wanted)
        stack.callback(_reset, functions)
        if mixers is Mixers.PACKAGES and failed:
            raise UnsupportedError(f"{name}: {_listed(failed)} not importable without a card; say --mixers torch")
        yield tuple(_said(mixers, [*missing, *failed], packages))


def _set(functions: list[_Function], wanted: list[str]) -> list[str]:
    """Put the packages' functions, and torch's for the others, in their places; the packages that could not be imported."""
    failed: dict[str, None] = {}
    for function in functions:
        chosen = function.of_torch
        if function.package in wanted:
            # Releases without this module have no such functions.
            from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

            chosen = use_kernel_func_from_hub_with_fallback(function.name_there, function.package)(function.of_torch)
            if not inspect.getclosurevars(chosen).nonlocals["is_new_implementation"]:
                failed[function.package] = None
        setattr(function.module, function.name, chosen)
    return [*failed]


def _reset(functions: list[_Function]) -> None:
    for function in functions:
        setattr(function.module, function.name, function.as_imported)


def _said(mixers: Mixers, without: list[str], packages: dict[str, None]) -> Iterator[str]:
    if mixers is Mixers.TORCH and packages:
        yield f"layers without attention run transformers' own torch code, as without {_names(packages)}"
    elif without:
        yield f"{_listed(without)} not installed here: transformers' own torch code ran in its place, which holds more than its kernels"


def _names(packages: Any) -> str:
    return " and ".join(DISTRIBUTIONS.get(package, package) for package in packages)


def _listed(packages: list[str]) -> str:
    return f"{_names(packages)} {'is' if len(packages) == 1 else 'are'}"
