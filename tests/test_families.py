"""Tapes that speak for a family of models: formulas in dimensions, which models are alike, and family tapes against fresh dry runs."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor.dryrun import families, record_tape
from advisor.dryrun.dry_run import trace
from advisor.dryrun.tapes import Recordings, Variant
from advisor.hub import load_model
from advisor.memory.recorded import estimate_from_tape
from advisor.memory.replayed import NotRecorded, breakdown_of
from advisor.memory.runtime import HANDLES, workspace_bytes
from advisor.stacks import default_plan
from advisor.tape import shipped, store
from advisor.tape.columns import check
from advisor.tape.cut import Cut, find_cuts
from advisor.tape.dimensions import Depth, Likeness, factors_of, groups_of, likeness, scaled
from advisor.tape.family import FamilyTape, family_in, part_of
from advisor.tape.growth import Fitting, Point, Product, in_blocks
from advisor.tape.packing import packed, part_in
from advisor.tape.repeat import repetition_of
from advisor.tape.sizes import Shape
from advisor.user_files import CACHE
from advisor.values import Method, ModelSpec, Plan, Quantization, Request
from benchmarks import record_tapes

# -- formulas ----------------------------------------------------------------------------------------------------------------------

SHAPES = (Shape(2, 2048), Shape(3, 2432), Shape(2, 128), Shape(1024, 8192))
ONES = (Fraction(1),) * 3
POINTS = tuple(
    Point(shape, tuple(map(Fraction, scales))) for shape, scales in zip(SHAPES, ((1, 1, 1), (2, 3, 5), (3, 5, 2), (5, 2, 3)), strict=True)
)
PARTS = st.builds(
    Product, st.integers(1, 1 << 20).map(Fraction), st.integers(0, 5), st.sampled_from([(0, 0, 0), (1, 0, 0), (0, 1, 1), (2, 0, 0)])
)


@given(st.lists(PARTS, min_size=1, max_size=2), st.tuples(*(st.integers(1, 40),) * 3))
@settings(max_examples=60, deadline=None)
def test_a_sum_of_two_products_is_found_and_holds_for_other_models(parts: list[Product], scales: tuple[int, int, int]) -> None:
    sizes = [sum(int(part.at(point)) for part in parts) for point in POINTS]
    growth = Fitting(POINTS).fitted(sizes)
    assert growth is not None
    asked = Point(Shape(7, 640), tuple(map(Fraction, scales)))
    assert growth.of(asked.scales).at(asked.shape.monomials) == sum(int(part.at(asked)) for part in parts)


@pytest.mark.parametrize(
    "size",
    [
        lambda b, s, h, i, v: min(b * s, 4096) * h,  # another kernel from some batch on
        lambda b, s, h, i, v: 8 * h + 3 * i + 7 * v + b,
        lambda b, s, h, i, v: (h + 3) ** 4,
    ],
)
def test_what_follows_no_formula_is_none(size: Any) -> None:
    assert Fitting(POINTS).fitted([int(size(*point.shape, *(7 * scale for scale in point.scales))) for point in POINTS]) is None


def test_points_that_do_not_tell_products_apart_find_none() -> None:
    alike = [Point(shape, (Fraction(number + 1), Fraction(number + 1))) for number, shape in enumerate(SHAPES)]
    assert Fitting(alike).fitted([int(64 * point.scales[0]) for point in alike]) is None
    assert Fitting(alike).fitted([64] * len(alike)) is not None


def test_scales_of_scales_are_counted_in_blocks_begun() -> None:
    weights = [2 * 1000 * 3000 * int(h * i) for _, (h, i, _) in POINTS]
    growth = Fitting(POINTS).fitted(weights)
    assert growth is not None
    found = in_blocks([4 * ceil(size / 2 / 64 / 256) for size in weights], [(growth, weights)])
    assert found is not None
    assert found.of((Fraction(1, 3), Fraction(2), Fraction(1))).at(Shape(1, 1).monomials) == 4 * ceil(1000 * 2000 / 64 / 256)


# -- which models are alike --------------------------------------------------------------------------------------------------------

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 12,
    "vocab_size": 1024,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
DEPTH = Depth(Cut((0, 1, 2, 11), (0, *(2,) * 10, 3)), (), ("num_hidden_layers",))
PATTERN = ["local", "local", "global"]
PATTERNED = {**LLAMA, "num_hidden_layers": 18, "layer_types": PATTERN * 6}
PATTERNED_DEPTH = Depth(find_cuts(PATTERN * 6)[0], (), ("num_hidden_layers",))


def alike(changes: dict[str, Any], freedom: int = 3) -> object:
    groups = groups_of(LLAMA, freedom)
    found = likeness(LLAMA, {**LLAMA, **changes}, {"attention_bias": False, "mlp_bias": None}, groups, DEPTH)
    return None if found is None else (*map(str, found.scales), len(found.order or ()))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ("1", "1", "1", "1", 12)),
        ({"num_hidden_layers": 40, "rms_norm_eps": 1e-6, "bos_token_id": 1, "torch_dtype": "float16"}, ("1", "1", "1", "1", 40)),
        ({"intermediate_size": 1024, "vocab_size": 3000}, ("1", "1", "2/3", "375/128", 12)),
        ({"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8}, ("2", "4", "1", "1", 12)),
        ({"hidden_size": 1024}, None),  # heads twice as wide
        ({"num_key_value_heads": 8}, None),  # as many as of queries: another path through attention
        ({"num_hidden_layers": 2}, None),  # no layer amid others
        ({"tie_word_embeddings": True}, None),
        ({"attention_bias": False}, ("1", "1", "1", "1", 12)),  # the type's default, told
        ({"attention_bias": True}, None),
        ({"mlp_bias": True}, None),
        ({"something_new": 3}, None),
        ({"partial_rotary_factor": 0.25}, None),
        ({"max_position_embeddings": 4096}, None),  # which some learn an embedding for
    ],
)
def test_models_are_alike_where_only_dimensions_differ(changes: dict[str, Any], found: object) -> None:
    assert alike(changes) == found


@pytest.mark.parametrize(
    ("layers", "repeat"),
    [(PATTERN * 6, True), (PATTERN * 9, True), (PATTERN * 4, True), ([*PATTERN * 5, "local"], False), (["global", *PATTERN * 5], False)],
)
def test_layers_repeat_as_they_were_recorded(layers: list[str], repeat: bool) -> None:
    other = {**PATTERNED, "layer_types": layers, "num_hidden_layers": len(layers)}
    found = likeness(PATTERNED, other, {}, groups_of(PATTERNED, 3), PATTERNED_DEPTH)
    assert (found is not None) == repeat
    if found is not None and found.order is not None:
        kept = [PATTERNED["layer_types"][layer] for layer in PATTERNED_DEPTH.cut.layers]
        assert [kept[number] for number in found.order] == layers


@pytest.mark.parametrize("freedom", [4, 3, 2, 1])
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_larger_models_keep_what_models_want(freedom: int, turn: int) -> None:
    groups = groups_of(LLAMA, freedom)
    factors = factors_of((*groups, (("rank",),)), turn)
    larger = scaled(LLAMA, groups, factors[:-1])
    assert larger["num_attention_heads"] % larger["num_key_value_heads"] == 0
    assert larger["hidden_size"] % larger["num_attention_heads"] == 0
    assert freedom == 4 or larger["hidden_size"] // larger["num_attention_heads"] == 64 or freedom == 1
    assert {name for name in LLAMA if larger[name] != LLAMA[name]} == {path[-1] for paths in groups for path in paths}


def test_a_tower_keeps_its_width() -> None:
    config = {"text_config": {"hidden_size": 8, "vocab_size": 9}, "vision_config": {"hidden_size": 8, "num_heads": 2, "out_hidden_size": 8}}
    assert groups_of(config, 4) == (
        (("text_config", "hidden_size"), ("vision_config", "out_hidden_size")),
        (("text_config", "vocab_size"),),
    )


# -- against fresh dry runs --------------------------------------------------------------------------------------------------------


def llama(**changes: Any) -> ModelSpec:
    small = load_model("smollm2-135m")
    return small.model_copy(update={"id": "made/up", "config_json": json.dumps({**json.loads(small.config_json), **LLAMA, **changes})})


OTHER = {"hidden_size": 1280, "num_attention_heads": 20, "num_key_value_heads": 5, "intermediate_size": 3328, "vocab_size": 5003}


@pytest.mark.parametrize(
    ("method", "quantization", "checkpointing"),
    [
        (Method.LORA, None, False),
        (Method.QLORA, Quantization.NF4, True),
        pytest.param(Method.DORA, None, True, marks=pytest.mark.long),
        pytest.param(Method.FULL, None, False, marks=pytest.mark.long),
    ],
)
@pytest.mark.sampled(1)
def test_a_family_tape_is_the_dry_run_of_another_model(method: Method, quantization: Quantization | None, checkpointing: bool) -> None:
    plan = Plan(
        method=method,
        quantization=quantization,
        double_quant=quantization is not None,
        kbit_prepare=quantization is not None,
        gradient_checkpointing=checkpointing,
    )
    made = families.of_kind(llama(), plan, None, lambda _: None)
    assert made.freedom >= 3
    other = llama(**OTHER, num_hidden_layers=9)
    first = families.declared_config(llama())
    found = likeness(first, families.declared_config(other), {}, made.groups, made.depth)
    assert found is not None
    for rank, shape in ((24, Shape(3, 640)), (5, Shape(1, 1664))):
        asked = plan.model_copy(update={"rank": rank, "micro_batch_size": shape.rows, "seq_len_tokens": shape.tokens})
        scales = (*found.scales, *((Fraction(rank, plan.rank),) if method.has_adapter else ()))
        family = next(tape for tape in made.tapes if tape.tape.regime.covers(shape))
        tape = family_in(part_in(packed({}, [part_of(family)]), 0)).of(scales, found.order)
        replayed = breakdown_of(tape.replay(shape, workspace_bytes(None) // HANDLES), other, asked, None)
        fresh = trace(other, asked).breakdown
        assert replayed.phases == fresh.phases
        assert replayed.reserved_slack_bytes == fresh.reserved_slack_bytes


@pytest.mark.parametrize(("layers", "others"), [(6, 11), (9, 5)])
def test_a_repetition_for_another_depth_is_what_would_be_found_there(layers: int, others: int) -> None:
    model = llama(num_hidden_layers=layers)
    plan = Plan(method=Method.LORA, micro_batch_size=1, seq_len_tokens=128, gradient_checkpointing=True)
    recording = Recordings([Variant(model, plan)], None, lambda _: None).at(Shape(1, 128))
    assert recording.cut is not None

    depth = Depth(recording.cut, (), ("num_hidden_layers",))
    order = depth.order_of(others)
    assert order is not None
    own = Cut((*recording.cut.layers[:-1], others - 1), order)
    found = repetition_of(recording.stream, recording.cut, recording.layer_path)
    assert replace(found, order=order) == repetition_of(recording.stream, own, recording.layer_path)


# -- what the wheel carries --------------------------------------------------------------------------------------------------------

FILES = list(shipped.shipped_files())


SAMPLE = 24
"""Every so many files are read whole in the default run, all of them beside it: each takes a second."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.long] * (number % SAMPLE > 0), id=f"{path.parent.name}-{path.stem}")
        for number, path in enumerate(FILES)
    ],
)
def test_every_shipped_file_is_whole_and_speaks_for_its_family(path: Any) -> None:
    head = shipped.head_of(path)
    assert head is not None
    family = shipped.families(path.parent.name)[int(path.stem.partition(".")[0])]
    digest = shipped.digest_of_config(json.loads(load_model(family.id).config_json))
    assert set(head.members[digest].scales) <= {Fraction(1)}
    assert head.tapes
    for place, speaks in enumerate(head.tapes):
        made = shipped.family_at(path, place)
        tape = check(made.tape)
        assert {"torch", "transformers", "peft"} <= tape.versions.keys()
        assert tape.regime == speaks.regime
        _check_peaks(made, head.ways[-1], speaks)


def _check_peaks(made: FamilyTape, alike: Likeness, speaks: shipped.Speaks) -> None:
    """What the head says without the tape is what the tape says, at the regime's corners and at another rank."""
    peaks = speaks.peaks[-1]
    assert peaks is not None
    has_rank = len(made.growths[0].parts[0].powers) > len(alike.scales)
    for rank in (16, 24) if has_rank else (0,):
        tape = made.of((*alike.scales, Fraction(rank, 16)) if has_rank else alike.scales, alike.order)
        for rows, tokens in (speaks.regime.least[:2], speaks.regime.most[:2]):
            assert peaks.bytes_at(Shape(rows, tokens), 8 << 20, rank) == tape.peak_bytes(Shape(rows, tokens), 8 << 20)


@pytest.mark.parametrize(
    ("changes", "speaks"),
    [
        ({"_name_or_path": "mine", "eos_token_id": 1}, True),  # a fine-tuned copy, as transformers saves it
        ({"intermediate_size": 24576}, False),  # wider: nobody has counted what transformers builds of it
        ({"vocab_size": 32768}, False),
        ({"hidden_act": "gelu"}, False),
    ],
    ids=str,
)
def test_a_copy_is_spoken_for_where_its_dimensions_are_the_same(changes: dict[str, Any], speaks: bool) -> None:
    family = shipped.families("lfm2")[0]
    model = load_model(family.id)
    copy = model.model_copy(update={"config_json": json.dumps({**family.config, **changes})})
    assert shipped.has_tapes(copy) is speaks
    plan = next(record_tapes.kinds_of(model)).model_copy(update={"micro_batch_size": 1, "seq_len_tokens": 256})
    assert (shipped.find(copy, plan, True) is not None) is speaks


def test_a_config_that_leaves_out_what_its_class_fills_in_is_spoken_for(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gemma 3 4B is published: few dimensions, rotations in the words of transformers 4. Without the libraries it is not answered."""
    monkeypatch.setenv(CACHE.variable, str(tmp_path))
    monkeypatch.setattr(store, "_read", {})
    published = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }
    known = load_model("gemma-3-4b")
    model = known.model_copy(update={"id": "mine/gemma", "config_json": json.dumps(published)})
    plan = default_plan(Method.LORA, known, None, Request(checkpointing=True))
    with pytest.raises(NotRecorded):
        estimate_from_tape(model, plan)
    said: list[str] = []
    record_tape(model, plan, None, progress=said.append)
    assert not any("training step" in text for text in said)
    assert estimate_from_tape(model, plan).phases == estimate_from_tape(known, plan).phases


def test_a_shipped_tape_that_is_damaged_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("lfm2-1.2b")
    plan = next(record_tapes.kinds_of(model)).model_copy(update={"micro_batch_size": 1, "seq_len_tokens": 256})
    found = shipped.find(model, plan, True)
    assert found is not None
    copy = tmp_path / "0.tape"
    whole = found.path.read_bytes()
    copy.write_bytes(whole[:-20])
    assert found._replace(path=copy).peaks() == found.peaks() != None  # noqa: E711 (its head is whole)
    assert found._replace(path=copy).tape() is None
    copy.write_bytes(whole)
    assert found._replace(path=copy).tape() == found.tape()


@pytest.mark.parametrize(("transformers", "said"), [("5.24.0", True), (None, False)])
def test_other_releases_than_were_recorded_are_named(transformers: str | None, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("lfm2-1.2b")
    plan = next(record_tapes.kinds_of(model)).model_copy(update={"micro_batch_size": 1, "seq_len_tokens": 256})
    monkeypatch.setattr(store, "installed", lambda: {"transformers": transformers} if transformers else {})
    notes = " ".join(estimate_from_tape(model, plan).notes)
    assert (f"here are transformers {transformers}" in notes) == said


@pytest.mark.long
@pytest.mark.parametrize("path", FILES[:: max(1, len(FILES) // 5)], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_sample_of_what_ships_is_what_a_fresh_dry_run_says(path: Any) -> None:
    family = shipped.families(path.parent.name)[int(path.stem.partition(".")[0])]
    model, shape = load_model(family.id), Shape(3, 1664)
    plan = next(plan for plan in record_tapes.kinds_of(model) if shipped.path_of(path.parent.name, 0, plan, True) == path)
    asked = plan.model_copy(update={"rank": 24, "micro_batch_size": shape.rows, "seq_len_tokens": shape.tokens})
    found = shipped.find(model, asked, True)
    tape = found and found.tape()
    assert tape is not None
    replayed = breakdown_of(tape.replay(shape, workspace_bytes(None) // HANDLES), model, asked, None)
    fresh = trace(model, asked).breakdown
    assert replayed.phases == fresh.phases
    assert replayed.reserved_slack_bytes == fresh.reserved_slack_bytes
