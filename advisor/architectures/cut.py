"""Cut a model to its first layers: what a card too small for the whole can run of it."""

from __future__ import annotations

from advisor.values import ModelSpec


def first_layers(model: ModelSpec, count: int) -> ModelSpec:
    """The same model with only its first `count` layers."""
    blocks, left = [], count
    for block in model.shape.blocks:
        if left > 0:
            blocks.append(block.model_copy(update={"count": min(block.count, left)}))
            left -= block.count
    # The id is part of what cached sums are kept by.
    tables = model.shape.model_copy(update={"blocks": tuple(blocks)})
    tables.__dict__.pop("params", None)  # pydantic copies what `cached_property` has kept, too
    layers = min(count, model.layers)
    return model.model_copy(update={"layers": layers, "tables": tables, "id": f"{model.id} [{count} layers]"})
