"""Images in a batch of a dry run: the tensors that a processor makes of them, and their tokens in the text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from advisor.errors import UnsupportedError
from advisor.images import RowOfImages, Size, row_of_images
from advisor.values import Plan

TEXT_TOKEN = 1
"""Id of any token of text."""


def images_of(base: Any, plan: Plan, seq_len_tokens: int) -> RowOfImages | None:
    """What the plan's images become in each row for the transformers model `base`; None where the plan has none.

    Raises UnsupportedError for images that take more tokens than a row has, and InvalidInputError as the processor's arithmetic does.
    """
    images = images_in(base.config.to_dict(), plan)
    if images is not None and images.tokens >= seq_len_tokens:
        raise UnsupportedError(
            f"--images {plan.images_per_row}: {images.tokens:,} tokens of images leave no room for text in a sequence of "
            f"{seq_len_tokens:,}; say a longer --seq-len, or fewer or smaller images"
        )
    return images


def images_in(config: Mapping[str, Any], plan: Plan) -> RowOfImages | None:
    """What the plan's images become in each row for the model of that whole config; None where the plan has none."""
    if plan.image_size_pixels is None:
        return None
    width, height = plan.image_size_pixels
    return row_of_images(config, plan.images_per_row, Size(height, width))


def shapes_of(images: RowOfImages, base: Any, rows: int, seq_len_tokens: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the inputs that images add to a batch of text."""
    marked = images.marked_in in inspect.signature(type(base).forward).parameters  # which older releases find out for themselves
    marks = {images.marked_in: (rows, seq_len_tokens)} if marked else {}
    return {**{name: tensor.of(rows) for name, tensor in images.tensors.items()}, **marks}


def whole_numbers(images: RowOfImages) -> set[str]:
    """Those of its inputs that hold no pixels."""
    return {images.marked_in, *(name for name, tensor in images.tensors.items() if tensor.values is not None)}


def values_of(images: RowOfImages, name: str, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
    """What the input of that name holds in every row: ids of text and images, or a processor's numbers; None for any other input."""
    if name in images.tensors:
        held = images.tensors[name].values
        ones = torch.ones(size, dtype=dtype)
        return ones if held is None else ones.reshape(-1, len(held), len(held[0])).mul(torch.tensor(held)).reshape(size)
    if name not in ("input_ids", images.marked_in):
        return None
    ids = torch.full(size, TEXT_TOKEN, dtype=dtype)
    ids[..., 1 : 1 + images.tokens] = torch.tensor(images.ids(TEXT_TOKEN))
    return ids if name == "input_ids" else (ids == images.image_token).to(dtype)
