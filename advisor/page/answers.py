"""The answer to a question as HTML, and as files to keep: what the processes of the page run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from html import escape
from typing import NamedTuple

from advisor import api
from advisor.comparing import compare
from advisor.configs.emit import WRITTEN, emitted
from advisor.errors import AdvisorError, InvalidInputError
from advisor.hub import load_known
from advisor.inputs import as_gpu, as_request
from advisor.page.question import Question
from advisor.render.advice import advice, verdict
from advisor.render.blocks import Block, Code, Heading
from advisor.render.comparison import comparison
from advisor.render.html import body, text
from advisor.render.results import verdict_first, whole_bar
from advisor.render.summary import summary
from advisor.shown import capped, shown
from advisor.values import Advice, GpuSpec, ModelSpec, Stack

LONGEST_ERROR = 600
"""Characters of an error, as on the command line."""
OK, REFUSED = 200, 422
"""RFC 9110, 15.3.1 and 15.5.21."""
FILES = {"json": "application/json", "html": "text/html", **{stack.value: "text/plain" for stack in WRITTEN}}
"""What can be kept of an answer, and what each is: the value itself, the report, and the plan as a framework's own file."""


class Reply(NamedTuple):
    """What the page shows: the verdict, or what is wrong, and what stands below it. Both are HTML."""

    status: int
    said: str
    content: str = ""


class File(NamedTuple):
    """A file to keep, or, with another status than OK, one line on what is wrong."""

    status: int
    text: str
    name: str = ""


def reply(question: Question) -> Reply:
    """Answer a question as HTML; what is wrong with it is one line."""
    try:
        return _DRAWN[question.show](question)
    except AdvisorError as error:
        return refusal(str(error))


def refusal(message: str, status: int = REFUSED) -> Reply:
    """One line on what is wrong."""
    return Reply(status, f'<p class="red"><strong>error:</strong> {text(_one_line(message))}</p>')


def file(question: Question, kind: str) -> File:
    """The answer as a file of a kind of FILES; what is wrong is its text then."""
    try:
        return File(OK, _file_text(question, kind), _file_name(question, kind))
    except AdvisorError as error:
        return File(REFUSED, f"error: {shown(_one_line(str(error)))}\n")


def _one_line(message: str) -> str:
    return capped(" ".join(message.split()), LONGEST_ERROR)


# ------------------------------------------------------------------------------------------------------ what was asked


def _model(question: Question) -> ModelSpec:
    """A model with a profile: the page reads no path and asks no network."""
    return _known(question.model)


@lru_cache(maxsize=64)
def _known(name: str) -> ModelSpec:
    """The same value each time: what is kept of a model's memory is found without comparing all of it."""
    return load_known(name)


def _card(question: Question) -> GpuSpec:
    return as_gpu(_named_card(question.gpu))


def _named_card(name: str) -> str:
    if not name:
        raise InvalidInputError('gpu: needs a card ("rtx 4090"), a cloud\'s machine ("g5.12xlarge"), a size ("80GB"), or local')
    return name


def _advice(question: Question) -> Advice:
    """As `advise` answers it, without recording a step that nobody has recorded: that takes minutes."""
    spec, card = _model(question), _card(question)
    return api.advised(spec, card, as_request(question.given(), card), (question.model, question.gpu, True), record=False)


# ------------------------------------------------------------------------------------------------------ views


def _answer(question: Question) -> Reply:
    answer = _advice(question)
    return _told(answer, question, _below_verdict(answer, summary(answer)))


def _terms(question: Question) -> Reply:
    answer = _advice(question)
    blocks = (block for rung in answer.rungs for block in (Heading(rung.plan.method.label), *whole_bar(rung)))
    return _told(answer, question, blocks)


def _all(question: Question) -> Reply:
    answer = _advice(question)
    return _told(answer, question, _below_verdict(answer, advice(answer)))


def _below_verdict(answer: Advice, screen: Iterable[Block]) -> list[Block]:
    """The screen without its verdict, which the page shows above everything."""
    said = [*verdict(answer)]
    return [block for block in screen if block not in said and block != Heading("Verdict")]


def _figures(question: Question) -> Reply:
    from advisor.render.figures import figures
    from advisor.series import series_of

    model = _model(question)
    answer = _advice(question)
    return _told(answer, question, (), *figures(answer, series_of(answer, model)))


def _cards(question: Question) -> Reply:
    found = compare([_model(question)], [as_gpu(card) for card in question.cards], record=False, **question.given())
    first, *rest = verdict_first(comparison(found))
    return Reply(OK, body([first]), body([*rest, *_again(question.command)]))


def _files(question: Question) -> Reply:
    answer = _advice(question)
    code: list[Block] = [Heading("The plan as Python"), Code(answer.snippet, "python")] if answer.snippet else []
    return _told(answer, question, code, _links(question, answer.chosen is not None))


_DRAWN: dict[str, Callable[[Question], Reply]] = {
    "answer": _answer,
    "terms": _terms,
    "figures": _figures,
    "cards": _cards,
    "all": _all,
    "files": _files,
}


def _told(answer: Advice, question: Question, blocks: Iterable[Block], *more: str) -> Reply:
    """The verdict, then what is shown, then how to ask the same again."""
    said = next(verdict(answer))
    return Reply(OK, body([said]), f"{''.join(more)}{body(blocks)}{body(_again(question.command, answer.command))}")


def _again(question: str, plan: str = "") -> Iterator[Block]:
    """The commands of the question, and of the plan that it led to."""
    yield Heading("In a terminal")
    yield Code(f"# this question\n{question}\n# the plan of the verdict alone\n{plan}" if plan else question)


# ------------------------------------------------------------------------------------------------------ files


def _links(question: Question, fits: bool) -> str:
    """Links to what can be kept; the frameworks' own files where there is a plan to write."""
    names = {"html": "The report: one file, no network", "json": "The answer as JSON"}
    names |= {stack.value: f"The plan for {stack.value}" for stack in WRITTEN if fits}
    rows = "".join(f'<li><a href="/file/{kind}?{escape(question.query)}" download>{text(name)}</a></li>\n' for kind, name in names.items())
    again = f'<li><a href="/?{escape(question.query)}">This page, with this question</a></li>\n'
    return f'<ul class="files">\n{rows}{again}</ul>\n'


def _file_text(question: Question, kind: str) -> str:
    if kind == "json":
        return f"{_advice(question).model_dump_json(indent=2)}\n"
    if kind == "html":
        return _report(question)
    options = {name: value for name, value in question.given().items() if name != "stack"}
    written = emitted(_model(question), _card(question), Stack(kind), options)
    if written.advice.chosen is None:
        raise InvalidInputError(f"there is no plan to write: {written.advice.verdict.sentence}")
    return written.text


def _report(question: Question) -> str:
    from advisor.render.report import advice_report
    from advisor.series import series_of

    model, answer = _model(question), _advice(question)
    return advice_report(answer, series_of(answer, model))


def _file_name(question: Question, kind: str) -> str:
    """A name that is safe in a header: the model's last part, in plain letters."""
    last = _model(question).id.rpartition("/")[2]
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in last).strip("-").lower()
    ending = {"json": ".json", "html": ".html", Stack.HF.value: ".py"}.get(kind, ".yaml")
    return f"{plain}{'' if kind in ('json', 'html') else f'-{kind}'}{ending}"
