"""Run the Python of Triton libraries on meta tensors: their kernels are launched to no effect.

What such a library allocates, saves for backward and frees it does in Python, with torch; the kernels only fill what is there. Where
Triton is installed, its launches do nothing for meta tensors. Where it is not, a stand-in takes its name while a dry run lasts, and what
was imported on top of it is put away afterwards, so that nothing of it is left in the process.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch

TRITON_VERSION = "3.7.0"
"""What the stand-in says it is: the Triton that torch 2.13 is built with, as far as libraries ask."""
STANDS_FOR = "triton"

_DRIVER = "triton.runtime.driver"

_put_away: dict[str, ModuleType] = {}
"""Modules that were imported on top of the stand-in, kept for the next dry run."""


class Anything:
    """Whatever a kernel's source names at import: its attributes, calls, items and unions are again anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorated = args[0] if len(args) == 1 and callable(args[0]) and not kwargs else None
        return Kernel(decorated) if isinstance(decorated, FunctionType) else decorated or Anything()

    def __getitem__(self, key: Any) -> Anything:
        return self

    def __or__(self, other: Any) -> Anything:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Kernel:
    """A kernel that does nothing, however it is launched."""

    def __init__(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.fn = function
        self.__name__ = getattr(function, "__name__", "kernel")
        self.arg_names: list[str] = []
        self.configs: list[Any] = []

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.run

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Launch it: nothing happens."""

    __call__ = run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class _Config:
    """`triton.Config`: what autotuning would choose from."""

    def __init__(self, kwargs: dict[str, Any] | None = None, num_warps: int = 4, num_stages: int = 2, **more: Any) -> None:
        self.kwargs, self.num_warps, self.num_stages = kwargs or {}, num_warps, num_stages
        self.__dict__.update(more)


def _jit(function: Any = None, **options: Any) -> Any:
    return Kernel if function is None else Kernel(function)


def _around(*args: Any, **options: Any) -> Callable[[Any], Kernel]:
    """`triton.autotune` and `triton.heuristics`."""
    return lambda kernel: kernel if isinstance(kernel, Kernel) else Kernel(kernel)


def _cdiv(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _next_power_of_2(number: int) -> int:
    return 1 << (max(int(number), 1) - 1).bit_length()


_NAMES: dict[str, dict[str, Any]] = {
    "triton": {
        "__version__": TRITON_VERSION,
        "jit": _jit,
        "autotune": _around,
        "heuristics": _around,
        "cdiv": _cdiv,
        "next_power_of_2": _next_power_of_2,
        "Config": _Config,
        "JITFunction": Kernel,
    },
    "triton.language": {"cdiv": _cdiv, "constexpr": Anything()},
    "triton.runtime": {"JITFunction": Kernel},
    "triton.runtime.jit": {"JITFunction": Kernel},
    "triton.runtime.autotuner": {"Autotuner": Kernel, "autotune": _around},
}
"""Module → what a library's own Python calls, rather than a kernel's source."""
_MODULES = frozenset(("triton.language", "triton.language.math", "triton.language.extra", "triton.runtime", _DRIVER, "triton.testing"))
"""Names that are modules even where nothing imported them: Triton imports them itself."""


class _StandIn(ModuleType):
    """A module of the stand-in. What is not in `_NAMES` is anything."""

    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__path__: list[str] = []
        self.__dict__.update(_NAMES.get(spec.name, {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == _DRIVER:
            raise RuntimeError("0 active drivers")  # as without a card (triton 3.7 runtime/driver.py, `_create_driver`)
        full_name = f"{self.__name__}.{name}"
        return importlib.import_module(full_name) if full_name in _MODULES else Anything()


class _Finder:
    """Finds the stand-in under Triton's name."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != STANDS_FOR:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute."""


@contextmanager
def launch_free(packages: tuple[str, ...]) -> Iterator[None]:
    """Let the `packages` be imported and called, without a card, for as long as this lasts."""
    if importlib.util.find_spec(STANDS_FOR) is not None:
        with _without_launches():
            yield
        return
    with _standing_in(packages):
        yield


@contextmanager
def _without_launches() -> Iterator[None]:
    """Installed Triton's launches do nothing where an argument is a meta tensor (triton 3.7 runtime/jit.py, autotuner.py)."""
    from triton.runtime import autotuner, jit  # type: ignore[import-not-found]

    classes = (jit.JITFunction, autotuner.Autotuner, autotuner.Heuristics)
    kept = [each.run for each in classes]
    for each in classes:
        each.run = _unless_meta(each.run)
    try:
        yield
    finally:
        for each, run in zip(classes, kept, strict=True):
            each.run = run


def _unless_meta(run: Callable[..., Any]) -> Callable[..., Any]:
    def launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        on_meta = any(isinstance(each, torch.Tensor) and each.device.type == "meta" for each in (*args, *kwargs.values()))
        return None if on_meta else run(self, *args, **kwargs)

    return launched


@contextmanager
def _standing_in(packages: tuple[str, ...]) -> Iterator[None]:
    _ask_for_triton_once()
    compile_, finder, names = torch.compile, _Finder(), (STANDS_FOR, *packages)
    without = _take_out(names)  # packages that were imported as far as they go without Triton
    sys.modules.update(_put_away)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    torch.compile = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        _put_away.update(_take_out(names))
        sys.modules.update(without)


def _take_out(packages: tuple[str, ...]) -> dict[str, ModuleType]:
    """Remove every module of the packages from those that are imported."""
    return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in packages}


def _as_it_is(model: Any = None, **options: Any) -> Any:
    return _as_it_is if model is None else model


def _ask_for_triton_once() -> None:
    """What torch and transformers remember of Triton they are to remember of the real one, which is not there."""
    import torch._inductor  # noqa: F401 (which reads Triton where it finds it)
    import transformers.utils
    from torch.utils import _triton

    _triton.has_triton_package()
    _triton.has_triton()
    transformers.utils.is_triton_available()
