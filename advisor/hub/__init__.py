"""A model reference becomes a ModelSpec: a path, a name in `profiles/models/`, or a repository on the Hugging Face Hub.

The rule, in order; the first that answers wins, and `resolved_from` says which it was:

1. A path: a config.json, or a directory that holds one. A bare word counts as a path only if such a file is there.
2. A known name: a profile's id, one of its aliases, or an id of the same shape, in full or without the organisation. Case and
   punctuation do not matter, nor does "hf" ("Llama 3.1 70B" is "llama-3.1-70b").
3. The same after dropping words that name a variant of one shape (instruct, chat, it, base, pt, model). A size is never dropped.
4. A loose name: every word of it is among the words of exactly one profile. Where several fit, none is chosen: the error lists them.
5. org/name: the config.json of that repository, from the local cache if it is there, else over the network.
6. Rules 2 to 4 without what the end of the name says of the stored weights (-unsloth-bnb-4bit, -AWQ, -FP8). Of org/name that cannot be
   read: rules 2 and 3 without that, and without the organisation. What was left out is said.

A name that fits nothing is an error with the nearest known names.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from advisor.architectures import check_model_type, spec_from_config
from advisor.bounded import is_folder
from advisor.checkpoints import in_16_bit, usual_format
from advisor.config_files import Found, from_hub, from_path, looks_like_path
from advisor.errors import InvalidInputError, MissingExtraError, UnknownNameError, UnsupportedError
from advisor.hub.matching import CANDIDATES, Match, by_bare_name, known_model
from advisor.hub.rows import ModelRow, covered_rows, rows_by_words
from advisor.names import contains, format_of_name, tokens, without_fillers, without_format
from advisor.values import ModelSpec

_LONGEST_REFERENCE = 1000

__all__ = ["ModelRow", "load_known", "load_model", "model_of_folder", "profile_spec", "search_models"]


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
    match = known_model(text)
    if match is not None:
        return _from_profile(text, match)
    if _is_repository(text):
        return _from_repository(text)
    if is_folder(Path(text)):
        return _from_file(text, from_path(text))
    match = known_model(without_format(text)) if without_format(text) != text else None
    if match is not None:
        return _from_profile(text, match)
    raise _unknown(text)


def load_known(name: str) -> ModelSpec:
    """The model of a profile that a name means: rules 2 to 4 and 6 above. No file of the caller's is read, and no network asked.

    Raises UnknownNameError (with candidates) for a name of none or of several, UnsupportedError for a model that needs more than that.
    """
    text = name.strip()
    if not text or len(text) > _LONGEST_REFERENCE:
        raise InvalidInputError("model: needs the name of a known model, such as llama-3.1-8b")
    match = known_model(text) or (known_model(without_format(text)) if without_format(text) != text else None)
    match = match or (by_bare_name(text) if _is_repository(text) else None)
    if match is None:
        raise _unknown(text, "Only models that have a profile are known here; `advise --model` takes Hub ids and files, too")
    if not match.row.covered:
        raise _refused(text, match.row, _why_not(match.row) or f"{match.row.id}: its config is not known here")
    return _from_profile(text, match)


def model_of_folder(path: str) -> ModelSpec | None:
    """The known model whose name a path's last folder bears, words for variants apart; None for any other. Nothing is looked at there.

    A folder of the Hub's cache (`models--org--name/snapshots/…`) bears its repository's name.
    """
    cached = _CACHED.search(path)
    folder = cached[1] if cached else re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    match = by_bare_name(f"_/{folder}")
    if match is None or not match.row.covered:
        return None
    found = _from_profile(folder, match._replace(how="by the name of its folder, in which nothing was read"))
    return found.model_copy(update={"resolved_from": found.resolved_from.replace(repr(folder), repr(path), 1)})


_CACHED = re.compile(r"models--[^/\\]+?--([^/\\]+)[/\\]")
"""huggingface_hub file_download.py repo_folder_name: the folder of a repository in the Hub's cache."""


def search_models(text: str = "") -> tuple[ModelRow, ...]:
    """Profiles whose names hold every word of `text`, sorted by id; all of them for an empty text. No spec is built."""
    asked = tokens(text)
    found = [row for row in covered_rows() if not asked or any(contains(tokens(name), asked) for name in row.names)]
    if not found:
        found = [row for row in covered_rows() if any(text.lower() in name.lower() for name in row.names)]
    return tuple(sorted(found, key=lambda row: row.id.lower()))


def profile_spec(row: ModelRow, name: str | None = None) -> ModelSpec:
    """The spec of a profile, under its own id or one of the same shape."""
    spec = spec_from_config(
        row.config,
        id=name or row.id,
        source=row.source,
        source_date=row.source_date,
        params_published=row.params_published,
    )
    return spec.model_copy(update={"params_built": row.params})


def _from_profile(text: str, match: Match) -> ModelSpec:
    row = match.row
    if not row.covered:
        return _known_by_name(text, row)
    is_id = match.name == row.id or match.name in row.same_shape_ids
    spec = profile_spec(row, match.name if is_id else None)
    shape = f"; same shape as {row.id}" if match.name in row.same_shape_ids else ""
    resolved = f"model {text!r} → {spec.id} ({match.how}{shape}{_of_weights(text, spec.id)})"
    return as_named(spec, text).model_copy(update={"resolved_from": resolved})


def as_named(spec: ModelSpec, name: str) -> ModelSpec:
    """The model with its weights stored as the checkpoint's name says, in the usual layout. A Hub id is kept: it is what is loaded."""
    stored = format_of_name(name)
    if stored is not None:
        dynamic = "; Unsloth's dynamic ones leave some matrices in 16 bit, uncounted here" if "unsloth-bnb" in name.lower() else ""
        made = usual_format(stored.method, stored.bits, f"by its name, in the usual layout{dynamic}")
        return spec.model_copy(update={"checkpoint_format": made, **({"id": name} if _is_repository(name) else {})})
    return in_16_bit(spec) if _IN_16_BIT.search(name) else spec


_IN_16_BIT = re.compile(r"[-_. ](?:bf16|fp16|16bit|dequantized)$", re.IGNORECASE)
"""Ends of names of 16-bit copies of a model that is published otherwise (gpt-oss-20b-BF16)."""


def _of_weights(text: str, found: str) -> str:
    """What the end of a name says of the stored weights, where the model that was found does not say it."""
    stored = format_of_name(text)
    if stored is not None:
        return f"; its weights as {stored.label}, by the name"
    end = text[len(without_format(text)) :]
    return f"; without {end!r} at the end" if end and not found.lower().endswith(end.lower()) else ""


def _from_repository(text: str) -> ModelSpec:
    """A repository by its config.json; where that cannot be had, by the name of a known model of that shape."""
    try:
        return _from_file(text, from_hub(text, partial(_nearest, text)))
    except (UnknownNameError, MissingExtraError):
        match = by_bare_name(text)
        if match is None:
            raise
        return _from_profile(text, match)


def _from_file(text: str, found: Found) -> ModelSpec:
    spec = spec_from_config(found.config, id=found.id, source=found.source, config_json=found.text)
    return spec.model_copy(update={"resolved_from": f"model {text!r} → {found.source}"})


def _is_repository(text: str) -> bool:
    organisation, _, name = text.partition("/")
    return bool(organisation and name and "/" not in name and " " not in text)


def _nearest(text: str) -> tuple[str, ...]:
    """Known names spelt like `text`, nearest first, one a model."""
    import difflib

    spelt = {"-".join(words): entries[0] for words, entries in rows_by_words().items() if entries[0][0].covered}
    close = difflib.get_close_matches("-".join(tokens(text)), spelt, n=2 * CANDIDATES, cutoff=0.6)
    nearest: dict[str, str] = {}
    for form in close:
        row, name = spelt[form]
        nearest.setdefault(row.id, next((alias for alias in row.aliases if "-".join(tokens(alias)) == form), name))
    return tuple(nearest.values())[:CANDIDATES]


def _unknown(text: str, otherwise: str = "A Hub id is org/name, a config.json a path") -> UnknownNameError:
    nearest = _nearest(text)
    advice = f"did you mean {', '.join(nearest)}?" if nearest else "`advise models` lists the known ones."
    return UnknownNameError(f"model {text!r} is not known; {advice} {otherwise}", nearest)


def _known_by_name(text: str, row: ModelRow) -> ModelSpec:
    """A model whose config is not in its profile: by that of its repository, where its type is run and the repository can be read."""
    why = _why_not(row)
    if not why and _is_repository(text):
        try:
            return _from_file(text, from_hub(text))
        except (UnknownNameError, MissingExtraError):
            pass
    raise _refused(text, row, why or f"{row.id}: its config is not known here; give the path of its config.json")


def _why_not(row: ModelRow) -> str:
    """Why a model is not run, whatever its config says; empty where it is."""
    if row.why:
        return f"{row.id}: {row.why}"
    try:
        check_model_type(row.model_type, row.id)
    except UnsupportedError as error:
        return str(error)
    return ""


def _refused(text: str, row: ModelRow, why: str) -> UnsupportedError:
    """The reason, and covered models whose names hold the same words."""
    plain = without_fillers(tokens(text))
    near = sorted(other.id for other in covered_rows() if any(contains(tokens(name), plain) for name in other.names))
    hint = f"; covered and near in name: {', '.join(near[:CANDIDATES])}" if near else ""
    return UnsupportedError(f"{why}{hint}")
