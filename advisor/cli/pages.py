"""`--html FILE`: the answer of a command as a page beside what it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from advisor.cli.answer import Answer
from advisor.cli.files import page_place, write_page
from advisor.errors import InvalidInputError
from advisor.shown import shown as visible

if TYPE_CHECKING:
    from advisor.render.blocks import Block
    from advisor.values import Advice


def refuse_page(html: str | None, several: bool) -> None:
    """Raise InvalidInputError where a page was asked for and there are several answers."""
    if html is not None and several:
        raise InvalidInputError("--html is of one answer for one card: give one --gpu, and neither --calibrate nor a dry run")


def with_report(html: str | None, model: str, ask: Callable[[], Advice], shown: Callable[[Advice], str], *, printed: bool) -> Answer:
    """Ask, and write the answer as a page where `--html` says so; `printed` says whether the screen may name the file.

    What keeps the page from being written is refused before anything is asked.
    """
    if html is None:
        answer = ask()
        return Answer(shown(answer), answer.exit_code)
    from advisor.inputs import as_model
    from advisor.render import figures
    from advisor.render.report import advice_report
    from advisor.series import series_of

    path = page_place(html)
    figures.need()
    answer = ask()
    write_page(path, advice_report(answer, series_of(answer, as_model(model))), html)
    last = f"report: {visible(str(path))}\n" if printed else ""
    return Answer(shown(answer) + last, answer.exit_code, done=f"{path} is written")


def with_page(html: str | None, title: str, blocks: Callable[[], Iterable[Block]], answer: Answer) -> Answer:
    """Write the screen of a command as a page where `--html` says so, and hand on what is printed."""
    if html is None:
        return answer
    from advisor.render.report import screen_report

    path = page_place(html)
    write_page(path, screen_report(title, blocks()), html)
    return answer._replace(done=f"{path} is written")
