"""Cut a model to its first layers: what a card too small for the whole can run of it."""

from __future__ import annotations

from advisor.values import ModelSpec


def first_layers(model: ModelSpec, count: int) -> ModelSpec:
    """The same model with only its first `count` layers."""
    # The id is part of what cached sums are kept by.
    update = {"layers": min(count, model.layers), "id": f"{model.id} [{count} layers]"}
    if model.tables is None:  # the dry run cuts the config
        return model.model_copy(update=update)
    blocks, left = [], count
    for block in model.tables.blocks:
        if left > 0:
            blocks.append(block.model_copy(update={"count": min(block.count, left)}))
            left -= block.count
    tables = model.tables.model_copy(update={"blocks": tuple(blocks)})
    tables.__dict__.pop("params", None)  # pydantic copies what `cached_property` has kept, too
    return model.model_copy(update={**update, "tables": tables})
