"""The page's addresses: the page itself, the answer to a change, a file to keep, and what lies beside this module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from advisor.devices import search_gpus
from advisor.errors import InvalidInputError
from advisor.hub import search_models
from advisor.page.answers import FILES, OK, File, Reply, file, refusal, reply
from advisor.page.pool import BusyError, Pool
from advisor.page.question import VIEWS, Field, Question, read_question
from advisor.render.style import STYLE

BAD, ABSENT, BUSY, BUG = 400, 404, 429, 500
"""RFC 9110, 15.5.1, 15.5.5 and 15.6.1, and RFC 6585, 4."""
FIRST = ("method", "rank", "seq_len", "batch_size", "gpus", "dataset_tokens")
"""Options that stand open on the page; the others are folded away. Judgement: what people change most."""
KINDS = {"page.css": "text/css", "htmx.min.js": "text/javascript", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""What lies in `static` and is handed out, by name."""


class Page(NamedTuple):
    """The page of one run: the fields of its form, and who answers."""

    fields: tuple[Field, ...]
    pool: Pool

    def app(self) -> Starlette:
        """Return the application, which `advisor.page.door` stands before."""
        routes = [
            Route("/", self.whole),
            Route("/answer", self.answer),
            Route("/file/{kind}", self.file),
            *(Route(f"/{name}", _static(name, kind)) for name, kind in KINDS.items()),
        ]
        app = Starlette(routes=routes, exception_handlers={ABSENT: _absent, Exception: _bug})
        app.router.redirect_slashes = False
        return app

    async def whole(self, request: Request) -> Response:
        """The page with its answer, for who opens it and for browsers without scripts."""
        question, told = await self._told(request)
        return HTMLResponse(_drawn(question, told, self.fields), told.status)

    async def answer(self, request: Request) -> Response:
        """What changes on the page when the form does, and the address that would open it so."""
        question, told = await self._told(request)
        said = f'<div id="said" role="status" hx-swap-oob="innerHTML">{told.said}</div>'
        return HTMLResponse(said + told.content, told.status, {"HX-Replace-Url": f"/?{question.query}"} if question else None)

    async def file(self, request: Request) -> Response:
        """The answer as a file to keep."""
        kind = request.path_params["kind"]
        if kind not in FILES:
            return await _absent(request, None)
        try:
            question = self._question(request)
            made: File = await self.pool.ask(file, question, kind)
        except InvalidInputError as error:
            made = File(BAD, f"error: {error}\n")
        except BusyError as error:
            made = File(BUSY, f"error: {error}\n")
        if made.status != OK:
            return PlainTextResponse(made.text, made.status)
        return Response(made.text, media_type=FILES[kind], headers={"Content-Disposition": f'attachment; filename="{made.name}"'})

    def _question(self, request: Request) -> Question:
        return read_question(request.query_params.multi_items(), self.fields)

    async def _told(self, request: Request) -> tuple[Question | None, Reply]:
        """What was asked, None where that cannot be read, and what is answered."""
        try:
            question = self._question(request)
        except InvalidInputError as error:
            return None, refusal(str(error), BAD)
        try:
            return question, await self.pool.ask(reply, question)
        except BusyError as error:
            return question, refusal(str(error), BUSY)


def _static(name: str, kind: str) -> Response:
    """What lies in `static` under a name, read once, when the page is made."""
    return Response(_asset(name), media_type=kind)


@cache
def _asset(name: str) -> str:
    own = (files("advisor.page") / "static" / name).read_text(encoding="utf-8")
    return f"{STYLE}{own}" if name == "page.css" else own


async def _bug(_: Request, __: Exception) -> Response:
    """Starlette raises the exception again, which the server then writes to the terminal."""
    return PlainTextResponse("error: this is a bug of finetune-advisor, not of your input; please report the lines in the terminal\n", BUG)


async def _absent(_: Request, __: Exception | None) -> Response:
    return PlainTextResponse("error: there is no such address here\n", ABSENT)


# ------------------------------------------------------------------------------------------------------ the form


@cache
def _template() -> Template:
    loader = PackageLoader("advisor.page")
    settings = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=loader, **settings).get_template("page.html")


def _drawn(question: Question | None, told: Reply, fields: Sequence[Field]) -> str:
    asked = question or Question()
    page: str = _template().render(
        question=asked,
        given=dict(asked.options),
        views=VIEWS,
        first=[field for field in fields if field.name in FIRST],
        panels=_by_panel(field for field in fields if field.name not in FIRST),
        models=_model_names(),
        cards=_card_names(),
        said=Markup(told.said),
        content=Markup(told.content),
    )
    return page


def _by_panel(fields: Iterable[Field]) -> Mapping[str, list[Field]]:
    panels: dict[str, list[Field]] = {}
    for field in fields:
        panels.setdefault(field.panel, []).append(field)
    return panels


@cache
def _model_names() -> tuple[str, ...]:
    return tuple(row.id for row in search_models())


@cache
def _card_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(card.name for card in search_gpus()))
