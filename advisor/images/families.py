"""Image processors by model type: what they make of pictures, with the numbers that released checkpoints give them.

Sources are files of transformers 5.23 (models/…) and the `preprocessor_config.json` of the checkpoints named; what else is needed stands
in a model's own config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from advisor.images.anyres import row_of_resolutions
from advisor.images.row import RowOfImages, Tensor
from advisor.images.sizes import Size, tiles_by_edge, tiles_by_ratio, within_edge, within_patches, within_pixels

Config = Mapping[str, Any]
Family = Callable[[Config, int, Size], RowOfImages]
"""The config, how many images a row has, and their size in pixels."""
RGB = 3


def image_token(config: Config) -> int:
    """Id of the placeholder, which some configs call an index."""
    found = config.get("image_token_id")
    return int(config["image_token_index"] if found is None else found)


def _qwen(config: Config, images: int, size: Size, *, min_pixels: int, max_pixels: int, frames: int = 1) -> RowOfImages:
    """Patches of all images in one axis, and the grid of each (qwen2_vl/image_processing_qwen2_vl.py, `_preprocess`; glm4v's likewise).

    A token stands for `spatial_merge_size` squared patches (qwen2_vl/processing_qwen2_vl.py, `replace_image_token`).
    """
    vision = config["vision_config"]
    patch, merge, depth = vision["patch_size"], vision["spatial_merge_size"], vision["temporal_patch_size"]
    grid = within_pixels(size, patch * merge, min_pixels, max_pixels, frames).by(patch)
    tensors = {
        "pixel_values": Tensor((images * grid.area, RGB * depth * patch * patch)),
        "image_grid_thw": Tensor((images, 3), values=((1, *grid),) * images),
    }
    token = image_token(config)
    start, end = (config.get(f"vision_{edge}_token_id", config.get(f"image_{edge}_token_id")) for edge in ("start", "end"))
    text = ((start, 1), (token, grid.area // merge**2), (end, 1))
    return RowOfImages(images, tensors, token, text, "mm_token_type_ids")


def _one_square(config: Config, images: int, side: int) -> dict[str, Tensor]:
    return {"pixel_values": Tensor((images, RGB, side, side))}


def _gemma3(config: Config, images: int, size: Size) -> RowOfImages:
    """One square an image (pan and scan is off by default), `mm_tokens_per_image` tokens between marks and empty lines
    (gemma3/processing_gemma3.py, `full_image_sequence`)."""
    token = image_token(config)
    text = (
        (None, 1),
        (config.get("boi_token_index"), 1),
        (token, config["mm_tokens_per_image"]),
        (config.get("eoi_token_index"), 1),
        (None, 1),
    )
    return RowOfImages(images, _one_square(config, images, config["vision_config"]["image_size"]), token, text, "token_type_ids")


def _gemma4(config: Config, images: int, size: Size) -> RowOfImages:
    """Patches, padded to as many as the most tokens have, with their columns and rows; -1 for padding
    (gemma4/image_processing_gemma4.py, `_preprocess`; 280 tokens at most, as its class and the released checkpoints say)."""
    most, vision = 280, config["vision_config"]
    patch, pool = vision["patch_size"], vision["pooling_kernel_size"]
    grid = within_patches(size, patch * pool, most).by(patch)
    padding = most * pool**2 - grid.area
    places = tuple((column, row) for row in range(grid.height) for column in range(grid.width)) + ((-1, -1),) * padding
    tensors = {
        "pixel_values": Tensor((images, most * pool**2, RGB * patch * patch)),
        "image_position_ids": Tensor((images, most * pool**2, 2), values=places * images),
    }
    token = image_token(config)
    text = ((config.get("boi_token_id"), 1), (token, grid.area // pool**2), (config.get("eoi_token_id"), 1))
    return RowOfImages(images, tensors, token, text, "mm_token_type_ids")


def _paligemma(config: Config, images: int, size: Size) -> RowOfImages:
    """One square an image, a token a patch (paligemma/processing_paligemma.py, `replace_image_token`)."""
    vision, token = config["vision_config"], image_token(config)
    text = ((token, (vision["image_size"] // vision["patch_size"]) ** 2),)
    return RowOfImages(images, _one_square(config, images, vision["image_size"]), token, text, "token_type_ids")


def _llava(config: Config, images: int, size: Size) -> RowOfImages:
    """One square an image, cropped from its middle; a token a patch, and one for the class where the strategy is "full"
    (llava/processing_llava.py, `replace_image_token`)."""
    vision, token = config["vision_config"], image_token(config)
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    text = ((token, patches + (config.get("vision_feature_select_strategy") == "full")),)
    return RowOfImages(images, _one_square(config, images, vision["image_size"]), token, text)


def _mistral3(config: Config, images: int, size: Size) -> RowOfImages:
    """Shrunk to 1,540 pixels (Mistral-Small-3.1), each line of tokens ended by a mark (pixtral/processing_pixtral.py,
    `replace_image_token`)."""
    patch, token = config["vision_config"]["patch_size"] * config["spatial_merge_size"], image_token(config)
    resized = within_edge(size, 1540, patch)
    grid = resized.by(patch)
    tensors = {
        "pixel_values": Tensor((images, RGB, *resized)),
        "image_sizes": Tensor((images, 2), values=(tuple(resized),) * images),
    }
    return RowOfImages(images, tensors, token, ((token, grid.width), (None, 1)) * grid.height)


def _internvl(config: Config, images: int, size: Size) -> RowOfImages:
    """Up to 12 tiles and, beside several, the whole picture; the same number of tokens for each (internvl/processing_internvl.py, whose
    `images_kwargs` cut into tiles; got_ocr2/image_processing_got_ocr2.py, `crop_image_to_patches`)."""
    vision, token = config["vision_config"], image_token(config)
    side, patch = (value[0] if isinstance(value, (list, tuple)) else value for value in (vision["image_size"], vision["patch_size"]))
    grid = tiles_by_ratio(size, side, 12)
    tiles = grid.area + (grid.area > 1)
    each = int((side // patch * config["downsample_ratio"]) ** 2)
    text = ((None, 1), (token, tiles * each), (None, 1))
    return RowOfImages(images, {"pixel_values": Tensor((images * tiles, RGB, side, side))}, token, text)


def _idefics3(config: Config, images: int, size: Size, *, tile: int | None = None) -> RowOfImages:
    """Tiles, and the whole picture as one more; each tile's tokens after two marks, each line's end, and the whole between its own
    (idefics3/processing_idefics3.py, `replace_image_token`). The longest side is brought to four tiles (`size` of Idefics3-8B, SmolVLM
    and SmolVLM2)."""
    vision, token = config["vision_config"], image_token(config)
    side = tile or vision["image_size"]
    grid = tiles_by_edge(size, 4 * side, side)
    each = int((side // vision["patch_size"]) ** 2 / config["scale_factor"] ** 2)
    line = (*((None, 2), (token, each)) * grid.width, (None, 1))
    tiles = images * (grid.area + 1)
    tensors = {
        "pixel_values": Tensor((tiles, RGB, side, side), joined=False),
        "pixel_attention_mask": Tensor((tiles, side, side), joined=False, values=((1,) * side,) * (tiles * side)),
    }
    return RowOfImages(images, tensors, token, (*line * grid.height, (None, 2), (token, each), (None, 1)))


_QWEN2 = partial(_qwen, min_pixels=3136, max_pixels=12_845_056)
"""Qwen2-VL and Qwen2.5-VL, `min_pixels` and `max_pixels`."""
_QWEN3 = partial(_qwen, min_pixels=65_536, max_pixels=16_777_216)
"""Qwen3-VL and Qwen3.5, `size`."""
_GLM = partial(_qwen, min_pixels=112 * 112, max_pixels=28 * 28 * 15_000, frames=2)
"""glm4v/image_processing_glm4v.py, `size` of the class; a picture counts as two frames."""

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN2),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), _QWEN3),
    **dict.fromkeys(("glm4v", "glm4v_moe"), _GLM),
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "idefics3": partial(_idefics3, tile=364),
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": row_of_resolutions,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "smolvlm": _idefics3,
}
"""Model type → its processor."""
