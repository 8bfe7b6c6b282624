"""A model reference becomes a ModelSpec: a path, a name in `profiles/models/`, or a repository on the Hugging Face Hub.

The rule, in order; the first that answers wins, and `resolved_from` says which it was:

1. A path: a config.json, or a directory that holds one. A bare word counts as a path only if such a file is there.
2. A known name: a profile's id, one of its aliases, or an id of the same shape, in full or without the organisation. Case and
   punctuation do not matter, nor does "hf" ("Llama 3.1 70B" is "llama-3.1-70b").
3. The same after dropping words that name a variant of one shape (instruct, chat, it, base, pt, model).
4. A loose name: every word of it is among the words of exactly one profile. Where several fit, none is chosen: the error lists them.
5. org/name: the config.json of that repository, from the local cache if it is there, else over the network.

A name that fits nothing is an error with the nearest known names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from advisor import profiles
from advisor.architectures import check_model_type, spec_from_config
from advisor.config_files import Found, from_hub, from_path, looks_like_path
from advisor.errors import InvalidInputError, UnknownNameError, UnsupportedError
from advisor.json_files import is_folder
from advisor.names import contains, tokens, without_fillers
from advisor.values import ModelSpec

_LONGEST_REFERENCE = 1000
_CANDIDATES = 8
"""Names that an error lists."""

Words = tuple[str, ...]


class ModelRow(NamedTuple):
    """A line of `advise models`: a profile, or a known model that is not covered."""

    id: str
    model_type: str
    aliases: tuple[str, ...]
    same_shape_ids: tuple[str, ...]
    params_published: int | None
    params_published_kind: str
    """exact, derived exact, same-shape sibling, rounded, nominal, or none."""
    published_extra: int
    """What the published count has beside the parameters that transformers builds (buffers, a layer left out); negative for less."""
    params: int | None
    """Parameters of the model that transformers builds, tied tensors once."""
    gated: bool
    source: str
    source_date: str
    """When the source was made, or else when it was transcribed."""
    covered: bool
    config: Mapping[str, object]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases, *self.same_shape_ids)


class _Match(NamedTuple):
    row: ModelRow
    name: str
    """The one of the row's names that matched."""
    how: str


def load_model(reference: str) -> ModelSpec:
    """The model that `reference` names, by the rule above; its `resolved_from` says what it was taken to mean.

    Raises InvalidInputError for a broken config.json, UnknownNameError (with candidates) for a name that fits nothing or several
    models, UnsupportedError with the reason for a model that is not covered.
    """
    text = reference.strip()
    if not text or len(text) > _LONGEST_REFERENCE:
        raise InvalidInputError("model: needs a name (llama-3.1-8b), a Hub id (org/name) or the path of a config.json")
    if looks_like_path(text):
        return _from_file(text, from_path(text))
    match = _known(text)
    if match is not None:
        return _from_profile(text, match)
    if _is_repository(text):
        return _from_file(text, from_hub(text, _nearest(text)))
    if is_folder(Path(text)):
        return _from_file(text, from_path(text))
    raise _unknown(text)


def search_models(text: str = "") -> tuple[ModelRow, ...]:
    """Profiles whose names hold every word of `text`, sorted by id; all of them for an empty text. No spec is built."""
    asked = tokens(text)
    found = [row for row in _covered() if not asked or any(contains(tokens(name), asked) for name in row.names)]
    if not found:
        found = [row for row in _covered() if any(text.lower() in name.lower() for name in row.names)]
    return tuple(sorted(found, key=lambda row: row.id.lower()))


def profile_spec(row: ModelRow, name: str | None = None) -> ModelSpec:
    """The spec of a profile, under its own id or one of the same shape."""
    return spec_from_config(
        row.config,
        id=name or row.id,
        source=row.source,
        source_date=row.source_date,
        params_published=row.params_published,
    )


def _from_profile(text: str, match: _Match) -> ModelSpec:
    row = match.row
    if not row.covered:
        raise _refused(text, row)
    is_id = match.name == row.id or match.name in row.same_shape_ids
    spec = profile_spec(row, match.name if is_id else None)
    shape = f"; same shape as {row.id}" if match.name in row.same_shape_ids else ""
    return spec.model_copy(update={"resolved_from": f"model {text!r} → {spec.id} ({match.how}{shape})"})


def _from_file(text: str, found: Found) -> ModelSpec:
    spec = spec_from_config(found.config, id=found.id, source=found.source, config_json=found.text)
    return spec.model_copy(update={"resolved_from": f"model {text!r} → {found.source}"})


# ------------------------------------------------------------------------------------------------ names


@cache
def _covered() -> tuple[ModelRow, ...]:
    return tuple(_row(row, covered=True) for row in profiles.read("models"))


@cache
def _rows() -> tuple[ModelRow, ...]:
    return (*_covered(), *(_row(row, covered=False) for row in profiles.read("not_covered")))


def _spelt(text: str) -> _Match | None:
    """A covered model under a name as it is spelt, in any case: the quick way in, which needs no tokens. Names are unique."""
    for row in profiles.naming("models", json.dumps(text)):
        known = _row(row, covered=True)
        name = next((name for name in known.names if name.lower() == text.lower()), None)
        if name is not None:
            return _Match(known, name, "known name")
    return None


def _row(row: Mapping[str, object], covered: bool) -> ModelRow:
    return ModelRow(**_row_fields(row), covered=covered)  # type: ignore[arg-type]


def _row_fields(row: Mapping[str, object]) -> dict[str, object]:
    config = row.get("config", {})
    return {
        "id": row["id"],
        "model_type": row.get("model_type") or config["model_type"],  # type: ignore[index]
        "aliases": tuple(row["aliases"]),  # type: ignore[arg-type]
        "same_shape_ids": tuple(row["same_config_ids"]),  # type: ignore[arg-type]
        "params_published": row.get("params_published"),
        "params_published_kind": row.get("params_published_kind", "none"),
        "published_extra": row.get("published_extra", {"params": 0})["params"],  # type: ignore[index]
        "params": row.get("params"),
        "gated": row.get("gated", False),
        "source": row["source"],
        "source_date": row.get("source_date") or row["recorded"],
        "config": config,
    }


@cache
def _index() -> dict[Words, tuple[tuple[ModelRow, str], ...]]:
    """Every name's words → the rows that bear it, and the name."""
    index: dict[Words, list[tuple[ModelRow, str]]] = {}
    for row in _rows():
        for name in row.names:
            for form in {tokens(name), tokens(name.rpartition("/")[2])}:
                entries = index.setdefault(form, [])
                if all(other is not row for other, _ in entries):
                    entries.append((row, name))
    return {words: tuple(entries) for words, entries in index.items()}


def _known(text: str) -> _Match | None:
    spelt = _spelt(text)
    if spelt is not None:
        return spelt
    words = tokens(text)
    plain = words if "/" in text else without_fillers(words)
    for form, how in ((words, "known name"), (plain, "known name, variant words dropped")):
        entries = _index().get(form, ())
        if len(entries) == 1:
            return _Match(*entries[0], how)
        if entries:
            raise _ambiguous(text, [name for _, name in entries])
    if not plain or "/" in text:
        return None
    found = [entry for form, entries in _index().items() if contains(form, plain) for entry in entries]
    ids = dict.fromkeys(row.id for row, _ in found)
    if len(ids) > 1:
        raise _ambiguous(text, list(ids))
    if not found:
        return None
    row, name = next((entry for entry in found if entry[1] == entry[0].id), found[0])
    return _Match(row, name, "the only known model with these words")


def _is_repository(text: str) -> bool:
    organisation, _, name = text.partition("/")
    return bool(organisation and name and "/" not in name and " " not in text)


def _nearest(text: str) -> tuple[str, ...]:
    """Known names spelt like `text`, nearest first, one a model."""
    import difflib

    spelt = {"-".join(words): entries[0] for words, entries in _index().items() if entries[0][0].covered}
    close = difflib.get_close_matches("-".join(tokens(text)), spelt, n=2 * _CANDIDATES, cutoff=0.6)
    nearest: dict[str, str] = {}
    for form in close:
        row, name = spelt[form]
        nearest.setdefault(row.id, next((alias for alias in row.aliases if "-".join(tokens(alias)) == form), name))
    return tuple(nearest.values())[:_CANDIDATES]


def _unknown(text: str) -> UnknownNameError:
    nearest = _nearest(text)
    advice = f"did you mean {', '.join(nearest)}?" if nearest else "`advise models` lists the known ones"
    return UnknownNameError(f"model {text!r} is not known; {advice} A Hub id is org/name, a config.json a path", nearest)


def _refused(text: str, row: ModelRow) -> UnsupportedError:
    """Why a known model is not covered, and covered ones whose names hold the same words."""
    plain = without_fillers(tokens(text))
    near = sorted(other.id for other in _covered() if any(contains(tokens(name), plain) for name in other.names))
    hint = f"; covered and near in name: {', '.join(near[:_CANDIDATES])}" if near else ""
    try:
        check_model_type(row.model_type, row.id)
    except UnsupportedError as error:
        return UnsupportedError(f"{error}{hint}")
    return UnsupportedError(f"{row.id}: its config is not known here{hint}; give the path of its config.json")


def _ambiguous(text: str, ids: list[str]) -> UnknownNameError:
    shown = sorted(ids, key=str.lower)
    more = f" and {len(shown) - _CANDIDATES} more" if len(shown) > _CANDIDATES else ""
    return UnknownNameError(f"model {text!r} fits several: {', '.join(shown[:_CANDIDATES])}{more}; name one of them", tuple(shown))
