"""Small parts of tapes by hand: whose an event is, and which module lies in the model's body."""

from __future__ import annotations

import pytest

from advisor.tape.breakdown import _in_body
from advisor.tape.repeat import _absorbed
from advisor.tape.stream import Birth, Stream
from advisor.values import Phase

F, B = Phase.FORWARD, Phase.BACKWARD


@pytest.mark.parametrize(
    ("layers", "phases", "absorbed"),
    [
        ([0, None, 0], [F, F, F], [0, 0, 0]),  # between two of one layer
        ([0, None, 1], [F, F, F], [0, 0, 1]),  # between neighbours, of the one before
        ([1, None, 0], [B, B, B], [1, 1, 0]),
        ([0, None, None, 1], [F, F, F, F], [0, 0, 0, 1]),
        ([0, None, 2], [F, F, F], [0, None, 2]),
        ([0, None, 0], [F, F, B], [0, None, 0]),  # the last layer, forwards and then backwards: what lies between is the head's
        ([0, None, 1], [F, F, B], [0, 0, 1]),
        ([None, 0, None], [F, F, F], [None, 0, None]),
        ([0, None, 0, None, 0], [F] * 5, [0] * 5),
        ([0, 1, None, 1], [F] * 4, [0, 1, 1, 1]),
    ],
)
def test_events_of_no_layer_are_of_the_layer_before(layers: list[int | None], phases: list[Phase], absorbed: list[int | None]) -> None:
    stream = Stream()
    for phase in phases:
        stream.births.append(Birth(512, "made", "", phase, ""))
        stream.add(len(stream.births), "", phase)
    assert _absorbed(stream, layers) == absorbed


@pytest.mark.parametrize(
    ("module", "inside"),
    [
        ("model.language_model.layers", True),
        ("model.language_model.layers.3.mlp", True),
        ("model.language_model.layers_of_another", True),  # beside them, under the same part
        ("model.language_model.norm", True),
        ("model.visual.blocks.0", True),
        ("model.language_model", False),  # above
        ("model", False),
        ("", False),
        ("lm_head", False),
    ],
)
def test_what_lies_in_the_body(module: str, inside: bool) -> None:
    assert _in_body(module, "model.language_model.layers") is inside


def test_peft_s_wrapping_is_no_part_of_a_name() -> None:
    layers = "base_model.model.model.layers"
    assert _in_body("base_model.model.model.norm", layers)
    assert not _in_body("base_model.model.lm_head", layers)
    assert not _in_body("base_model.model", layers)
