"""What a shell may complete: models, cards and the words of options, from the profiles and the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

MOST = 60
"""Judgement: more candidates than a screen holds help nobody."""


def words(kind: type[Enum]) -> Callable[[str], list[str]]:
    """What completes to a word of an enumeration, in any case."""

    def complete(incomplete: str) -> list[str]:
        return _beginning((str(word.value) for word in kind), incomplete)

    return complete


def models(incomplete: str) -> list[str]:
    """Short names of the models that have a profile, and their ids once an organisation is written."""
    from advisor.hub import search_models

    ids = "/" in incomplete
    return _beginning((name for row in search_models() for name in ([row.id] if ids else row.aliases or (row.id,))), incomplete)


def cards(incomplete: str) -> list[str]:
    """Names of the cards, with dashes for spaces: a shell would break them."""
    from advisor.devices import search_gpus

    return _beginning((card.name.lower().replace(" ", "-") for card in search_gpus()), incomplete)


def explained(incomplete: str) -> list[str]:
    """Ids and words that `advise explain` knows."""
    from advisor.explain import names

    return _beginning((name for name in names() if " " not in name), incomplete)


def _beginning(candidates: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in candidates if name.lower().startswith(incomplete.lower())})[:MOST]
