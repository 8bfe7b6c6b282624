"""The whole answer as one file: figures, tables, every assumption and source, releases, and the command."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from advisor import __version__
from advisor.ladder.knowledge import fact
from advisor.render import words
from advisor.render.advice import advice
from advisor.render.blocks import Block, Code, Heading, Paragraph, bullets, entries
from advisor.render.estimate import breakdown
from advisor.render.explore import explore
from advisor.render.figures import figures
from advisor.render.html import body, document, folded, text
from advisor.render.results import verdict_first
from advisor.series import Series
from advisor.values import Advice, Rung

_OF_VERDICT = (Heading, Paragraph, Code)


def advice_report(answer: Advice, series: Series) -> str:
    """Return an answer as a page. Raises MissingExtraError without the extra `report`."""
    first, rest = _split(verdict_first(advice(answer)))
    explored, rules = explore(answer, series)
    parts = [body(first), *figures(answer, series), explored, body(rest), *_rungs(answer), body(_sources(answer)), body(_made_by(answer))]
    return page(f"{answer.model.id} on {answer.gpu.name}", "".join(parts), rules)


def screen_report(title: str, blocks: Iterable[Block]) -> str:
    """Return a screen as a page, its verdict first."""
    return page(title, body(verdict_first(blocks)) + body([Heading("Made by"), entries(_versions({}))]))


def page(title: str, content: str, rules: str = "") -> str:
    """Return a page with its title over it; `rules` as `document` takes them."""
    return document(title, f"<h1>{text(title)}</h1>\n{content}", rules)


def _split(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """The verdict, which comes before the second heading or the first table of names, and what follows."""
    end = next(number for number, block in enumerate(blocks) if number and not isinstance(block, _OF_VERDICT))
    return blocks[:end], blocks[end:]


def _rungs(answer: Advice) -> Iterator[str]:
    """Every rung's plan and its memory by term and phase, folded away but for the one that the reader looks at."""
    yield body([Heading("Rung by rung")])
    for rung in answer.rungs:
        name = f"{rung.plan.method.label}: {words.FIT_SENTENCES[rung.fit]}"
        yield folded(name, body(_rung(rung, answer.n_gpus)), is_open=rung is answer.focus)


def _rung(rung: Rung, n_gpus: int) -> Iterator[Block]:
    yield entries([("plan", words.plan(rung.plan))], "bold")
    yield from breakdown(rung.memory, " per GPU" if n_gpus > 1 else "")


def _sources(answer: Advice) -> Iterator[Block]:
    """What is cited anywhere on the page, and where the card's numbers come from."""
    cited = [name for rung in answer.rungs for name in rung.quality_evidence]
    cited += [*answer.next_evidence, *(name for finding in answer.findings for name in finding.evidence)]
    facts = [fact(name) for name in dict.fromkeys(cited)]
    yield Heading("Sources")
    yield entries([(known.id, f"{known.statement} {known.source} [{known.id}]") for known in facts], "bold")
    gpu, model = answer.gpu, answer.model
    card = [("usable memory", gpu.usable_source), *(("card", source) for source in gpu.sources), ("model", model.source)]
    yield entries(card, "bold")
    if gpu.notes:
        yield bullets(gpu.notes)


def _made_by(answer: Advice) -> Iterator[Block]:
    yield Heading("Made by")
    yield entries(_versions(answer.focus.memory.versions), "bold")


def _versions(priced_for: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield "finetune-advisor", __version__
    yield "Python", platform.python_version()
    yield from ((name, f"{version} (the numbers speak for it)") for name, version in priced_for.items())
