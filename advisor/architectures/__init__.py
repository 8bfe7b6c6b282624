"""From a config.json to the exact shape of the model, without torch: `spec_from_config`.

A family's peculiarities live in one module here; what differs only by a trait is a row of a table. What is not covered is refused
with the reason, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.architectures.config import Config
from advisor.architectures.dropout import drops_embedding, with_dropout
from advisor.architectures.heads import LABEL_MODULES, headed, heads_of, labels_of, named_head, outputs_of
from advisor.architectures.refusals import check_covered
from advisor.architectures.table import SUPPORTED, builder
from advisor.checkpoints import format_of
from advisor.values import CheckpointFormat, Head, ModelShape, ModelSpec

__all__ = ["LABEL_MODULES", "SUPPORTED", "check_model_type", "headed", "spec_from_config"]


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
    """The model that transformers 5.23 would build from this config.json, parameter for parameter.

    `config_json` is the file's own text, where there is one. Raises InvalidInputError, whose message names the field, for a config that
    makes no model, and UnsupportedError, with the reason, for a model that is not covered.
    """
    reader = Config(config, id)
    model_type = check_covered(reader, SUPPORTED)
    shape = builder(model_type)(reader)
    heads = heads_of(model_type, shape)
    head = named_head(reader, heads)
    labels = labels_of(reader) if head.head in (Head.CLASSIFICATION, Head.TOKENS) else None
    tables = ModelShape(
        blocks=with_dropout(reader, model_type, shape),
        embedding_params=shape.embedding_params,
        head_params=head.params_per_output * outputs_of(head, shape.trunk.vocab, labels or 0),
        head_bias=head.bias,
        tied_embeddings=head.tied,
        other_params=head.other_params,
        final_norm=shape.final_norm,
        heads=heads,
        scales_logits=shape.scales_logits,
        softcaps_logits=shape.softcaps_logits,
        embedding_scaled=shape.embedding_scaled,
        embedding_dropout=drops_embedding(reader, model_type),
    )
    return ModelSpec(
        id=id,
        model_type=model_type,
        architecture=head.architecture,
        kind=shape.kind,
        hidden_size=shape.trunk.hidden,
        vocab_size=shape.trunk.vocab,
        layers=shape.trunk.layers,
        tables=tables,
        head=head.head,
        labels=labels,
        max_position_tokens=shape.trunk.positions,
        checkpoint_format=_stored(reader),
        config_json=json.dumps(config) if config_json is None else config_json,
        source=source,
        source_date=source_date,
        params_published=params_published,
        notes=_notes(reader, head.architecture),
    )


def _stored(config: Config) -> CheckpointFormat | None:
    return format_of(config.nested("quantization_config"), config.where) if config.raw("quantization_config") else None


def _notes(config: Config, architecture: str) -> tuple[str, ...]:
    notes = []
    named = config.raw("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str) and named[0] != architecture:
        notes.append(f"config.json names {named[0][:60]}; priced as {architecture}")
    return tuple(notes)
