"""What models with towers for images or sound take beside text: images that a plan names, which a dry run prices, or nothing."""

from __future__ import annotations

from advisor.stacks.echo import beside_text
from advisor.stacks.reading import Remark, Way
from advisor.values import ModelSpec, Plan


def tower_remarks(model: ModelSpec, plan: Plan) -> tuple[Remark, ...]:
    """A training whose data nobody has seen may put images through the towers: then it takes more than its price."""
    unpriced = "" if plan.images_per_row else beside_text(model)
    if not unpriced:
        return ()
    text = f"{unpriced} in its batches are not priced: the towers rest on the card, and only text goes through the model"
    return (Remark("not-priced", f"{unpriced} of the data", text, way=Way.UP),)
