"""`advise explain`: what an id or a word on a screen means."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import completion
from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.options import Json


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="What a screen shows.", show_default=False, autocompletion=completion.explained),
    ] = None,
    json: Json = False,
) -> Answer:
    """Say what a finding, a fact, a memory term, an exit code or a word means, where it stands, and what to do.

    advise explain kbit-upcast

    advise explain C4
    """
    from advisor import explain as room
    from advisor.render import explain as render

    if not words:
        return Answer(screen(render.everything(room.listed())))
    found = room.explain(" ".join(words))
    return Answer(as_json(found) if json else screen(render.explanation(found)))
