"""What a model's image processor makes of images of one size: tensors beside the text, and tokens in it. Without torch.

transformers' own processors need torchvision or Pillow, and the numbers of a checkpoint's `preprocessor_config.json`; their arithmetic
stands here by family, each with its source, and tests/test_images.py holds it against what they made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.images.families import FAMILIES
from advisor.images.row import RowOfImages, Tensor
from advisor.images.sizes import Size
from advisor.values.model import ModelSpec
from advisor.values.request import Request
from advisor.values.vocabulary import ModelKind

__all__ = ["RowOfImages", "Size", "Tensor", "check_images", "row_of_images"]

_SEEING = (ModelKind.IMAGE_TEXT, ModelKind.AUDIO_TEXT)


def check_images(model: ModelSpec, request: Request) -> None:
    """Raises InvalidInputError for images without a size, a size without images, and a model that sees none; UnsupportedError for one
    whose image processor is not known."""
    if request.images is not None and request.image_size is None:
        raise InvalidInputError("--images: say how large they are, too: --image-size 1024x768")
    if request.image_size is not None and request.images is None:
        raise InvalidInputError("--image-size: say how many each sequence has, too: --images 1")
    if request.images is None:
        return
    if model.kind not in _SEEING:
        raise InvalidInputError(f"--images: {model.id} sees no images; leave the option out")
    if model.model_type not in FAMILIES:
        raise UnsupportedError(
            f"--images: what the image processor of {model.model_type} makes of a picture is not known here, as it is of "
            f"{', '.join(sorted(FAMILIES))}; leave the option out for text alone"
        )


def row_of_images(config: Mapping[str, Any], images: int, size: Size) -> RowOfImages:
    """What `images` pictures of that size become in each row of a batch, for the model of that whole config.

    Raises InvalidInputError for a size that the processor refuses, and for a config without a vision tower.
    """
    if not config.get("vision_config"):
        raise InvalidInputError(f"--images: this config of {config['model_type']} has no vision tower, so that it sees no images")
    return FAMILIES[str(config["model_type"])](config, images, size)
