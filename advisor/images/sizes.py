"""Sizes that processors resize pictures to, and the tiles that they cut them into.

Sources are files of transformers 5.23 (models/…), whose rounding is followed to the pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from advisor.errors import InvalidInputError


class Size(NamedTuple):
    """Of a picture, in pixels; or of a grid, in patches or tiles."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels, patches or tiles."""
        return self.height * self.width

    def by(self, unit: int) -> Size:
        """How many units of that length lie in each direction."""
        return Size(self.height // unit, self.width // unit)


LONGEST_RATIO = 200
"""qwen2_vl/image_processing_qwen2_vl.py, `smart_resize`: the processor raises ValueError beyond it."""


def within_pixels(size: Size, factor: int, min_pixels: int, max_pixels: int, frames: int = 1) -> Size:
    """The multiple of `factor` nearest to the picture's own size, scaled so that its pixels lie between the bounds.

    qwen2_vl/image_processing_qwen2_vl.py, `smart_resize`; with the `frames` of a still picture, glm4v/image_processing_glm4v.py's.
    """
    height, width = size
    if frames > 1 and min(size) < factor:  # GLM enlarges first
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > LONGEST_RATIO:
        raise InvalidInputError(f"--image-size {size.width}x{size.height}: no side may be more than {LONGEST_RATIO} times the other")
    rounded = Size(round(height / factor) * factor, round(width / factor) * factor)
    pixels = frames * height * width
    if frames * rounded.area > max_pixels:
        shrink = math.sqrt(pixels / max_pixels)
        return Size(*(max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)))
    if frames * rounded.area < min_pixels:
        enlarge = math.sqrt(min_pixels / pixels)
        return Size(*(math.ceil(side * enlarge / factor) * factor for side in (height, width)))
    return rounded


def within_edge(size: Size, longest_edge: int, patch: int) -> Size:
    """Shrunk until no side is longer than `longest_edge`, then enlarged to whole patches (pixtral/image_processing_pixtral.py,
    `get_resize_output_image_size`)."""
    ratio = max(size.height / longest_edge, size.width / longest_edge)
    height, width = (math.floor(side / ratio) if ratio > 1 else side for side in size)
    return Size(((height - 1) // patch + 1) * patch, ((width - 1) // patch + 1) * patch)


def tiles_by_ratio(size: Size, tile: int, most: int) -> Size:
    """The grid of at most so many square tiles whose ratio of sides is nearest to the picture's; of equal ones the larger, as long as the
    picture fills half of it (got_ocr2/image_processing_got_ocr2.py, `get_optimal_tiled_canvas`)."""
    grids = [Size(height, width) for width in range(1, most + 1) for height in range(1, most + 1) if width * height <= most]
    best, least = Size(1, 1), math.inf
    for grid in sorted(grids, key=lambda grid: grid.area):
        off = abs(size.width / size.height - grid.width / grid.height)
        if off < least or (off == least and size.area > 0.5 * tile * tile * grid.area):
            best, least = grid, off
    return best


MAX_SIDE = 4096
"""idefics3/image_processing_idefics3.py, `MAX_IMAGE_SIZE`."""


def tiles_by_edge(size: Size, longest_edge: int, tile: int) -> Size:
    """The grid of tiles of a picture whose longest side is brought to `longest_edge` (idefics3/image_processing_idefics3.py,
    `get_resize_output_image_size`, `resize_for_vision_encoder`, `split_images`); 0 x 0 where it is one tile alone."""
    ratio = size.width / size.height
    if size.width >= size.height:
        width = longest_edge
        height = int(width / ratio)
        height, width = max(height + height % 2, 1), width
    else:
        height = longest_edge
        width = int(height * ratio)
        width = max(width + width % 2, 1)
    height, width = _below(height, width)
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return Size(height, width).by(tile) if max(height, width) > tile else Size(0, 0)


def _below(height: int, width: int) -> tuple[int, int]:
    """No side longer than `MAX_SIDE` (`_resize_output_size_scale_below_upper_bound`)."""
    ratio = width / height
    if width >= height and width > MAX_SIDE:
        return max(int(MAX_SIDE / ratio), 1), MAX_SIDE
    if height > width and height > MAX_SIDE:
        return MAX_SIDE, max(int(MAX_SIDE * ratio), 1)
    return height, width


def within_patches(size: Size, unit: int, max_units: int) -> Size:
    """The multiple of `unit` below the picture scaled to `max_units` units (gemma4/image_processing_gemma4.py,
    `get_aspect_ratio_preserving_size`)."""
    scale = math.sqrt(max_units * unit * unit / size.area)
    height, width = (math.floor(side * scale / unit) * unit for side in size)
    if height and width:
        return Size(height, width)
    if not height and not width:
        raise InvalidInputError(f"--image-size {size.width}x{size.height}: the processor makes nothing of it")
    long = min(math.floor(max(size) / min(size)) * unit, max_units * unit)
    return Size(unit, long) if not height else Size(long, unit)
