"""`advise ui`: the page in a browser of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor.cli.answer import Answer
from advisor.cli.options import SWITCHES, TEXT_OPTIONS, WORDS, GpuName, ModelNameOrNone, panel_of, takes_plan_options

if TYPE_CHECKING:
    from advisor.page.question import Field


@takes_plan_options
def ui(
    options: dict[str, Any],
    model: ModelNameOrNone = None,
    gpu: GpuName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any that is free.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")] = False,
) -> Answer:
    """Ask in a page of your browser, which answers every change: on this machine alone, until Ctrl-C.

    advise ui

    advise ui --model llama-3.1-8b --gpu "rtx 4090" --no-browser

    What is given is what the page begins with. Needs the extra `ui`.
    """
    from advisor.page.question import NO, YES, Question
    from advisor.page.serve import serve

    switched = {True: YES, False: NO}
    given = tuple((name, switched.get(value, value)) for name, value in options.items())
    first = Question()._replace(options=given, **{name: text for name, text in {"model": model, "gpu": gpu}.items() if text})
    with suppress(KeyboardInterrupt):
        serve(tuple(_fields()), first, port, partial(_ready, browser=not no_browser))
    return Answer("")


def _ready(address: str, browser: bool) -> None:
    sys.stdout.write(f"{address}\nThe page is open to this machine alone; Ctrl-C ends it.\n")
    sys.stdout.flush()
    if browser:
        from webbrowser import open_new_tab

        open_new_tab(address)


def _fields() -> Iterator[Field]:
    """The options of a plan as fields of a form, in the order of the help."""
    from advisor.page.question import SWITCH, Field

    for name, (hint, help) in TEXT_OPTIONS.items():
        words = tuple(str(word.value) for word in WORDS[name]) if name in WORDS else ()
        yield Field(name, help, panel_of(name), "" if words else hint, words)
    for name, help in SWITCHES.items():
        yield Field(name, help, panel_of(name), choices=SWITCH)
