"""The decoder of text inside a model of several parts: its layers beside the modules that transformers builds of the same config."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from advisor import profiles
from advisor.architectures.text_part import text_part
from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.speed import relative_step_time, step_time
from advisor.values import Method, ModelSpec, Plan

A100 = load_gpu("A100 SXM4 80GB")


def models_of_parts() -> list[ModelSpec]:
    """The smallest model of each pair of types, the whole's and its text part's."""
    smallest: dict[tuple[str, str], ModelSpec] = {}
    for row in profiles.read("models"):
        model = load_model(row["id"])
        part = None if model.tables is not None else text_part(model)
        if part is not None:
            smallest.setdefault((model.model_type, part.model_type), model)
            if model.params < smallest[model.model_type, part.model_type].params:
                smallest[model.model_type, part.model_type] = model
    return [*smallest.values()]


MODELS = models_of_parts()


def decoder_of(model: ModelSpec) -> Any:
    """The decoder that transformers builds inside the model, on the meta device."""
    import torch
    import transformers

    config = {name: value for name, value in json.loads(model.config_json).items() if name != "quantization_config"}
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        built = getattr(transformers, model.architecture)(transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config))
    found = built.get_decoder()
    return getattr(found, "model", found)  # Llama 4's has a head of its own


def test_the_types_that_people_train_are_among_them() -> None:
    assert {model.model_type for model in MODELS} >= {"gemma3", "internvl", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
@pytest.mark.sampled(5)
def test_every_layer_has_the_parameters_of_the_built_one(model: ModelSpec) -> None:
    pytest.importorskip("torch")
    part = text_part(model)
    assert part is not None
    said = [block.params for block in part.shape.blocks for _ in range(block.count)]
    assert said == [sum(parameter.numel() for parameter in layer.parameters()) for layer in decoder_of(model).layers]


@pytest.mark.parametrize(("model", "alike"), [("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct")])
@pytest.mark.parametrize("method", [Method.LORA, Method.FULL])
def test_a_step_on_text_takes_as_long_as_that_of_the_decoder_alone(model: str, alike: str, method: Method) -> None:
    """The text part of Qwen2.5-VL-7B is Qwen2.5-7B, layer by layer (arXiv:2502.13923, table 1)."""
    plan = Plan(method=method)
    ours, theirs = (step_time(load_model(name), plan, A100) for name in (model, alike))
    assert ours is not None
    assert theirs is not None
    assert ours.seconds_per_step.low == theirs.seconds_per_step.low
    assert ours.seconds_per_step.high == theirs.seconds_per_step.high
    assert "text part" in ours.seconds_per_step.source
    again = step_time(load_model(alike), plan, A100)  # of an equal model, which is another object
    assert again is not None
    assert "text part" not in again.seconds_per_step.source + theirs.seconds_per_step.source


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"images_per_row": 1, "image_size_pixels": (1024, 768)}),  # the tower computes, too
        ("Qwen/Qwen3.5-9B", {}),  # layers that no table has
        ("openai/whisper-base", {}),  # two stacks of layers
    ],
)
def test_what_is_not_counted_is_not_timed(model: str, settings: dict[str, Any]) -> None:
    plan = Plan.model_validate({"method": "full", **settings})
    assert step_time(load_model(model), plan, A100) is None
    assert relative_step_time(load_model(model), plan, A100) is None
