"""What an id or a word on a screen means: findings, facts, memory terms, phases, gates, exit codes, and a glossary."""

from __future__ import annotations

from collections.abc import Iterator

from advisor import profiles
from advisor.errors import UnknownNameError
from advisor.ladder.knowledge import Fact, fact, sources
from advisor.profiles.explanations import ExplanationRow
from advisor.refusals import did_you_mean
from advisor.values.vocabulary import Value


class Explanation(Value):
    """One meaning of a word, with the facts that it stands on."""

    kind: str
    id: str
    meaning: str
    do: str = ""
    source: str = ""
    url: str = ""
    conditions: str = ""
    """Of a fact: under which it was found, what is uncertain about it, and how sure it is."""
    facts: tuple[Explanation, ...] = ()


def explain(name: str) -> tuple[Explanation, ...]:
    """Return every meaning of `name`, in any case and punctuation.

    Raises UnknownNameError with the nearest word for one that no screen shows.
    """
    asked = _plain(name)
    found = [row for row in _rows() if asked in map(_plain, (row.id, *row.also))]
    facts = [known for known in sources() if _plain(known) == asked]
    if not found and not facts:
        near = did_you_mean(name, names())
        raise UnknownNameError(f"there is nothing to explain by the name {name!r}{near}; `advise explain` lists what there is")
    return (*map(_explained, found), *(_of_fact(fact(known)) for known in facts))


def names() -> tuple[str, ...]:
    """Return everything that can be explained, by its own name and the others."""
    return (*(word for row in _rows() for word in (row.id, *row.also)), *sources())


def listed() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the ids of each kind."""
    kinds = dict.fromkeys(row.kind for row in _rows())
    yield from ((kind, tuple(row.id for row in _rows() if row.kind == kind)) for kind in kinds)
    yield "fact", tuple(sources())


def _rows() -> tuple[ExplanationRow, ...]:
    return profiles.rows("explanations", ExplanationRow)


def _explained(row: ExplanationRow) -> Explanation:
    facts = tuple(_of_fact(fact(name)) for name in row.evidence)
    return Explanation(kind=row.kind, id=row.id, meaning=row.meaning, do=row.do, source=row.source, facts=facts)


def _of_fact(known: Fact) -> Explanation:
    parts = (known.conditions, known.caveat, f"confidence {known.confidence}")
    conditions = "; ".join(filter(None, parts))
    return Explanation(kind="fact", id=known.id, meaning=known.statement, source=known.source, url=known.url, conditions=conditions)


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())
