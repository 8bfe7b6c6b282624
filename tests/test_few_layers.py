"""Recordings of a few layers, which tell what all of them hold at other shapes: beside recordings of all, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.hub import load_model
from advisor.stacks import default_plan
from advisor.tape.alike import Layered, NotAlike, any_number, resized
from advisor.tape.cut import kinds_of
from advisor.tape.sizes import Shape
from advisor.tape.stream import Birth, Stream
from advisor.values import Method, Phase, Request


@pytest.mark.parametrize(
    ("layers", "few"),
    [
        ("aaaa", "aa"),
        ("aaaaabaaaaab", "aab"),
        ("abbbb", "ab"),
        ("mmmmmammmmma", "mma"),
        ("abcabc", "abca"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_a_few_layers_have_every_kind_and_the_first_twice(layers: str, few: str) -> None:
    found = kinds_of(layers)
    assert "".join(layers[layer] for layer in found.few) == few
    assert [layers[found.of_layer.index(kind)] for kind in found.of_layer] == list(layers)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.layers.11.mlp.experts.127.up_proj", "model.layers.*.mlp.experts.*.up_proj"),
        ("vision.blocks.0", "vision.blocks.*"),
        ("model.conv1.weight", "model.conv1.weight"),
    ],
)
def test_names_without_their_numbers(name: str, told: str) -> None:
    assert any_number(name) == told


# -- made-up recordings: each storage a letter of its operator, its layer and its size ------------------------------------------------


def made(*storages: tuple[str, int | None, int]) -> Stream:
    stream = Stream()
    for number, (op, layer, size_bytes) in enumerate(storages, start=1):
        place = "" if layer is None else f"model.layers.{layer}"
        stream.births.append(Birth(size_bytes, op, place, Phase.FORWARD))
        stream.add(number, place, Phase.FORWARD)
    return stream


def sizes(whole: Stream, few: Stream, elsewhere: Stream) -> list[int]:
    found = resized(Layered(whole, "model.layers", (0, 1, 0)), Layered(few, "model.layers", (0, 1)), elsewhere)
    return [born.size_bytes for born in found.births]


@pytest.mark.parametrize(
    ("whole", "few", "elsewhere", "found"),
    [
        pytest.param(
            [("mul", 0, 8), ("mul", 1, 8), ("mul", 2, 8)],
            [("mul", 0, 8), ("mul", 1, 8)],
            [("mul", 0, 16), ("mul", 1, 24)],
            [16, 24, 16],
            id="layers of a kind are alike, of another kind not",
        ),
        pytest.param(
            [("mul", 0, 8), ("mul", 0, 8), ("mul", 1, 4), ("mul", 2, 8), ("mul", 2, 8)],
            [("mul", 0, 8), ("mul", 0, 8), ("mul", 1, 4)],
            [("mul", 0, 16), ("mul", 0, 32), ("mul", 1, 4)],
            [16, 32, 4, 16, 32],
            id="two of one size are told apart by their order in the layer",
        ),
        pytest.param(
            [("mul", 0, 8), ("mul", 1, 8), ("stack", None, 12)],
            [("mul", 0, 8), ("mul", 1, 8), ("stack", None, 8)],
            [("mul", 0, 16), ("mul", 1, 24), ("stack", None, 8)],
            [16, 24, 12],
            id="what grows with the layers alone stays",
        ),
    ],
)
def test_sizes_are_those_of_a_layer_of_the_kind(whole: Any, few: Any, elsewhere: Any, found: list[int]) -> None:
    assert sizes(made(*whole), made(*few), made(*elsewhere)) == found


@pytest.mark.parametrize(
    ("whole", "few", "elsewhere", "said"),
    [
        pytest.param([("add", 2, 8)], [("mul", 0, 8)], [("mul", 0, 16)], "no add of 8 bytes", id="no layer of the kind makes it"),
        pytest.param(
            [("mul", 0, 8), ("mul", 2, 8), ("mul", 2, 8), ("mul", 2, 8)],
            [("mul", 0, 8), ("mul", 0, 8)],
            [("mul", 0, 16), ("mul", 0, 32)],
            "sizes",
            id="which of two it is, is not certain",
        ),
        pytest.param(
            [("stack", None, 12)],
            [("stack", None, 8)],
            [("stack", None, 16)],
            "no stack of 12 bytes",
            id="what grows with layers and with the batch",
        ),
    ],
)
def test_what_a_few_layers_do_not_tell_is_refused(whole: Any, few: Any, elsewhere: Any, said: str) -> None:
    with pytest.raises(NotAlike, match=said):
        sizes(made(*whole), made(*few), made(*elsewhere))


# -- real recordings -----------------------------------------------------------------------------------------------------------------

ALONE, SEVERAL = (Shape(1, 1024), Shape(1, 640)), (Shape(2, 1024), Shape(3, 512))


@pytest.mark.parametrize(
    ("model", "method", "checkpointing", "shapes"),
    [
        ("google/gemma-3-270m", Method.FULL, False, ALONE),
        ("LiquidAI/LFM2-350M", Method.LORA, True, SEVERAL),
        pytest.param("google/gemma-3-270m", Method.QLORA, False, SEVERAL, marks=pytest.mark.long),
        pytest.param("google/gemma-3-4b-it", Method.DORA, True, ALONE, marks=pytest.mark.long),  # a tower of 27 layers beside
        pytest.param("openai/gpt-oss-20b", Method.LORA, True, ALONE, marks=pytest.mark.long),  # a mixture of experts
    ],
)
@pytest.mark.sampled(1)
def test_a_few_layers_tell_what_all_do_elsewhere(model: str, method: Method, checkpointing: bool, shapes: tuple[Shape, Shape]) -> None:
    pytest.importorskip("torch")
    from advisor.dryrun.tapes import Recordings, Variant

    spec = load_model(model)
    variants = [Variant(spec, default_plan(method, spec, None, Request(checkpointing=checkpointing)))]
    told, recorded = (Recordings(variants, None, lambda _: None) for _ in range(2))
    recorded.few_tell = False
    here, elsewhere = shapes
    assert told.at(here).stream == recorded.at(here).stream
    assert told.at(elsewhere).stream == recorded.at(elsewhere).stream
    assert told.few_tell


def test_kinds_of_plan_share_how_a_model_is_shortened() -> None:
    pytest.importorskip("torch")
    from advisor.dryrun.meta_model import few_layers, whole_model_cut

    spec = load_model("google/gemma-3-270m")
    lora, full, qlora = (default_plan(method, spec, None, Request()) for method in (Method.LORA, Method.FULL, Method.QLORA))
    for find in (whole_model_cut, few_layers):
        found, quantised = find(spec, lora), find(spec, qlora)
        assert found is not None
        assert quantised is not None
        assert find(spec, full) is found
        assert quantised[0] == found[0]
        assert (found[1].whole_model_bytes, quantised[1].whole_model_bytes) == (
            None,
            385_791_232,
        )  # linears at half a byte, all else at two
