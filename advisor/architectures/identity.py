"""What a model is by its config alone, where its type has no tables: kind, class, width, vocabulary and depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advisor.architectures.config import MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, Config
from advisor.architectures.refusals import types_of_transformers
from advisor.values import Head, ModelKind

_HEAD_OF_CLASS = (
    ("ForSequenceClassification", Head.CLASSIFICATION),
    ("ForTokenClassification", Head.TOKENS),
    ("ForMaskedLM", Head.MLM),
    ("Model", Head.EMBEDDING),
)
"""Ends of the class names of transformers, and the output that they put on the body; others score words."""


_POSITIONS = ("max_position_embeddings", "max_target_positions", "max_decoder_position_embeddings", "max_seq_len")
"""Names of how many tokens a model has positions for: most types'; of the text that Whisper and Speech2Text write; of LED's decoder; DBRX's
(transformers 5.23 models/*/configuration_*.py). T5's `n_positions` limits nothing: its positions are relative."""


class Identity(NamedTuple):
    """What `ModelSpec` says of a model beside its tables."""

    kind: ModelKind
    architecture: str
    head: Head
    hidden_size: int
    vocab_size: int
    layers: int
    """Of the decoder of text; of the encoder, where one config holds both."""
    positions: int | None
    sdpa: bool
    flash: bool


def identity_of(config: Config, model_type: str) -> Identity:
    """What config.json says of itself, and the class's defaults where it is silent, as in transformers.

    Raises InvalidInputError, which names the field, where neither says its width, its vocabulary or its depth.
    """
    row = types_of_transformers()[model_type]
    kind = ModelKind(row["kind"])
    architecture = _class_of(config, row)
    text, place = text_config(config, row)
    inner_type = text.text("model_type", default=row.get("text_type", "")) if place else model_type
    fields = _Fields(text, row, types_of_transformers().get(inner_type, {}), place)
    return Identity(
        kind=kind,
        architecture=architecture,
        head=_head_of(architecture, kind),
        hidden_size=fields.count("hidden_size"),
        vocab_size=fields.count("vocab_size", MAX_VOCAB),
        layers=_listed_layers(text) or fields.count("num_hidden_layers", MAX_LAYERS),
        positions=text.optional_count(*_POSITIONS, limit=MAX_POSITIONS),
        sdpa=row.get("sdpa", True),
        flash=row.get("flash", True),
    )


def _class_of(config: Config, row: Mapping[str, Any]) -> str:
    """The class that config.json names, if transformers builds it of that type; else the one that is trained. A decoder's bare body
    counts as a language model."""
    named = config.raw("architectures")
    first = named[0] if isinstance(named, list) and named else None
    trained: str = row["architecture"]
    if row["kind"] != ModelKind.ENCODER.value and first == row["heads"].get(Head.EMBEDDING.value):
        return trained
    return first if isinstance(first, str) and first in row["heads"].values() else trained


def _head_of(architecture: str, kind: ModelKind) -> Head:
    head = next((head for end, head in _HEAD_OF_CLASS if architecture.endswith(end)), Head.LM)
    return Head.LM if head is Head.EMBEDDING and kind is not ModelKind.ENCODER else head


def text_config(config: Config, row: Mapping[str, Any]) -> tuple[Config, bool]:
    """The config of the decoder of text, and whether it is one of its own. Where the file has none, types that took its fields beside the
    others once still do (transformers 5.23 models/qwen2_vl/configuration_qwen2_vl.py), and the class's defaults hold in the rest."""
    inner, place = config, row.get("text_part", "")
    for name in place.split(".") if place else ():
        part = inner.nested(name)
        if not part:
            return (config if row.get("flat") else Config({}, config.where)), False
        inner = Config(part, f"{config.where}: {name}")
    return inner, bool(place)


def _listed_layers(text: Config) -> int:
    """Layers of a config that lists them instead of counting them (transformers 5.23 models/nemotron_h/configuration_nemotron_h.py)."""
    listed = text.raw("layers_block_type")
    return len(listed) if isinstance(listed, list) and text.raw("num_hidden_layers") is None else 0


class _Fields(NamedTuple):
    """Fields of a text config under the type's names for them, and its class's defaults."""

    text: Config
    row: Mapping[str, Any]
    inner: Mapping[str, Any]
    """Row of the text part's own type, empty where that is not known."""
    apart: bool
    """The text part has a config of its own."""

    def count(self, field: str, limit: int | None = None) -> int:
        own = self.inner if self.apart else self.row
        named = own.get("names", {}).get(field)
        default = (own if own else self.row).get("defaults", {}).get(field)
        keys = (field,) if named is None else (named, field)
        return self.text.count(*keys, default=default) if limit is None else self.text.count(*keys, default=default, limit=limit)
