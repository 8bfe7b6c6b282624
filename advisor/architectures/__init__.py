"""From a config.json to the model, without torch: `spec_from_config`.

A family's peculiarities live in one module here; what differs only by a trait is a row of a table. A type without tables is known by what
its config says of itself; what transformers does not build for training on text is refused with the reason, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.architectures.config import Config
from advisor.architectures.dropout import drops_embedding, with_dropout
from advisor.architectures.heads import LABEL_MODULES, headed, heads_of, labels_of, named_head, outputs_of
from advisor.architectures.identity import Identity, identity_of
from advisor.architectures.refusals import check_covered, types_of_transformers
from advisor.architectures.table import SUPPORTED, builder
from advisor.checkpoints import format_of
from advisor.values import CheckpointFormat, Head, ModelShape, ModelSpec

__all__ = ["LABEL_MODULES", "SUPPORTED", "check_model_type", "headed", "kind_of_type", "spec_from_config"]


def kind_of_type(model_type: str) -> str:
    """What a model of the type takes and gives, a `ModelKind`; empty where transformers does not train it on text."""
    return str(types_of_transformers().get(model_type, {}).get("kind", ""))


def check_model_type(model_type: str, where: str) -> None:
    """Raises UnsupportedError, with the reason, for a model type that is not covered."""
    check_covered(Config({"model_type": model_type}, where), SUPPORTED)


def spec_from_config(
    config: Mapping[str, object],
    *,
    id: str,
    source: str,
    source_date: str | None = None,
    params_published: int | None = None,
    config_json: str | None = None,
) -> ModelSpec:
    """The model that transformers 5.23 would build from this config.json: parameter for parameter where its type has tables, else by
    kind, class, width, vocabulary and depth.

    `config_json` is the file's own text, where there is one. Raises InvalidInputError, whose message names the field, for a config that
    makes no model, and UnsupportedError, with the reason, for a model that is not covered.
    """
    reader = Config(config, id)
    model_type = check_covered(reader, SUPPORTED)
    has_tables = model_type in SUPPORTED
    identity, tables = _with_tables(reader, model_type) if has_tables else (identity_of(reader, model_type), None)
    labels = labels_of(reader) if identity.head in (Head.CLASSIFICATION, Head.TOKENS) else None
    return ModelSpec(
        id=id,
        model_type=model_type,
        architecture=identity.architecture,
        kind=identity.kind,
        hidden_size=identity.hidden_size,
        vocab_size=identity.vocab_size,
        layers=identity.layers,
        tables=tables,
        head=identity.head,
        labels=labels,
        max_position_tokens=identity.positions,
        sdpa=identity.sdpa,
        flash=identity.flash,
        checkpoint_format=_stored(reader),
        config_json=json.dumps(config) if config_json is None else config_json,
        source=source,
        source_date=source_date,
        params_published=params_published,
        notes=_notes(reader, identity.architecture),
    )


def _with_tables(config: Config, model_type: str) -> tuple[Identity, ModelShape]:
    """A model of a type that has a builder, and its dimensions layer by layer."""
    shape = builder(model_type)(config)
    heads = heads_of(model_type, shape)
    head = named_head(config, heads)
    labels = labels_of(config) if head.head in (Head.CLASSIFICATION, Head.TOKENS) else 0
    trunk = shape.trunk
    tables = ModelShape(
        blocks=with_dropout(config, model_type, shape),
        embedding_params=shape.embedding_params,
        head_params=head.params_per_output * outputs_of(head, trunk.vocab, labels),
        head_bias=head.bias,
        tied_embeddings=head.tied,
        other_params=head.other_params,
        final_norm=shape.final_norm,
        heads=heads,
        scales_logits=shape.scales_logits,
        softcaps_logits=shape.softcaps_logits,
        embedding_scaled=shape.embedding_scaled,
        embedding_dropout=drops_embedding(config, model_type),
    )
    identity = Identity(
        kind=shape.kind,
        architecture=head.architecture,
        head=head.head,
        hidden_size=trunk.hidden,
        vocab_size=trunk.vocab,
        layers=trunk.layers,
        positions=trunk.positions,
        sdpa=all(block.attention.sdpa for block in tables.blocks),
        flash=all(block.attention.flash for block in tables.blocks),
    )
    return identity, tables


def _stored(config: Config) -> CheckpointFormat | None:
    return format_of(config.nested("quantization_config"), config.where) if config.raw("quantization_config") else None


def _notes(config: Config, architecture: str) -> tuple[str, ...]:
    notes = []
    named = config.raw("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str) and named[0] != architecture:
        notes.append(f"config.json names {named[0][:60]}; priced as {architecture}")
    return tuple(notes)
