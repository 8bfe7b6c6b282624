"""Image processors' arithmetic, held against what transformers' own made (tests/data/image_processors.json, by
benchmarks/image_processors.py), and refusals of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.api import as_request
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.hub import load_model
from advisor.images import Size, check_images, row_of_images
from advisor.images.families import FAMILIES
from advisor.stacks import default_plan
from advisor.values import Method, Request

MADE = json.loads((Path(__file__).parent / "data" / "image_processors.json").read_text(encoding="utf-8"))
ROWS = MADE["rows"]
SAME = {"qwen3_vl_moe": "qwen3_vl", "qwen3_5": "qwen3_vl", "qwen3_5_moe": "qwen3_vl", "glm4v_moe": "glm4v"}
"""Types that use another's image processor (transformers 5.23 models/auto/image_processing_auto.py)."""


def config_of(model_type: str) -> dict[str, Any]:
    """The class's own values, and the released ones that it leaves out."""
    transformers = pytest.importorskip("transformers")
    return dict(transformers.CONFIG_MAPPING[model_type](**MADE["configs"].get(model_type, {})).to_dict())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model_type']}-{row['size'][0]}x{row['size'][1]}")
def test_one_image_is_what_the_librarys_processor_makes_of_it(row: dict[str, Any]) -> None:
    width, height = row["size"]
    config, size = config_of(row["model_type"]), Size(height, width)
    if "refused" in row:
        with pytest.raises(InvalidInputError):
            row_of_images(config, 1, size)
        return
    found = row_of_images(config, 1, size)
    assert {name: [*tensor.of(1)] for name, tensor in found.tensors.items()} == row["shapes"]
    values = {name: [[*line] for line in found.tensors[name].values or ()] for name in row["values"]}
    assert values == row["values"]
    assert found.ids(-1).count(found.image_token) == row["image_tokens"]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_was_held_against_its_processor(model_type: str) -> None:
    assert SAME.get(model_type, model_type) in {row["model_type"] for row in ROWS}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_several_images_are_as_many_times_one(model_type: str) -> None:
    config, size = config_of(SAME.get(model_type, model_type)), Size(480, 640)
    one, three = (row_of_images(config, images, size) for images in (1, 3))
    assert three.tokens == 3 * one.tokens == len(three.ids(0))
    assert {name: tensor.of(2)[0] for name, tensor in three.tensors.items() if tensor.joined} == {
        name: 6 * tensor.of(1)[0] for name, tensor in one.tensors.items() if tensor.joined
    }


@pytest.mark.parametrize(
    ("name", "refusal", "words"),
    [
        ("llama-3.2-1b", InvalidInputError, "sees no images"),
        ("whisper-small", InvalidInputError, "sees no images"),
        ("voxtral-mini", UnsupportedError, "leave the option out for text alone"),
        ("llama-4-scout", UnsupportedError, "is not known here"),
    ],
)
def test_models_that_see_no_images_or_by_an_unknown_processor(name: str, refusal: type[Exception], words: str) -> None:
    with pytest.raises(refusal, match=words) as refused:
        check_images(load_model(name), Request(images=1, image_size="640x480"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"images": 1}, "--image-size 1024x768"), ({"image_size": (64, 64)}, "--images 1")],
)
def test_images_and_their_size_are_asked_for_together(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        default_plan(Method.LORA, load_model("qwen2.5-vl-3b"), None, Request(**asked))


@pytest.mark.parametrize("size", ["1024", "0x100", "wide", "1024x", "10x20x30", "9999999x1"])
def test_sizes_that_are_none_are_refused_in_words(size: str) -> None:
    with pytest.raises(InvalidInputError, match="--image-size") as refused:
        as_request({"images": 1, "image_size": size})
    assert "\n" not in str(refused.value)


def test_a_plan_of_images_is_the_one_asked_for() -> None:
    plan = default_plan(Method.LORA, load_model("qwen2.5-vl-3b"), None, Request(images=2, image_size="640 × 480"))
    assert (plan.images_per_row, plan.image_size_pixels) == (2, (640, 480))


def test_a_config_without_vision_sees_no_images() -> None:
    with pytest.raises(InvalidInputError, match="sees no images"):
        row_of_images({"model_type": "gemma4", "vision_config": None}, 1, Size(64, 64))
