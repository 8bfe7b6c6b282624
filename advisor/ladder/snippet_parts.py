"""Pieces of source text that every snippet is put together from."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.shown import quoted
from advisor.values import DType

LINE_WIDTH = 100


def torch_dtype(dtype: DType) -> str:
    return {DType.FP32: "torch.float32", DType.BF16: "torch.bfloat16", DType.FP16: "torch.float16"}[dtype]


def text(value: str | bool | int | list[str] | Mapping[str, bool | int]) -> str:
    """A literal as Python source, with double quotes."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{text(key)}: {text(entry)}' for key, entry in value.items())}}}"
    return f"[{', '.join(map(text, value))}]" if isinstance(value, list) else repr(value)


def call(name: str, settings: Mapping[str, str], *positional: str) -> str:
    """A call on one line where it fits, else one argument a line."""
    arguments = [*positional, *(f"{key}={value}" for key, value in settings.items())]
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= LINE_WIDTH - 16:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"
