"""Tapes: compiled recordings against fresh dry runs at shapes never recorded, the laws of their formulas, and the files that keep them."""

from __future__ import annotations

import json
import lzma
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from advisor.architectures import spec_from_config
from advisor.devices import load_gpu
from advisor.errors import MissingExtraError
from advisor.hub import load_model
from advisor.memory import estimate_memory, trainable_params
from advisor.memory.recorded import estimate_from_tape
from advisor.memory.replayed import NotRecorded, kind_on, least_bytes, trained_params
from advisor.on_demand import answered
from advisor.tape import kinds, replays, store
from advisor.tape.compile import NotOneFormula, Recording, compiled
from advisor.tape.layout import lay_out
from advisor.tape.packing import Part, head_in, packed, part_in
from advisor.tape.sampling import Bounds, between, samples, wide
from advisor.tape.sizes import Shape, Size, fitted
from advisor.tape.stream import EMPTY_CACHE, STEP, Birth, Stream
from advisor.tape.tape import Regime, Tape
from advisor.tape.written import unrepeated, write_out
from advisor.user_files import CACHE
from advisor.values import GpuSpec, Method, ModelSpec, Phase, Plan

WORKSPACE_BYTES = 8_519_680


# -- formulas ----------------------------------------------------------------------------------------------------------------------

SEVERAL = (Shape(2, 2048), Shape(3, 2432), Shape(2, 128), Shape(1024, 8192), Shape(64, 8192))
ALONE = (Shape(1, 2048), Shape(1, 2432), Shape(1, 128), Shape(1, 8192))


@pytest.mark.parametrize(
    ("shapes", "size", "found"),
    [
        (SEVERAL, lambda b, s: 0, Size((0, 0, 0, 0, 0, 0))),
        (SEVERAL, lambda b, s: 4096, Size((4096, 0, 0, 0, 0, 0))),
        (SEVERAL, lambda b, s: 8192 * b * s, Size((0, 0, 0, 0, 8192, 0))),
        (SEVERAL, lambda b, s: 2 * s * s, Size((0, 0, 2, 0, 0, 0))),
        (SEVERAL, lambda b, s: 8 * b * (s + 1), Size((0, 0, 0, 8, 8, 0))),
        (SEVERAL, lambda b, s: b * s // 2 + 512, Size((1024, 0, 0, 0, 1, 0), 2)),
        (SEVERAL, lambda b, s: 64 * b * s * s + 4 * b * s + 3, Size((3, 0, 0, 0, 4, 64))),
        (ALONE, lambda b, s: 4 * s * s + 2 * s + 512, Size((512, 2, 4, 0, 0, 0))),
        (SEVERAL, lambda b, s: min(b * s, 4096) * 2, None),
        (SEVERAL, lambda b, s: 2 * b * b * s, None),
        (ALONE, lambda b, s: s**3, None),
    ],
)
def test_a_size_is_found_as_the_formula_that_made_it(shapes: tuple[Shape, ...], size: object, found: Size | None) -> None:
    sizes = [size(*shape) for shape in shapes]
    assert fitted(shapes, sizes) == found
    if found is not None:
        assert [found.at(shape.monomials) for shape in shapes] == sizes


def test_bytes_are_whole() -> None:
    with pytest.raises(ValueError, match="no whole number"):
        Size((0, 0, 0, 0, 1, 0), 2).at(Shape(3, 2001).monomials)


# -- tapes of streams that are made up ------------------------------------------------------------------------------------------

FACTORS = st.tuples(*(st.integers(0, high) for high in (1 << 22, 1 << 14, 4, 1 << 16, 1 << 13, 4)))
DRAWN = st.lists(st.tuples(st.integers(-40, 40), st.lists(FACTORS, min_size=1, max_size=2)), min_size=1, max_size=40)


def recorded(drawn: list[tuple[int, list[tuple[int, ...]]]], shape: Shape) -> Recording:
    """A stream in which every entry above zero bears a storage of its formula (the first of them alone), and others let one go."""
    stream, alive = Stream(), []
    for index, (number, (factors, *_)) in enumerate(drawn):
        phase = (Phase.LOAD, Phase.FORWARD, Phase.BACKWARD)[index * 3 // len(drawn)]
        if number > 0 or not alive:
            kind = "workspace" if number == 1 else ""
            size = WORKSPACE_BYTES if kind else sum(f * m for f, m in zip(_few(factors), shape.monomials, strict=True))
            stream.births.append(Birth(size, "made", "model.layers.0", phase, kind))
            alive.append(len(stream.births))
            stream.add(alive[-1], "model.layers.0", phase)
        else:
            stream.add(-alive.pop(number % len(alive)), "model.layers.0", phase)
    return Recording(shape, stream, "model.layers", None)


def _few(factors: tuple[int, ...]) -> tuple[int, ...]:
    """At most three terms, as `sizes.MOST_TERMS` says."""
    kept = [index for index, factor in enumerate(factors) if factor][:3]
    return tuple(factor if index in kept else 0 for index, factor in enumerate(factors))


@given(DRAWN, st.integers(2, 1024), st.integers(1, 64))
@settings(max_examples=100, deadline=None)
def test_a_tape_is_the_stream_at_every_shape_of_its_regime(drawn: list, rows: int, grid: int) -> None:
    tape = compiled([recorded(drawn, shape) for shape in SEVERAL], {})
    asked = Shape(rows, 128 * grid)
    assume(tape.regime.covers(asked))
    stream = recorded(drawn, asked).stream
    assert tape.at(asked, WORKSPACE_BYTES) == stream
    assert tape.lay_out(asked, WORKSPACE_BYTES) == lay_out(stream)
    assert tape.peak_bytes(asked, WORKSPACE_BYTES) == most_alive(stream)
    assert tape.peak_bytes(asked, WORKSPACE_BYTES) <= lay_out(stream).top.allocated_bytes


def test_marks_stay_where_they_were() -> None:
    """An emptied cache of a model that was recorded whole: the bytes it gave back are not reserved any more."""
    stream = recorded([(5, [(4 << 20, 0, 0, 0, 0, 0)]), (-1, [(0,) * 6]), (7, [(2 << 20, 0, 0, 0, 0, 0)])], SEVERAL[0]).stream
    stream.marks = [(0, STEP), (2, EMPTY_CACHE), (3, STEP)]
    assert write_out(stream, unrepeated(stream)).marks == stream.marks
    tape = compiled([Recording(SEVERAL[0], stream, "model.layers", None)], {})
    assert tape.lay_out(SEVERAL[0], WORKSPACE_BYTES) == lay_out(stream)


def most_alive(stream: Stream) -> int:
    live, most = 0, 0
    for signed in stream.events:
        live += stream.births[abs(signed) - 1].size_bytes * (1 if signed > 0 else -1)
        most = max(most, live)
    return most


@given(DRAWN, st.integers(2, 512), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_more_rows_or_tokens_never_peak_lower(drawn: list, rows: int, grid: int) -> None:
    tape = compiled([recorded(drawn, shape) for shape in SEVERAL], {})
    peak = tape.peak_bytes(Shape(rows, 128 * grid), WORKSPACE_BYTES)
    assert peak <= tape.peak_bytes(Shape(rows + 1, 128 * grid), WORKSPACE_BYTES)
    assert peak <= tape.peak_bytes(Shape(rows, 128 * (grid + 1)), WORKSPACE_BYTES)


def test_recordings_of_two_regimes_make_no_tape() -> None:
    drawn = [(2, [(1, 0, 0, 0, 0, 0)]), (3, [(0, 0, 0, 0, 2, 0)]), (-1, [(0,) * 6])]
    with pytest.raises(NotOneFormula, match="events"):
        compiled([recorded(drawn if shape.tokens < 4096 else drawn[:2], shape) for shape in SEVERAL], {})


REGIME = Regime((2, 128, 4096), (1024, 8192, 1 << 20), 0)


@pytest.mark.parametrize(
    ("shape", "covered"),
    [
        (Shape(2, 2048), True),
        (Shape(2, 1920), False),  # 3,840 tokens
        (Shape(128, 8192), True),
        (Shape(129, 8192), False),
        (Shape(1, 8192), False),
        (Shape(2, 8320), False),
        (Shape(2, 2049), False),
        (Shape(1024, 1024), True),
    ],
)
def test_a_regime_ends_where_its_recordings_do(shape: Shape, covered: bool) -> None:
    assert REGIME.covers(shape) is covered


# -- which shapes are recorded ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 600), st.integers(1, 40_000), st.integers(2048, 1 << 18))
@settings(max_examples=200, deadline=None)
def test_samples_lie_within_their_bounds_and_begin_with_what_was_asked(rows: int, tokens: int, longest: int) -> None:
    shape = Shape(rows, tokens)
    everything = wide(shape, longest)
    for bounds in (everything, between(shape, everything, frozenset({4096}), frozenset({3072}))):
        found = samples(shape, bounds)
        assert found[0] == shape
        assert len(set(found)) == len(found) in (1, 3, 4)
        assert {other.tokens % 128 for other in found} == {tokens % 128}
        assert all((other.rows == 1) is (rows == 1) for other in found)
        for low, value, high in ((bounds.tokens[0], other.tokens, bounds.tokens[1]) for other in found):
            assert low <= value <= high
        assert all(bounds.total_tokens[0] <= other.total_tokens <= bounds.total_tokens[1] for other in found)


def test_samples_reach_the_ends() -> None:
    found = samples(Shape(1, 2048), Bounds((128, 8192), (128, 8192)))
    assert {shape.tokens for shape in found} >= {128, 2048, 8192}


# -- what of a plan decides a recording ------------------------------------------------------------------------------------------


def test_every_field_of_a_plan_has_its_part_in_a_kind() -> None:
    parts = [*kinds.FORMULA, *kinds.NEUTRAL, *kinds.DECIDES, *kinds.ONLY_WITH]
    assert sorted({*parts, *kinds.FOLDED}) == sorted(Plan.model_fields)
    assert len(parts) == len({*parts})


BASE = Plan(method=Method.QLORA, quantization="nf4", autocast=True, lora_dropout=0.1, images_per_row=1, image_size_pixels=(640, 480))
OTHERS = {
    "method": Method.QDORA,
    "rank": 8,
    "target_modules": ("q_proj",),
    "lora_dropout": 0.0,
    "adapter_dtype": "bf16",
    "base_dtype": "fp16",
    "autocast": False,
    "autocast_dtype": "fp16",
    "quantization": "fp4",
    "double_quant": False,
    "quantized_experts": True,
    "kbit_prepare": True,
    "optimizer": "sgd",
    "grad_accum_steps": 2,
    "images_per_row": 2,
    "image_size_pixels": (480, 640),
    "gradient_checkpointing": False,
    "use_reentrant": True,
    "attention": "eager",
    "mixers": "torch",
    "padding": True,
    "kv_cache_in_outputs": True,
    "head": "lm",
    "labels": 3,
    "loss": "chunked",
    "shift": "logits",
    "eval_micro_batch_size": 2,
    "stack": "plain",
}


SHARED = Plan(method=Method.FULL, n_gpus=4, sharding="fsdp2", autocast=True, grad_accum_steps=2)
OTHERS_OF_SEVERAL = {
    "n_gpus": 8,
    "sharding": "fsdp1",
    "masters": "lifted",
    "shard_group": 2,
    "reshard_after_forward": False,
    "sync_each_batch": True,
}


@pytest.mark.parametrize("name", [name for name in Plan.model_fields if name not in {*kinds.FORMULA, *kinds.NEUTRAL}])
def test_what_decides_makes_another_kind(name: str) -> None:
    base, others = (SHARED, OTHERS_OF_SEVERAL) if name in kinds.CARDS else (BASE, OTHERS)
    other = Plan.model_validate({**base.model_dump(), name: others[name]})
    assert kinds.kind_of(other) != kinds.kind_of(base)


def test_replicas_are_recorded_as_one_card() -> None:
    assert kinds.kind_of(Plan(n_gpus=8, sharding="ddp")) == kinds.kind_of(Plan())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"micro_batch_size": 2}, {"micro_batch_size": 8}),
        ({"seq_len_tokens": 512}, {"seq_len_tokens": 4096}),
        ({"alpha": 8}, {"alpha": 64}),
        ({"use_rslora": True}, {}),
        ({"grad_accum_steps": 2}, {"grad_accum_steps": 64}),
        ({"lora_dropout": 0.05}, {"lora_dropout": 0.3}),
        ({"method": "full", "rank": 8}, {"method": "full", "rank": 64}),
        ({"gradient_checkpointing": False, "use_reentrant": True}, {"gradient_checkpointing": False}),
        ({"autocast_dtype": "fp16"}, {}),
    ],
)
def test_what_does_not_decide_is_one_kind(one: dict, other: dict) -> None:
    assert kinds.kind_of(Plan(**one)) == kinds.kind_of(Plan(**other))
    assert kinds.kind_of(kinds.kind_of(Plan(**one))) == kinds.kind_of(Plan(**one))


def test_names_of_kinds_stay_when_plans_get_a_field() -> None:
    """The digest of the plan's words as they were before images, and before several cards."""
    kind = kinds.kind_of(Plan())
    words = kind.model_dump(mode="json", exclude={*kinds.FORMULA, *kinds.NEUTRAL, *kinds.ADDED})
    expected = sha256(json.dumps({**words, "has_flash": True}, sort_keys=True).encode()).hexdigest()[: kinds.DIGITS]
    assert kinds.digest_of(kind, has_flash=True) == expected
    seen = Plan(images_per_row=1, image_size_pixels=(64, 64))
    assert kinds.digest_of(kinds.kind_of(seen), has_flash=True) != expected


# -- files -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE.variable, str(tmp_path))
    monkeypatch.setattr(store, "_read", {})
    monkeypatch.setattr(replays, "_known", {})
    return tmp_path / "tapes"


def model(**more: object) -> ModelSpec:
    like = load_model("meta-llama/Llama-3.2-1B")
    config = {**json.loads(like.config_json), "num_hidden_layers": 6, "hidden_size": 128, "intermediate_size": 352, "vocab_size": 1000}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, **more}
    return like.model_copy(update={"id": "tiny-llama", "config_json": json.dumps(config)})


def tables_of(spec: ModelSpec) -> ModelSpec:
    """The spec that its config makes: `model` changes the config alone."""
    return spec_from_config(json.loads(spec.config_json), id=spec.id, source=spec.source)


def made_up() -> Tape:
    drawn = [(2, [(512, 0, 0, 0, 0, 0)]), (1, [(0,) * 6]), (3, [(0, 0, 0, 0, 2, 0)]), (-1, [(0,) * 6]), (5, [(0, 0, 0, 8, 8, 0)])]
    return compiled([recorded(drawn, shape) for shape in SEVERAL], {"torch": "2.13.0"})


ASKED = Plan(micro_batch_size=2, seq_len_tokens=2048)


def found(kind: store.Kind) -> Tape | None:
    """The first tape that is whole."""
    return next(filter(None, (entry.tape() for entry in store.find(kind))), None)


def test_a_tape_comes_back_from_its_file_as_it_was(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, tape = kind_on(model(), ASKED, None), made_up()
    assert found(kind) is None
    store.keep(kind, tape)
    assert [path.suffix for path in cache.iterdir()] == [".tape"]
    monkeypatch.setattr(store, "_read", {})  # as another process finds it
    assert found(kind) == tape
    assert found(kind_on(model(), ASKED.model_copy(update={"micro_batch_size": 1}), None)) is None  # of its kind, outside its regime
    assert found(kind_on(model(), ASKED.model_copy(update={"rank": 8}), None)) is None
    assert found(kind_on(model(vocab_size=1001), ASKED, None)) is None


def test_without_torch_any_release_that_was_recorded_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, tape = kind_on(model(), ASKED, None), made_up()
    monkeypatch.setattr(store, "installed", lambda: {"torch": "2.12.0"})
    store.keep(kind, tape)
    monkeypatch.setattr(store, "installed", lambda: {"torch": "2.13.0"})
    assert found(kind) is None
    monkeypatch.setattr(store, "installed", dict)
    assert found(kind) == tape


def packed_anew(
    facts: dict[str, Any] | None = None, columns: dict[str, list[int]] | None = None, head: dict[str, Any] | None = None
) -> bytes:
    """A file of one tape of which something was changed."""
    content = store.packed_tapes((made_up(),))
    part = part_in(content, 0)
    told = {name: value for name, value in head_in(content).items() if name not in ("format", "sizes_bytes")}
    return packed(told | (head or {}), [Part(part.facts | (facts or {}), {**part.columns, **(columns or {})})])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not compressed",
        store.packed_tapes((made_up(),))[:-20],
        lzma.compress(b"not json"),
        lzma.compress(b"[]"),
        lzma.compress(b'{"format": 0, "tapes": []}'),
        lzma.compress(b'{"format": 4}'),
        packed({"tapes": [[[1] * 7, [[1, 1], 1, [[0] * 13]]]]}, []),
        packed_anew(head={"tapes": [[[1], []]]}),
        packed_anew(head={"tapes": [[[1] * 7, [[1, 1], 1, []]]]}),
        packed_anew(head={"tapes": [[[1] * 7, [[1, 1], 0, [[0] * 13]]]]}),
        packed_anew(columns={"events": [1, 2, 3]}),
        packed_anew(columns={"events": [-1, 0, 0, 0, 0]}),
        packed_anew({"phases": [[0, 1]]}),
        packed_anew(columns={"formula_of": [99, 0, 0, 0]}),
        packed_anew({"formulas": [[1, 2]]}),
        packed_anew({"strings": [1, 2, 3]}),
        packed_anew(columns={"origin_op": [-1] * 4}),
        packed_anew(columns={"origin_died_phase": [99] * 4}),
        packed_anew(columns={"origin_phase": []}),
        packed_anew(columns={"births": [99] * 4}),
        packed_anew(columns={"births": [-1] * 4}),
        packed_anew({"regime": [1]}),
        packed_anew(columns={"places": [99] * 5}),
        packed_anew({"runs": [[0, 99, -1, 0]]}),
        packed_anew({"runs": [[0, 5, 3, 1]]}),
        packed_anew(columns={"layers": []}),
        packed_anew({"order": [1.5]}),
    ],
)
def test_a_damaged_file_counts_as_absent_and_is_written_anew(cache: Path, content: bytes) -> None:
    kind, tape = kind_on(model(), ASKED, None), made_up()
    cache.mkdir()
    kind.path.write_bytes(content)
    assert found(kind) is None
    store.keep(kind, tape)
    assert [entry.tape() for entry in store.unpacked_entries(kind.path, kind.path.read_bytes())] == [tape]


def as_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_read", {})
    monkeypatch.setattr(replays, "_known", {})


def test_what_a_tape_takes_is_kept_and_not_replayed_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.keep(kind_on(model(), ASKED, None), made_up())
    as_another_process(monkeypatch)
    first = answered(lambda: estimate_from_tape(model(), ASKED))
    assert len([*(cache.parent / "replays").iterdir()]) == 1
    as_another_process(monkeypatch)
    monkeypatch.setattr(Tape, "replay", None)
    assert estimate_from_tape(model(), ASKED) == first
    longer = ASKED.model_copy(update={"seq_len_tokens": 2176})
    with pytest.raises(TypeError):  # another shape is replayed
        estimate_from_tape(model(), longer)
    monkeypatch.setattr(store, "digest", lambda *rooms: "other code")
    with pytest.raises(TypeError):
        estimate_from_tape(model(), ASKED)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"2 x 2048, 8519680": {}}',
        '{"2 x 2048, 8519680": 1}',
        '{"2 x 2048, 8519680": {"phases": [], "peak_reserved_bytes": 1}}',
    ],
)
def test_damaged_replays_are_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    store.keep(kind_on(model(), ASKED, None), made_up())
    first = answered(lambda: estimate_from_tape(model(), ASKED))
    (path,) = (cache.parent / "replays").iterdir()
    whole = path.read_text()
    path.write_text(content)
    as_another_process(monkeypatch)
    assert answered(lambda: estimate_from_tape(model(), ASKED)) == first
    assert path.read_text() == whole


def test_the_newest_replays_stay(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST", 2)
    tape = made_up()
    shapes = [Shape(2, 2048), Shape(2, 2176), Shape(3, 2048)]
    for shape in shapes:
        replays.keep("a tape", shape, WORKSPACE_BYTES, tape.replay(shape, WORKSPACE_BYTES))
    replays.write_down()
    as_another_process(monkeypatch)
    assert replays.find("a tape", shapes[0], WORKSPACE_BYTES) is None
    assert [replays.find("a tape", shape, WORKSPACE_BYTES) for shape in shapes[1:]] == [
        tape.replay(shape, WORKSPACE_BYTES) for shape in shapes[1:]
    ]


def test_a_cache_that_cannot_be_written_costs_no_answer(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE.variable, str(tmp_path / "file"))
    kind, tape = kind_on(model(), ASKED, None), made_up()
    store.keep(kind, tape)
    assert found(kind) == tape


def test_a_step_that_nobody_recorded_is_said_in_one_line(cache: Path) -> None:
    with pytest.raises(NotRecorded, match=r"tiny-llama: no recording .*pip install 'finetune-advisor\[torch\]'"):
        estimate_from_tape(model(), ASKED)


def test_what_is_missing_is_recorded_on_the_way_and_asked_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def record(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, *, progress: object) -> None:
        made.append(plan.micro_batch_size)
        store.keep(kind_on(model, plan, gpu), made_up())

    monkeypatch.setattr(import_module("advisor.dryrun"), "record_tape", record)
    untold = model().model_copy(update={"tables": None})
    assert answered(lambda: estimate_memory(untold, ASKED)).source == "trace"
    assert answered(lambda: estimate_memory(untold, ASKED.model_copy(update={"micro_batch_size": 3}))).source == "trace"
    assert made == [2]


def test_without_torch_the_line_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-advisor\[torch\]'"):
        answered(lambda: estimate_memory(model().model_copy(update={"tables": None}), ASKED))


def test_a_note_names_the_length_that_is_asked_for() -> None:
    drawn = [(2, [(512, 0, 0, 0, 0, 0)]), (3, [(0, 0, 0, 0, 2, 0)])]
    made = [recorded(drawn, shape) for shape in SEVERAL]
    for recording in made:
        recording.stream.notes = (f"each row: {recording.shape.tokens:,} tokens out of the decoder",)
    assert compiled(made, {}).replay(Shape(2, 1024), WORKSPACE_BYTES).notes == ("each row: 1,024 tokens out of the decoder",)


# -- against fresh dry runs ------------------------------------------------------------------------------------------------------

A_CARD = load_gpu("h100-80gb")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "settings", "recorded_at", "asked", "gpu"),
    [
        ({}, {"method": "lora"}, (1, 1024), [(1, 8192)], A_CARD),
        ({}, {"method": "qlora", "gradient_checkpointing": False}, (2, 256), [(7, 640)], None),
        pytest.param(
            {},
            {"method": "full", "grad_accum_steps": 4, "eval_micro_batch_size": 2},
            (4, 1024),
            [(2, 1920)],
            A_CARD,
            marks=pytest.mark.slow,
        ),
        pytest.param({}, {"method": "dora", "padding": True, "stack": "plain"}, (2, 1000), [(5, 2024)], None, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
@pytest.mark.sampled(2)
def test_a_tape_says_what_a_fresh_dry_run_says(
    cache: Path, config: dict, settings: dict, recorded_at: tuple[int, int], asked: list[tuple[int, int]], gpu: GpuSpec | None
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("bitsandbytes")
    from advisor.dryrun import record_tape, trace

    spec = model(**config)
    quantization = {"quantization": "nf4"} if settings["method"] == "qlora" else {}
    first = Plan(**quantization, **settings, micro_batch_size=recorded_at[0], seq_len_tokens=recorded_at[1])
    record_tape(spec, first, None)
    for rows, tokens in asked:
        plan = first.model_copy(update={"micro_batch_size": rows, "seq_len_tokens": tokens, "alpha": 8})
        found = estimate_from_tape(spec, plan, gpu)
        assert found == trace(spec, plan, gpu=gpu).breakdown
        untold = spec.model_copy(update={"tables": None, "params_built": spec.params})
        without_tables = estimate_memory(untold, plan, gpu)
        assert (without_tables.phases, without_tables.reserved_slack_bytes) == (found.phases, found.reserved_slack_bytes)
        assert trained_params(spec, plan, gpu) == trainable_params(tables_of(spec), plan)
        assert least_bytes(spec, plan, A_CARD) <= estimate_from_tape(spec, plan, A_CARD).expected_bytes
