"""Which known model a name means, and by which rule (`advisor.hub` lists them)."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from advisor.errors import UnknownNameError
from advisor.hub.rows import ModelRow, Words, rows_by_words, spelt_row
from advisor.names import contains, keeps_size, tokens, without_fillers, without_format

CANDIDATES = 8
"""Names that an error lists."""


class Match(NamedTuple):
    row: ModelRow
    name: str
    """The one of the row's names that matched."""
    how: str


def known_model(text: str) -> Match | None:
    """The model that a name means. Raises UnknownNameError, which lists them, where it fits several."""
    spelt = spelt_row(text)
    if spelt is not None:
        return Match(*spelt, "known name")
    words = tokens(text)
    for form, how in _forms(text):
        entries = _bearing(form, words)
        if len(entries) == 1:
            return Match(*entries[0], how)
        if entries:
            raise _ambiguous(text, [name for _, name in entries])
    plain = without_fillers(words)
    if not plain or "/" in text:
        return None
    forms = ((form, entries) for form, entries in rows_by_words().items() if contains(form, plain) and keeps_size(words, form))
    found = [entry for form, entries in forms for entry in entries if _may_be_meant(plain, form, *entry)]
    ids = dict.fromkeys(row.id for row, _ in found)
    if len(ids) > 1:
        begin = {row.id for row, _ in found if tokens(row.id.rpartition("/")[2])[: len(plain)] == plain}
        raise _ambiguous(text, list(ids), begin)
    if not found:
        return None
    row, name = next((entry for entry in found if entry[1] == entry[0].id), found[0])
    return Match(row, name, "the only known model with these words")


def _may_be_meant(asked: Words, form: Words, row: ModelRow, name: str) -> bool:
    """Whether loose words can mean a name: of repositories of the same shape, which others name as they like ("…-GPT-4o-human-error"),
    they must be how it begins."""
    return name in (row.id, *row.aliases) or form[: len(asked)] == asked


def _exactly(text: str) -> Match | None:
    """The one model that bears a name, words for variants apart; no loose name, and nothing where it fits several."""
    spelt = spelt_row(text)
    if spelt is not None:
        return Match(*spelt, "known name")
    found = ((_bearing(form, tokens(text)), how) for form, how in _forms(text))
    return next((Match(*entries[0], how) for entries, how in found if len(entries) == 1), None)


def _forms(text: str) -> tuple[tuple[Words, str], ...]:
    """The words of a name, then without those for variants of one shape; an organisation's name is not taken apart."""
    words = tokens(text)
    return (words, "known name"), (words if "/" in text else without_fillers(words), "known name, variant words dropped")


def _bearing(form: Words, asked: Words) -> tuple[tuple[ModelRow, str], ...]:
    """Models that bear a name of exactly those words, of the size that was asked for."""
    return rows_by_words().get(form, ()) if keeps_size(asked, form) else ()


def by_bare_name(repository: str) -> Match | None:
    """The known model of that name without what it says of stored weights, else without the organisation, else without both."""
    bare = repository.partition("/")[2]
    dropped = "by the name without the organisation, as that repository cannot be read here"
    for name, how in ((without_format(repository), "known name"), (bare, dropped), (without_format(bare), dropped)):
        match = _exactly(name)
        if match is not None:
            return match._replace(how=how)
    return None


def _ambiguous(text: str, ids: list[str], first: Container[str] = ()) -> UnknownNameError:
    """Lists them, those first that begin with what was asked."""
    shown = sorted(ids, key=lambda name: (name not in first, name.lower()))
    more = f" and {len(shown) - CANDIDATES} more" if len(shown) > CANDIDATES else ""
    return UnknownNameError(f"model {text!r} fits several: {', '.join(shown[:CANDIDATES])}{more}; name one of them", tuple(shown))
