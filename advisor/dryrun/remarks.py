"""Say what the batches of a dry run hold where a training run's could hold something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advisor.dryrun.inputs import AUDIO_SECONDS, reads_text, sees_text_alone
from advisor.values import Plan

SPREAD_EVENLY = "each expert is taken to get an equal share of the tokens: one that gets more takes more memory while it runs"
IMAGES_BY_RELEASED_NUMBERS = (
    "images: as large as the processors of the released checkpoints make them; image_max_pixels and the like of a trainer change that"
)


def remarks(base: Any, plan: Plan) -> Iterator[str]:
    """Lines for the reader of a dry run of the transformers model `base`."""
    if base.config.is_encoder_decoder:
        source = f"{plan.seq_len_tokens:,} tokens" if reads_text(base) else f"what its encoder takes ({AUDIO_SECONDS} s of sound at most)"
        yield f"each row: {source} into the encoder and {plan.seq_len_tokens:,} tokens out of the decoder"
    if plan.images_per_row:
        yield IMAGES_BY_RELEASED_NUMBERS
    elif reads_text(base) and sees_text_alone(base):
        yield "text alone: its towers for images or sound are on the card, and no batch goes through them"
