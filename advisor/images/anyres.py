"""LLaVA-NeXT: a picture in tiles of the best of a few resolutions, without what pads it, and the whole picture first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from advisor.images.row import RowOfImages, Tensor
from advisor.images.sizes import Size

RGB = 3


def row_of_resolutions(config: Mapping[str, Any], images: int, size: Size) -> RowOfImages:
    """Tiles of the resolution among `image_grid_pinpoints` that holds most of the picture; a token a patch that is not padding, one for the
    end of each line, and a token a patch of the whole (llava_next/processing_llava_next.py, `_get_number_of_features`)."""
    vision = config["vision_config"]
    side = vision["image_size"]
    patches = side // vision["patch_size"]
    grid = best_resolution(size, (Size(*each) for each in config["image_grid_pinpoints"])).by(side)
    lines, line = _unpadded(size, grid.height * patches, grid.width * patches)
    token = int(config.get("image_token_id") or config["image_token_index"])
    whole = patches**2 + (config.get("vision_feature_select_strategy") == "full")
    tensors = {
        "pixel_values": Tensor((images, grid.area + 1, RGB, side, side)),
        "image_sizes": Tensor((images, 2), values=(tuple(size),) * images),
    }
    return RowOfImages(images, tensors, token, ((token, whole + lines * line + lines),))


def best_resolution(size: Size, resolutions: Iterable[Size]) -> Size:
    """Most pixels of the picture, then fewest beside it (image_processing_utils.py, `select_best_resolution`)."""

    def merit(resolution: Size) -> tuple[int, int]:
        scale = min(resolution.width / size.width, resolution.height / size.height)
        kept = min(int(size.width * scale) * int(size.height * scale), size.area)
        return kept, kept - resolution.area

    return max(resolutions, key=merit)


def _unpadded(size: Size, lines: int, line: int) -> tuple[int, int]:
    """Lines of patches, and patches in a line, that the picture itself fills (llava_next/processing_llava_next.py,
    `_get_unpadded_features`)."""
    if size.width / size.height > line / lines:
        filled = int(round(size.height * (line / size.width), 7))
        return lines - (lines - filled) // 2 * 2, line
    filled = int(round(size.width * (lines / size.height), 7))
    return lines, line - (line - filled) // 2 * 2
