"""Arithmetic of tapes by hand: polynomials of what is alive, who holds it, which pass a run is of, and the index of what ships.

Streams are a few births and deaths of round numbers; what is expected of them was added up on paper.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from advisor.tape import shipped
from advisor.tape.breakdown import Holder, holders, phases_of
from advisor.tape.compile import NotOneFormula, Recording, compiled
from advisor.tape.cut import Cut
from advisor.tape.dimensions import Depth, likeness
from advisor.tape.family import family_in, grown, part_of
from advisor.tape.growth import Fitting, Growth, Point, Product
from advisor.tape.layout import Layout, Moment
from advisor.tape.peaks import Growing, Peaks, as_list, from_list, highest, peaks_of, shifted
from advisor.tape.repeat import _in_passes, _Run
from advisor.tape.sizes import Shape, Size
from advisor.tape.stream import LOADED, QUANTISED, WARM_UP, Birth, Stream
from advisor.values import Phase, Term

F, B = Phase.FORWARD, Phase.BACKWARD

# -- the most that can be alive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([(1, 2), (2, 1)], {(1, 2), (2, 1)}),  # each is the largest somewhere
        ([(1, 2), (1, 1)], {(1, 2)}),
        ([(3, 3), (1, 2), (3, 0), (4, 0)], {(3, 3), (4, 0)}),
        ([(1, 1), (1, 1)], {(1, 1)}),
        ([(0, 0)], {(0, 0)}),
    ],
)
def test_what_another_exceeds_everywhere_is_no_peak(found: list[tuple[int, ...]], kept: set[tuple[int, ...]]) -> None:
    assert set(highest(iter(found))) == kept


@pytest.mark.parametrize(
    ("size", "least", "divisor", "factors"),
    [
        (Size((7, 0, 0, 0, 0, 0)), Shape(2, 3), 1, (7, 0, 0, 0, 0, 0)),
        (Size((0, 1, 0, 0, 0, 0)), Shape(2, 3), 1, (3, 1, 0, 0, 0, 0)),  # 3 + s
        (Size((0, 0, 1, 0, 0, 0)), Shape(2, 3), 1, (9, 6, 1, 0, 0, 0)),  # (3 + s)^2
        (Size((0, 0, 0, 1, 0, 0)), Shape(2, 3), 1, (2, 0, 0, 1, 0, 0)),  # 2 + b
        (Size((0, 0, 0, 0, 1, 0)), Shape(2, 3), 1, (6, 2, 0, 3, 1, 0)),  # (2 + b)(3 + s)
        (Size((0, 0, 0, 0, 0, 1)), Shape(2, 3), 1, (18, 12, 2, 9, 6, 1)),  # (2 + b)(3 + s)^2
        (Size((5, 0, 0, 0, 1, 0), 2), Shape(1, 1), 6, (18, 3, 0, 3, 3, 0)),  # three times as many sixths: 5 + (1 + b)(1 + s)
    ],
)
def test_polynomials_in_what_lies_beyond_the_least_shape(size: Size, least: Shape, divisor: int, factors: tuple[int, ...]) -> None:
    assert shifted(size, least, divisor) == factors


def test_the_most_alive_of_a_step_by_hand() -> None:
    """A weight of 100, then 10 a token made and freed beside a workspace, then 64 a rank: whichever is more, on any card."""
    constant, token, each_rank = (Size((100, *(0,) * 5)), Size((0, 10, *(0,) * 4)), Size((64, *(0,) * 5)))
    sizes = [Growing(constant), Growing(token), Growing(Size((0,) * 6), each_rank)]
    events = [1, 2, 3, -2, -3, 4, -4]  # 3 is the workspace, which is one past the last size; 4 grows with the rank
    peaks = peaks_of(events, [0, 1, 3, 2], sizes, Shape(1, 128))
    assert peaks.bytes_at(Shape(1, 128), 0) == 100 + 1280
    assert peaks.bytes_at(Shape(1, 130), 7) == 100 + 1300 + 7
    assert peaks.bytes_at(Shape(1, 128), 0, rank=100) == 100 + 6400
    assert from_list(json.loads(json.dumps(as_list(peaks)))) == peaks


@pytest.mark.parametrize(
    "written",
    [[[1, 2], 1, []], [[1, 2], 0, [[0] * 13]], [[1, 2], 1, [[0] * 12]], [[1, 2], 1, [[0.5] * 13]], [[1, 2.0], 1, [[0] * 13]], 3],
)
def test_polynomials_that_are_none_are_refused(written: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_list(written)


# -- who holds what -----------------------------------------------------------------------------------------------------------------


def stream_of(*births: Birth, events: list[int]) -> Stream:
    stream = Stream(births=list(births))
    for signed in events:
        stream.add(signed, "", births[abs(signed) - 1].phase)
    return stream


WEIGHT = Birth(1000, "made", "", Phase.LOAD, "weights", "base_model.model.model.layers.0.q_proj.weight")
OTHER = Birth(1000, "made", "", Phase.LOAD, "weights", "base_model.model.model.layers.1.q_proj.weight")
KEPT = Birth(60, "mul", "base_model.model.model.layers.0.mlp", F, died_in="backward of x", died_phase=B)
GONE = Birth(300, "mul", "base_model.model.model.layers.0.mlp", F, died_in="model", died_phase=F)


def test_holders_of_a_moment_by_hand() -> None:
    stream = stream_of(WEIGHT, OTHER, KEPT, GONE, events=[1, 2, 3, 4, -4, -1])
    layout = Layout([1024, 1024, 512, 512], {}, 0, ())
    layers = "base_model.model.model.layers"
    weights = Holder("model.layers.*.q_proj.weight", Term.WEIGHTS, 2048, 2)
    assert holders(stream, layout, 1, layers) == (weights,)
    assert holders(stream, layout, 3, layers)[0] == weights
    assert [one.bytes for one in holders(stream, layout, 3, layers)] == [2048, 512, 512]  # kept for backward, and temporary
    assert sum(one.bytes for one in holders(stream, layout, 4, layers)) == 2048 + 512  # what died holds nothing
    assert {(one.term, one.bytes, one.count) for one in holders(stream, layout, 5, layers)} == {
        (Term.WEIGHTS, 1024, 1),
        (Term.ACTIVATIONS, 512, 1),
    }


def test_terms_of_the_highest_moment_of_each_phase_by_hand() -> None:
    """1 and 2 are born; 2 dies before 3 is born, which the second moment holds beside 1."""
    layout = Layout([512, 1024, 2048], {F: Moment(F, 1, 1536, 0), B: Moment(B, 3, 2560, 0)}, 0, ())
    found = phases_of([1, 2, -2, 3, -1], [Term.WEIGHTS, Term.ACTIVATIONS, Term.GRADIENTS], layout)
    assert [(one.phase, {part.term: part.bytes for part in one.terms}) for one in found] == [
        (F, {Term.WEIGHTS: 512, Term.ACTIVATIONS: 1024}),
        (B, {Term.WEIGHTS: 512, Term.GRADIENTS: 2048}),
    ]


# -- passes through the layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "turns", "steps"),
    [
        ([0, 1, 2], [0, 0, 0], [1, 1, 1]),
        ([2, 1, 0], [0, 0, 0], [-1, -1, -1]),
        ([0, 1, 2, 1, 0], [0, 0, 0, 1, 1], [1, 1, 1, -1, -1]),  # the last layer's run is of the pass upwards
        ([0, 1, None, 1, 0], [0, 0, -1, 1, 1], [1, 1, 0, -1, -1]),
        ([0, 0], [0, 1], [0, 0]),
        ([0, 1, 1], [0, 0, 1], [1, 1, 0]),  # a layer that comes again begins another pass
        ([None, 3], [-1, 0], [0, 0]),
        ([0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_runs_go_up_or_down(layers: list[int | None], turns: list[int], steps: list[int]) -> None:
    runs = _in_passes([_Run(layer, number, number + 1) for number, layer in enumerate(layers)])
    assert [run.turn for run in runs] == turns
    assert [run.step for run in runs] == steps


# -- formulas of families -----------------------------------------------------------------------------------------------------------

ONE, TWO, THREE = Fraction(1), Fraction(2), Fraction(3)


@pytest.mark.parametrize(
    ("growth", "scales", "size"),
    [
        (Growth((Product(Fraction(6), 0, (1, 0)),)), (TWO, THREE), Size((12, 0, 0, 0, 0, 0))),
        (Growth((Product(Fraction(6), 4, (1, 2)), Product(Fraction(5), 4, (0, 0)))), (TWO, THREE), Size((0, 0, 0, 0, 113, 0))),
        (Growth((Product(Fraction(1, 2), 1, (0,)), Product(Fraction(1, 3), 0, (0,)))), (ONE,), Size((2, 3, 0, 0, 0, 0), 6)),
        (Growth((Product(Fraction(100), 0, (1,)),), 4, 64), (ONE,), Size((8, 0, 0, 0, 0, 0))),  # two blocks of 64 begun
        (Growth((Product(Fraction(100), 0, (1,)),), 4, 64), (THREE,), Size((20, 0, 0, 0, 0, 0))),  # 300 in five
        (Growth(()), (ONE,), Size((0,) * 6)),
    ],
)
def test_a_formula_for_one_model_of_a_family(growth: Growth, scales: tuple[Fraction, ...], size: Size) -> None:
    assert growth.of(scales) == size


def test_blocks_of_what_grows_with_the_batch_have_no_formula() -> None:
    with pytest.raises(ValueError, match="blocks"):
        Growth((Product(ONE, 4, (1,)),), 4, 64).of((ONE,))


@pytest.mark.parametrize(
    ("shapes", "grows", "place"),
    [
        ([Shape(1, 128), Shape(1, 256), Shape(1, 512)], lambda b, s: 6 * s, 1),  # of single rows by the tokens of the row
        ([Shape(1, 128), Shape(1, 256), Shape(1, 512)], lambda b, s: 6 * s * s, 2),
        ([Shape(2, 128), Shape(3, 256), Shape(5, 640)], lambda b, s: 6 * b * s, 4),
        ([Shape(2, 128), Shape(3, 256), Shape(5, 640)], lambda b, s: 6 * b, 3),
        ([Shape(2, 128), Shape(3, 256), Shape(5, 640)], lambda b, s: 6 * s, 1),
        ([Shape(2, 128), Shape(3, 256), Shape(5, 640)], lambda b, s: 6 * b * s * s, 5),
        ([Shape(2, 128), Shape(3, 256), Shape(5, 640)], lambda b, s: 6 * s * s, 2),
        ([Shape(2, 128)] * 3, lambda b, s: 6, 0),  # at one shape nothing tells what grows with it
    ],
)
def test_one_product_of_the_shape_is_found(shapes: list[Shape], grows: Any, place: int) -> None:
    points = [Point(shape, (Fraction(scale),)) for shape, scale in zip(shapes, (1, 3, 7), strict=True)]
    growth = Fitting(points).fitted([grows(*shape) for shape in shapes])
    assert growth == Growth((Product(Fraction(6), place, (0,)),))


def test_a_sum_of_two_products_by_hand() -> None:
    """2h + 12 s at h of 1, 3 and 5 times the first: neither part alone, and checked by a third point."""
    made_at = ((128, 1), (256, 3), (640, 5))
    points = [Point(Shape(1, tokens), (Fraction(scale),)) for tokens, scale in made_at]
    sizes = [2 * scale + 12 * tokens for tokens, scale in made_at]
    growth = Fitting(points).fitted(sizes)
    assert growth is not None
    assert set(growth.parts) == {Product(Fraction(2), 0, (1,)), Product(Fraction(12), 1, (0,))}
    assert Fitting(points).fitted([*sizes[:2], sizes[2] + 1]) is None
    assert Fitting(points[:2]).fitted(sizes[:2]) is None  # two points make two factors, and check none


SEVERAL = (Shape(2, 2048), Shape(3, 2432), Shape(2, 128), Shape(1024, 8192))
SCALES = tuple((Fraction(scale),) for scale in (1, 3, 5, 7))


@pytest.mark.parametrize(("place", "owner", "named"), [("model.mlp", "", "model.mlp"), ("", "model.norm.weight", "model.norm.weight")])
def test_a_size_of_no_formula_is_named_by_its_place_or_its_owner(place: str, owner: str, named: str) -> None:
    streams = [stream_of(Birth(size_bytes, "mul", place, F, "", owner), events=[1]) for size_bytes in (3, 1000, 7, 5)]
    recordings = [Recording(shape, stream, "model.layers", None) for shape, stream in zip(SEVERAL, streams, strict=True)]
    with pytest.raises(NotOneFormula, match=f"mul in {named}: its size "):
        compiled(recordings, {})
    with pytest.raises(NotOneFormula, match=f"mul in {named}: its sizes "):
        grown(recordings, SCALES, ONE, {})


def loading(shape: Shape, scale: int, warm_up_bytes: int) -> Recording:
    """The loader's block for the whole model; a norm of 1,000 bytes a scale; a weight of 4,000 for its square, to be quantised."""
    births = [
        Birth(warm_up_bytes, WARM_UP, "", Phase.LOAD),
        Birth(1000 * scale, LOADED, "model.norm", Phase.LOAD, "weights", "model.norm.weight"),
        Birth(4000 * scale * scale, QUANTISED, "model.mlp", Phase.LOAD, "weights", "model.mlp.weight"),
        Birth(2 * shape.total_tokens, "mul", "model.mlp", F),
    ]
    return Recording(shape, stream_of(*births, events=[1, -1, 2, 3, 4, -4]), "model.layers", None)


def test_the_loader_s_block_is_what_the_weights_of_the_asked_model_say() -> None:
    """A quarter of what is quantised, and all else: 1,000 + 1,000 in the first model, 11,000 + 121,000 in one eleven times as wide."""
    made = [(1, 2000), (3, 12000), (5, 30000), (7, 56000)]
    recordings = [loading(shape, *one) for shape, one in zip(SEVERAL, made, strict=True)]
    family = grown(recordings, SCALES, Fraction(1, 4), {})
    assert family.warm_up is not None
    part = part_of(family)
    assert family.warm_up.share == Fraction(1, 4)
    assert family_in(part._replace(facts=json.loads(json.dumps(part.facts)))).warm_up == family.warm_up
    wider = family.of((Fraction(11),))
    assert [wider.formulas[number] for number in wider.formula_of] == [
        Size((132000, 0, 0, 0, 0, 0)),
        Size((11000, 0, 0, 0, 0, 0)),
        Size((484000, 0, 0, 0, 0, 0)),
        Size((0, 0, 0, 0, 2, 0)),
    ]
    assert family.tape.peak_bytes(Shape(2, 128), 0) == 1000 + 4000 + 512
    with pytest.raises(NotOneFormula, match="warm-up takes 12001 bytes, not 12000"):
        grown([recordings[0], loading(SEVERAL[1], 3, 12001), *recordings[2:]], SCALES, Fraction(1, 4), {})


# -- which models are alike ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "other", "scales"),
    [
        ({"text": {"hidden_size": 8}}, {"text": {"hidden_size": 12}}, (Fraction(3, 2),)),
        ({"text": {"hidden_size": 8}}, {"text": {}}, None),  # not told
        ({"text": {"hidden_size": 8}}, {"text": {"hidden_size": "8"}}, None),
        ({"text": {"hidden_size": 8}}, {"text": {"hidden_size": -8}}, None),
        ({"text": {"hidden_size": 0}}, {"text": {"hidden_size": 8}}, None),
    ],
)
def test_scales_are_ratios_of_numbers(first: Any, other: Any, scales: tuple[Fraction, ...] | None) -> None:
    found = likeness(first, other, {}, ((("text", "hidden_size"),),), None)
    assert (None if found is None else found.scales) == scales


HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("changes", "scales"),
    [
        ({}, (1, 1)),
        ({"intermediate_size": 16}, (1, 2)),  # that it was as large as the number of heads means nothing
        ({"num_key_value_heads": 4}, (2, 1)),
        ({"num_key_value_heads": 8}, None),  # as many as of queries
    ],
)
def test_heads_of_keys_are_fewer_in_all_of_a_family_or_in_none(changes: dict[str, int], scales: tuple[int, int] | None) -> None:
    found = likeness(HEADS, {**HEADS, **changes}, {}, ((("num_key_value_heads",),), (("intermediate_size",),)), None)
    assert (None if found is None else found.scales) == scales


@pytest.mark.parametrize("holder", [(), ("text",), ("model", "text")])
def test_layers_are_counted_where_the_config_counts_them(holder: tuple[str, ...]) -> None:
    def config(layers: int, kinds: list[str]) -> dict[str, Any]:
        inner: dict[str, Any] = {"n": layers, "kinds": kinds}
        for name in reversed(holder):
            inner = {name: inner}
        return inner

    depth = Depth(Cut((0, 1, 3), (0, 1, 1, 2)), holder, ("n",))
    first = config(4, ["a", "b", "b", "a"])
    found = likeness(first, config(6, ["a", "b", "b", "b", "b", "a"]), {}, (), depth)
    assert found is not None
    assert found.order == (0, 1, 1, 1, 1, 2)
    assert likeness(first, config(6, ["a", "b", "b", "a", "b", "a"]), {}, (), depth) is None  # a layer of another kind amid its likes
    assert likeness(first, config(4, ["a", "a", "a", "a"]), {}, (), depth) is None


# -- what ships ---------------------------------------------------------------------------------------------------------------------


def test_an_index_comes_back_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    family = shipped.Family("org/name", {"hidden_size": 8}, 3)
    shipped.write_families("made_up", (family,), {"bias": False})
    try:
        assert shipped.families("made_up") == (family,)
        assert shipped.defaults("made_up") == {"bias": False}
        assert (tmp_path / "made_up" / shipped.INDEX).read_text(encoding="utf-8").endswith("\n")
        shipped.write_families("made_up", (), {})  # again, over the first
        assert shipped.families("made_up") == ()
    finally:
        shipped._index.cache_clear()


def test_a_head_says_the_peaks_of_each_way() -> None:
    peaks = as_list(Peaks(Shape(1, 128), 1, ((0,) * 13,)))
    regime = [1, 128, 128, 1, 256, 256, 0]
    data: dict[str, Any] = {"groups": [], "depth": None, "ways": [[["2"], None], [["3/2"], None]], "members": {"a": 0, "b": 1}}
    head = shipped._head_in({**data, "tapes": [[regime, [peaks, None]]]})
    assert [one.scales for one in head.ways] == [(TWO,), (Fraction(3, 2),)]
    assert head.tapes[0].peaks == (from_list(peaks), None)
    with pytest.raises(ValueError, match="ways"):
        shipped._head_in({**data, "tapes": [[regime, [peaks]]]})
