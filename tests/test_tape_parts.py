"""Small parts of tapes by hand: whose an event is, which module lies in the model's body, at which shapes a step is recorded."""

from __future__ import annotations

import lzma
import struct

import pytest

from advisor.tape.breakdown import _in_body
from advisor.tape.cut import Cut, _without_what_comes_again
from advisor.tape.dimensions import Depth
from advisor.tape.layout import lay_out
from advisor.tape.packing import Part, head_in, packed, part_in
from advisor.tape.repeat import _absorbed, _origins, _Run
from advisor.tape.sampling import Bounds, samples
from advisor.tape.sizes import Shape
from advisor.tape.stream import EMPTY_CACHE, STEP, Birth, Stream
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


EVERYTHING, ALONE = Bounds((128, 8192), (4096, 65536)), Bounds((128, 8192), (128, 8192))


@pytest.mark.parametrize(
    ("shape", "bounds", "more", "sampled"),
    [
        (Shape(1, 2048), ALONE, 0, [(1, 2048), (1, 128), (1, 8192)]),
        (Shape(1, 2048), ALONE, 2, [(1, 2048), (1, 128), (1, 8192), (1, 4224), (1, 2816)]),  # half of what lies between, a third of it
        (Shape(1, 2000), ALONE, 0, [(1, 2000), (1, 208), (1, 8144)]),  # 80 tokens beyond a multiple of 128, as in the shape
        (Shape(2, 2048), EVERYTHING, 0, [(2, 2048), (32, 128), (8, 8192), (512, 128)]),  # 4,096 tokens in all, and 65,536
        (Shape(2, 2048), EVERYTHING, 1, [(2, 2048), (32, 128), (8, 8192), (512, 128), (3, 2432)]),  # a row and three grids more
        (Shape(2, 1024), Bounds((1024, 8192), (2048, 4000)), 0, [(2, 1024), (2, 1920), (3, 1024), (3, 1280)]),
        (Shape(2, 1024), Bounds((1024, 1024), (2048, 2048)), 0, [(2, 1024)]),  # there is no other
        (Shape(2, 2048), Bounds((128, 8192), (128, 8192 << 10)), 1, [(2, 2048), (2, 128), (1024, 8192), (2, 384), (3, 2432)]),  # 1,024 rows
        (  # every other: as long as goes, and as short, with 1,024 rows (too many tokens), 64, 8, 3, 5 and 2
            Shape(2, 2048),
            EVERYTHING,
            9,
            [
                *((2, 2048), (32, 128), (8, 8192), (512, 128), (3, 2432)),
                *((64, 1024), (64, 128), (8, 512), (3, 8192), (3, 1408), (5, 8192), (5, 896), (2, 8192)),
            ],
        ),
        (Shape(2, 1152), Bounds((1024, 8192), (2048, 3000)), 0, [(2, 1152), (2, 1024), (2, 1408), (2, 1280)]),  # two rows and no more
    ],
)
def test_shapes_to_record_by_hand(shape: Shape, bounds: Bounds, more: int, sampled: list[tuple[int, int]]) -> None:
    assert list(samples(shape, bounds, more)) == [Shape(*one) for one in sampled]


@pytest.mark.parametrize(
    ("order", "layers", "found"),
    [
        ((0, 1, 1, 1, 2), 5, (0, 1, 1, 1, 2)),
        ((0, 1, 1, 1, 2), 7, (0, 1, 1, 1, 1, 1, 2)),
        ((0, 1, 1, 1, 2), 3, (0, 1, 2)),  # one of what comes again is left
        ((0, 1, 1, 1, 2), 2, None),
        ((0, 1, 2, 1, 2, 1, 2, 3), 10, (0, 1, 2, 1, 2, 1, 2, 1, 2, 3)),
        ((0, 1, 2, 1, 2, 1, 2, 3), 4, (0, 1, 2, 3)),
        ((0, 1, 2, 1, 2, 1, 2, 3), 9, None),  # half a period
        ((0, 1, 2, 1, 2, 1, 2, 3), 2, None),
        ((0, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4), 14, (0, 1, 2, 3, 3, 3, 3, *(4,) * 7)),  # of two stretches the longer one
        ((3, 3, 3, 3, 0, 4, 4), 8, (3, 3, 3, 3, 3, 0, 4, 4)),
        ((3, 3, 3, 0, 4, 4, 4), 8, (3, 3, 3, 3, 0, 4, 4, 4)),  # of equal ones the first
    ],
)
def test_layers_of_another_depth_by_hand(order: tuple[int, ...], layers: int, found: tuple[int, ...] | None) -> None:
    assert Depth(Cut(tuple(range(max(order) + 1)), order), (), ("num_hidden_layers",)).order_of(layers) == found


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ([0, 127, -128], "b"),
        ([1, 128], "h"),
        ([-129, 32767], "h"),
        ([32768], "i"),
        ([-(2**31), 2**31 - 1], "i"),
        ([2**31, 0], "q"),
        ([2**63 - 1, -(2**63)], "q"),
        ([], "b"),
    ],
)
def test_columns_lie_in_the_narrowest_type_least_byte_first(numbers: list[int], kind: str) -> None:
    """Held to Python's `struct`, whose `<` is the order and the width that files have on every machine."""
    content = packed({"of": "a test"}, [Part({"a": 1}, {"one": [5, -5], "other": numbers}), Part({}, {"last": [7]})])
    unpacker = lzma.LZMADecompressor()
    unpacker.decompress(content)
    first = lzma.decompress(unpacker.unused_data).partition(b"\n")[2][: 2 + struct.calcsize(f"<{len(numbers)}{kind}")]
    assert first == struct.pack("<2b", 5, -5) + struct.pack(f"<{len(numbers)}{kind}", *numbers)
    assert head_in(content)["of"] == "a test"
    facts, columns = part_in(content, 0)
    assert (facts, {name: list(column) for name, column in columns.items()}) == ({"a": 1}, {"one": [5, -5], "other": numbers})
    assert list(part_in(content, 1).columns["last"]) == [7]


def test_a_number_of_more_than_eight_bytes_is_refused() -> None:
    with pytest.raises(OverflowError):
        packed({}, [Part({}, {"one": [2**63]})])


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ((0,) * 10, 4),  # a first, a last, and two amid others to compare
        ((0, 1) * 8, 8),  # of each kind a first and a last; amid others two of one and, as ends must fit, two of the other
        ((0, 1, 2) * 6, 12),  # four of each kind, of which two lie amid others
        ((3, *(0,) * 10, 4), 6),
        ((0, 1, 2, 3), None),
    ],
)
def test_layers_that_come_again_are_left_out_by_hand(kinds: tuple[int, ...], left: int | None) -> None:
    cut = _without_what_comes_again(kinds)
    assert (None if cut is None else len(cut.layers)) == left
    if cut is not None:
        assert tuple(kinds[cut.layers[number]] for number in cut.order) == kinds


MIB = 1 << 20


def stream_of(births: list[Birth], events: list[int], marks: list[tuple[int, str]] | None = None) -> Stream:
    stream = Stream(births=births, marks=marks or [])
    for signed in events:
        stream.add(signed, "", births[abs(signed) - 1].phase)
    return stream


def test_what_is_reserved_in_each_step_by_hand() -> None:
    """Each storage in a segment of its own (from 10 MiB on): 12 before any step; 12 + 20; the cache emptied, 12 + 30; nothing new."""
    births = [Birth(size * MIB, "made", "", F) for size in (12, 20, 30, 30)]
    marks = [(1, STEP), (3, EMPTY_CACHE), (3, STEP), (5, STEP)]
    found = lay_out(stream_of(births, [1, 2, -2, 3, -3, 4], marks))
    assert found.step_reserved_bytes == (32 * MIB, 42 * MIB, 42 * MIB)
    assert found.peak_reserved_bytes == 42 * MIB
    assert found.top.event == 3
    assert lay_out(stream_of(births, [1, 2])).step_reserved_bytes == ()  # no step was marked


def test_storages_are_told_by_their_phase_layer_and_likes_counted_from_the_last() -> None:
    """The first two and the fourth are alike: in layer 0, in the forward pass. The third is no layer's, the last two of other phases."""
    births = [Birth(512, "mul", f"layers.{layer}.mlp", phase) for layer, phase in ((0, F), (0, F), (9, F), (0, F), (0, B), (1, B))]
    stream = stream_of(births, [1, 2, 3, 4, 5, -5, 6])
    found = _origins(stream, [_Run(0, 0, 2), _Run(None, 2, 3), _Run(0, 3, 6), _Run(1, 6, 7)])
    assert [(one.stretch, one.layer, one.ordinal) for one in found] == [(1, 0, 2), (1, 0, 1), (-1, -1, 2), (1, 0, 0), (2, 0, 0), (2, 1, 0)]
    assert {one.like for one in found} == {("mul", 512, "layers.*.mlp"), ("", 0, "")}
