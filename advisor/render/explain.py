"""What a word on a screen means, what it stands on, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from advisor.explain import Explanation
from advisor.render.blocks import BLANK, Block, Heading, entries, paragraph


def explanation(meanings: Sequence[Explanation]) -> Iterator[Block]:
    """Every meaning of a word, one after the other."""
    for number, meaning in enumerate(meanings):
        if number:
            yield BLANK
        yield paragraph(f"{meaning.id} ({meaning.kind})", "bold")
        yield paragraph(meaning.meaning)
        rows = [*_rows(meaning), ("do", meaning.do)]
        yield entries([(label, text) for label, text in rows if text], "bold")
        for fact in meaning.facts:
            yield Heading(f"{fact.id}: where it stands")
            yield paragraph(fact.meaning)
            yield entries([(label, text) for label, text in _rows(fact) if text], "bold")


def _rows(meaning: Explanation) -> Iterator[tuple[str, str]]:
    yield "holds for", meaning.conditions
    yield "source", meaning.source
    yield "at", meaning.url


def everything(kinds: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Block]:
    """What can be asked for."""
    yield entries([(kind, ", ".join(ids)) for kind, ids in kinds], "bold")
    yield BLANK
    yield paragraph("advise explain NAME says what it means, where it stands, and what to do.")
