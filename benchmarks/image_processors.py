"""Run transformers' own image processors on pictures of many sizes, and keep what they make: what advisor/images is held against.

    python benchmarks/image_processors.py     writes tests/data/image_processors.json; needs Pillow beside transformers

The tokens in the text are counted in what each processor's `replace_image_token` writes.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import transformers

TARGET = Path(__file__).parent.parent / "tests" / "data" / "image_processors.json"
SIZES = ((224, 224), (640, 480), (480, 640), (1024, 768), (1920, 1080), (3000, 200), (97, 1300), (56, 56), (4200, 5100), (30, 20))
"""Width and height in pixels."""
QWEN2 = {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}
QWEN3 = {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}, "patch_size": 16}


class Processor(NamedTuple):
    """How a released checkpoint sets its processor up."""

    processor: str
    """Module and class of models/."""
    image_processor: str
    settings: dict[str, Any]
    """Of `preprocessor_config.json`."""
    more: dict[str, Any] = {}
    """What a processor's own arguments and tokenizer say."""
    config: dict[str, Any] = {}
    """What the model's config says, beyond its class."""


PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
LLAVA = {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
PROCESSORS = {
    "qwen2_vl": Processor("qwen2_vl.processing_qwen2_vl.Qwen2VLProcessor", "qwen2_vl.Qwen2VLImageProcessorPil", QWEN2),
    "qwen2_5_vl": Processor("qwen2_5_vl.processing_qwen2_5_vl.Qwen2_5_VLProcessor", "qwen2_vl.Qwen2VLImageProcessorPil", QWEN2),
    "qwen3_vl": Processor("qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor", "qwen2_vl.Qwen2VLImageProcessorPil", QWEN3),
    "glm4v": Processor("glm4v.processing_glm4v.Glm4vProcessor", "glm4v.Glm4vImageProcessorPil", {}),
    "gemma3": Processor(
        "gemma3.processing_gemma3.Gemma3Processor",
        "gemma3.Gemma3ImageProcessorPil",
        {"size": {"height": 896, "width": 896}},
        {"full_image_sequence": "\n\n" + "<image>" * 256 + "\n\n"},
        {"vision_config": {"model_type": "siglip_vision_model", "image_size": 896, "patch_size": 14}},
    ),
    "gemma4": Processor(
        "gemma4.processing_gemma4.Gemma4Processor",
        "gemma4.Gemma4ImageProcessorPil",
        {},
        {},
        {"vision_config": {"model_type": "gemma4_vision"}},
    ),
    "paligemma": Processor(
        "paligemma.processing_paligemma.PaliGemmaProcessor", "siglip.SiglipImageProcessorPil", {}, {"image_seq_length": 256}
    ),
    "llava": Processor(
        "llava.processing_llava.LlavaProcessor", "clip.CLIPImageProcessorPil", {"size": {"shortest_edge": 336}, "crop_size": 336}, LLAVA
    ),
    "llava_next": Processor(
        "llava_next.processing_llava_next.LlavaNextProcessor",
        "llava_next.LlavaNextImageProcessorPil",
        {"size": {"shortest_edge": 336}, "crop_size": 336, "image_grid_pinpoints": PINPOINTS},
        LLAVA,
        {"image_grid_pinpoints": PINPOINTS},
    ),
    "mistral3": Processor(
        "pixtral.processing_pixtral.PixtralProcessor",
        "pixtral.PixtralImageProcessorPil",
        {"size": {"longest_edge": 1540}, "patch_size": 28},
        {"patch_size": 14, "spatial_merge_size": 2},
    ),
    "internvl": Processor(
        "internvl.processing_internvl.InternVLProcessor",
        "got_ocr2.GotOcr2ImageProcessorPil",
        {"size": {"height": 448, "width": 448}, "crop_to_patches": True, "max_patches": 12},
        {"image_seq_length": 256},
    ),
    "idefics3": Processor(
        "idefics3.processing_idefics3.Idefics3Processor",
        "idefics3.Idefics3ImageProcessorPil",
        {"return_row_col_info": True},
        {"image_seq_len": 169},
        {"vision_config": {"patch_size": 14}},
    ),
    "smolvlm": Processor(
        "smolvlm.processing_smolvlm.SmolVLMProcessor",
        "smolvlm.SmolVLMImageProcessorPil",
        {"return_row_col_info": True, "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        {"image_seq_len": 64},
        {"vision_config": {"image_size": 512, "patch_size": 16}, "scale_factor": 4},
    ),
}


def _found(path: str) -> Any:
    """A class of transformers' models; where torchvision is missing, its name is enough for the import of Pixtral's."""
    for name in (
        () if transformers.utils.is_torchvision_available() else ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    ):
        sys.modules.setdefault(name, ModuleType(name))
        sys.modules[name].__dict__.setdefault("functional", None)
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)


def _image_processor(path: str) -> Any:
    package, name = path.split(".")
    kind = re.sub("_pil$", "", package)
    return getattr(importlib.import_module(f"transformers.models.{kind}.image_processing_pil_{kind}"), name)


def rows(model_type: str) -> list[dict[str, Any]]:
    """What the processor makes of each size, or the words of its refusal."""
    set_up = PROCESSORS[model_type]
    image_processor = _image_processor(set_up.image_processor)(**set_up.settings)
    words = {
        name: f"<{name}>"
        for name in ("image_break_token", "image_end_token", "start_image_token", "end_image_token", "boi_token", "eoi_token")
    }
    words |= {"fake_image_token": "<fake>", "global_image_token": "<global>", "global_image_tag": "<global>"}
    processor = SimpleNamespace(image_processor=image_processor, image_token="<image>", **words)
    kind = _found(set_up.processor)
    for name, value in set_up.more.items():
        setattr(processor, name, value)
    for name in ("_get_number_of_features", "_get_unpadded_features"):
        if hasattr(kind, name):
            setattr(processor, name, getattr(kind, name).__get__(processor))
    return [_row(model_type, kind, processor, size) for size in SIZES]


def _row(model_type: str, kind: Any, processor: Any, size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    picture: Any = np.zeros((height, width, 3), dtype=np.uint8)
    try:
        made = processor.image_processor(
            images=[[picture]] if "idefics" in model_type or "smol" in model_type else [picture], return_tensors="np"
        )
    except ValueError as error:
        return {"model_type": model_type, "size": size, "refused": str(error)[:80]}
    text = kind.replace_image_token(processor, made, 0)
    shapes = {name: [*np.asarray(made[name]).shape] for name in made if name in KEPT}
    values = {name: np.asarray(made[name]).tolist() for name in made if name in ("image_grid_thw", "image_sizes")}
    return {"model_type": model_type, "size": size, "shapes": shapes, "values": values, "image_tokens": text.count("<image>")}


KEPT = ("pixel_values", "image_grid_thw", "image_sizes", "image_position_ids", "pixel_attention_mask")


def main() -> None:
    found = []
    for model_type in PROCESSORS:
        found += rows(model_type)
        sys.stdout.write(f"{model_type}\n")
    configs = {name: set_up.config for name, set_up in PROCESSORS.items()}
    lines = ",\n".join(json.dumps(each) for each in found)
    TARGET.write_text(
        f'{{"transformers": "{transformers.__version__}",\n"configs": {json.dumps(configs)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main()
