"""Show results where Python shows values: `print`, a prompt and a notebook's cell.

Values know of no renderer, which stands far above them: the package hands one in (`advisor/__init__.py`), loaded when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol


class Renderer(Protocol):
    """What draws results."""

    def line(self, value: object) -> str:
        """Return the verdict of a result, in one line."""

    def text(self, value: object) -> str:
        """Return a result as the screen that the command line prints of it."""

    def html(self, value: object) -> str:
        """Return a result as HTML for a notebook's cell."""


_load: Callable[[], Renderer] | None = None


def draw_with(load: Callable[[], Renderer]) -> None:
    """Take the renderer from `load` when a result is first shown."""
    global _load
    _load = load


def _renderer() -> Renderer:
    assert _load is not None, "importing the package has handed a renderer in"
    return _load()


class Shown:
    """Base of results: shown as their screen by `print` and in a notebook, and by their verdict at a prompt.

    The fields stay at hand: `model_dump_json()` has all of them.
    """

    def __str__(self) -> str:
        return _renderer().text(self)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Yield what stands in brackets after the class's name: pydantic builds `__repr__` and rich's `__rich_repr__` from it."""
        yield None, _renderer().line(self)

    def _repr_html_(self) -> str:
        return _renderer().html(self)
