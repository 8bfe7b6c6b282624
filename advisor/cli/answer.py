"""What a command hands back: a text for stdout and an exit code. Nothing else prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.render.look import look_of_stdout
from advisor.shown import json_shown
from advisor.values import Fit, Value

if TYPE_CHECKING:
    from advisor.render.blocks import Block


class Answer(NamedTuple):
    """What goes to stdout, and the exit code."""

    text: str
    exit_code: int = 0
    long: bool = False
    """Through a pager, where a terminal cannot show it at once."""
    done: str = ""
    """What the command has stored or written, said where printing fails: a retry would do it twice."""
    problem: str = ""
    """What is wrong with the input although there is an answer: an error beside it, with the exit code of one."""


def screen(blocks: Iterable[Block]) -> str:
    """The blocks drawn for this terminal."""
    from advisor.render.terminal import draw

    return draw(blocks, look_of_stdout())


def as_json(value: Value | Sequence[Any]) -> str:
    """The value itself, with its computed fields; the schema is versioned by its `schema_version`."""
    data = _plain(value) if isinstance(value, Value) else [_plain(entry) for entry in value]
    return json_shown(json.dumps(data, indent=2, ensure_ascii=not look_of_stdout().unicode)) + "\n"


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = value.model_dump(mode="json") if isinstance(value, Value) else value._asdict()
    return plain


def exit_code_of(fit: Fit | None) -> int:
    """0 fits, or there is no card to fit · 1 does not fit · 3 cannot tell."""
    return {None: 0, Fit.FITS: 0, Fit.DOES_NOT_FIT: 1, Fit.UNCERTAIN: 3}[fit]
