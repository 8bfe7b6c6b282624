"""Finds the decoder of text inside a model of several parts: what computes a step on text alone."""

from __future__ import annotations

import json
from functools import lru_cache

from advisor.architectures import spec_from_config
from advisor.architectures.config import Config
from advisor.architectures.identity import text_config
from advisor.architectures.refusals import types_of_transformers
from advisor.architectures.table import SUPPORTED
from advisor.errors import AdvisorError
from advisor.values import ModelKind, ModelSpec

_OF_PARTS = (ModelKind.IMAGE_TEXT, ModelKind.AUDIO_TEXT)
LAYERS_OF = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
"""Types of a text part that has no tables → the type whose layers multiply by the same matrices (transformers 5.23 models/*/modeling_*.py;
tests/test_text_parts.py holds them against the modules that transformers builds)."""
_OF_THE_WHOLE = ("architectures", "quantization_config")
"""Fields that a flat config says of the model, not of its text."""


def text_part(model: ModelSpec) -> ModelSpec | None:
    """The model that computes a step on text alone: the whole of it where its type has tables, else the decoder inside, as a model of its
    own; None where that has no tables either, or where its config leaves to a class of transformers what they ask for."""
    if model.tables is not None:
        return model
    return _inside(model) if model.kind in _OF_PARTS else None


@lru_cache(maxsize=256)
def _inside(model: ModelSpec) -> ModelSpec | None:
    whole = Config(json.loads(model.config_json), model.id)
    row = types_of_transformers()[model.model_type]
    text, is_apart = text_config(whole, row)
    inner = text.text("model_type", default=row.get("text_type", "")) if is_apart else row.get("text_type", "")
    like = LAYERS_OF.get(inner, inner)
    if like not in SUPPORTED:
        return None
    known = {"vocab_size": model.vocab_size, "hidden_size": model.hidden_size, "num_hidden_layers": model.layers}
    fields = {name: value for name, value in text.values.items() if name not in _OF_THE_WHOLE}
    try:
        return spec_from_config({**known, **fields, "model_type": like}, id=model.id, source=f"the text part of {model.id}")
    except AdvisorError:
        return None
