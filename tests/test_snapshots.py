"""A dry run beside a card's history: hand-made histories with planted differences, and one that a recorder made of real training."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor import api
from advisor.accuracy import history
from advisor.accuracy.align import align
from advisor.accuracy.history import Beginning, Events, History, from_snapshot, from_stream, metadata_of
from advisor.accuracy.rows import Measurement
from advisor.accuracy.snapshots import (
    BLOCKS,
    CARD_ALONE,
    LONGER_IN_TRACE,
    LONGER_ON_CARD,
    TRACE_ALONE,
    SnapshotReport,
    SnapshotReports,
    compare,
    traced_for,
)
from advisor.allocator.caching import Allocator
from advisor.architectures import spec_from_config
from advisor.cli.run import run
from advisor.errors import InvalidInputError
from advisor.render.snapshots import snapshots as screen
from advisor.render.terminal import Look, draw
from advisor.tape.layout import lay_out
from advisor.tape.stream import STEP, Birth, Stream
from advisor.units import KIB, MIB
from advisor.values import Phase, Plan

FEW = st.lists(st.integers(0, 3), max_size=14)


def longest(left: list[int], right: list[int]) -> int:
    """Length of a longest common subsequence, by the textbook's table."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(FEW, FEW)
def test_an_alignment_is_a_longest_common_subsequence(left: list[int], right: list[int]) -> None:
    pairs = align(left, right)
    assert [left[one] for one, _ in pairs] == [right[other] for _, other in pairs]
    assert all(first[0] < second[0] and first[1] < second[1] for first, second in pairwise(pairs))
    assert len(pairs) == longest(left, right)


def test_fifty_thousand_events_take_seconds() -> None:
    choose = random.Random(0)
    left = [choose.randrange(12) for _ in range(50_000)]
    right = [one for one in left if choose.random() > 0.1]
    began = time.process_time()
    assert len(align(left, right)) == len(right)
    assert time.process_time() - began < 20


# A card's history, by hand.

LOADED, FORWARD, BACKWARD = (metadata_of(0, Phase.LOAD, ""), metadata_of(1, Phase.FORWARD, "m.0"), metadata_of(1, Phase.BACKWARD, ""))
FRAME = {"filename": "/site-packages/transformers/modeling_llama.py", "line": 180, "name": "forward"}


def entry(action: str, addr: int, size: int, told: str = LOADED, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": addr, "size": size, "stream": 0, "user_metadata": told, "frames": [], **more}


SNAPSHOT = [
    entry("free_requested", 7, 99),  # allocated before the recording
    entry("segment_alloc", 100, 2 * MIB),
    entry("alloc", 100, 1000),
    entry("alloc", 200, 2000, FORWARD, frames=[FRAME]),
    entry("free_requested", 200, 2000, FORWARD),
    entry("free_completed", 200, 2000, FORWARD),
    entry("alloc", 200, 3000, BACKWARD),  # the same address again
    entry("free_completed", 100, 1000, BACKWARD),
    entry("segment_free", 100, 2 * MIB, BACKWARD),
    entry("oom", 0, 5000, BACKWARD),
]


def test_a_snapshot_becomes_births_and_deaths() -> None:
    found = from_snapshot(SNAPSHOT)
    assert found.events == (1, 2, -2, 3, -1)
    assert [entry.size_bytes for entry in found.allocations] == [1000, 2000, 3000]
    labels = [found.labels[entry.label] for entry in found.allocations]
    assert [(label.step, label.phase, label.module) for label in labels] == [
        (0, Phase.LOAD, ""),
        (1, Phase.FORWARD, "m.0"),
        (1, Phase.BACKWARD, ""),
    ]
    assert labels[1].site == "modeling_llama.py:180 forward"
    assert found.segments == ((0, 2 * MIB), (5, -2 * MIB))


def test_without_metadata_the_time_tells_the_phase() -> None:
    beginnings = [Beginning(100, 1, Phase.FORWARD), Beginning(200, 1, Phase.BACKWARD), Beginning(300, 2, Phase.FORWARD)]
    times = [50, 100, 199, 200, 250, 301]
    found = from_snapshot([entry("alloc", number, 10, "", time_us=time_us) for number, time_us in enumerate(times)], beginnings)
    assert [found.labels[one.label][:2] for one in found.allocations] == [
        (0, Phase.LOAD),
        (1, Phase.FORWARD),
        (1, Phase.FORWARD),
        (1, Phase.BACKWARD),
        (1, Phase.BACKWARD),
        (2, Phase.FORWARD),
    ]


def test_without_either_the_phase_is_that_of_the_allocation_before() -> None:
    found = from_snapshot([entry("alloc", 1, 10, FORWARD), entry("alloc", 2, 20, "")])
    assert [found.labels[one.label].phase for one in found.allocations] == [Phase.FORWARD, Phase.FORWARD]


# A step by hand, as a dry run would tell it and as a card would.


@dataclass
class Step:
    """What one side allocates: (name, size, phase, name of what dies before it)."""

    rows: list[tuple[str, int, Phase, tuple[str, ...]]]

    def stream(self) -> Stream:
        found, numbers = Stream(), {}
        for name, size, phase, dead in self.rows:
            if phase is Phase.FORWARD and not found.marks:
                found.marks.append((len(found.events), STEP))
            for other in dead:
                found.add(-numbers[other], "", phase)
            found.births.append(Birth(size, f"aten.{name}", "model.layers.0.mlp", phase, "weights" if name == "weight" else ""))
            numbers[name] = len(found.births)
            found.add(numbers[name], "model.layers.0.mlp", phase)
        return found

    def trace(self) -> Any:
        stream = self.stream()
        return SimpleNamespace(stream=stream, layout=lay_out(stream), layer_path="model.layers", versions={"torch": "1"})

    def history(self, **fields: Any) -> History:
        return history_of(from_stream(self.stream()), made_by="recorder", **fields)


def history_of(events: Events, **fields: Any) -> History:
    return History(row=ROW, steps=1, **events._asdict(), **fields)


ROW = Measurement.model_validate(
    {
        "id": "by-hand",
        "kind": "run",
        "source": "a test",
        "grade": "A",
        "model": "m",
        "gpu": "a card",
        "n_gpus": 1,
        "versions": {"torch": "2"},
        "scored": False,
        "reason": "made by hand",
        "settings": {"method": "lora"},
    }
)
F, B = Phase.FORWARD, Phase.BACKWARD
BASE = [
    ("weight", 4096, Phase.LOAD, ()),
    ("up", 10 * KIB, F, ()),
    ("act", 20 * KIB, F, ()),
    ("down", 30 * KIB, F, ()),
    ("grad", 40 * KIB, B, ("down",)),
    ("last", 50 * KIB, B, ("act",)),
]


def planted(rows: list[tuple[str, int, Phase, tuple[str, ...]]]) -> SnapshotReport:
    """The step of `rows` on the card, beside BASE as the dry run."""
    return compare(Step(rows).history(), Step(BASE).trace())


def changed(name: str, *new: tuple[str, int, Phase, tuple[str, ...]]) -> list[tuple[str, int, Phase, tuple[str, ...]]]:
    """BASE with the row of that name replaced."""
    return [row for old in BASE for row in (new if old[0] == name else (old,))]


PLANTED = [
    # what the card does otherwise, (why, op, bytes at the peak) of each part, alone on the card and in the trace, moved
    (BASE, [], [], [], 0),
    # a workspace that the dry run does not know, alive at the peak
    (
        changed("grad", ("workspace", 70 * KIB, B, ("down",)), ("grad", 40 * KIB, B, ())),
        [(CARD_ALONE, "aten.workspace", 70 * KIB)],
        ["aten.workspace"],
        [],
        0,
    ),
    # one that dies before the peak is told, and no part of it
    (
        changed("up", ("scratch", 5 * KIB, F, ()), ("up", 10 * KIB, F, ("scratch",))),
        [],
        ["aten.scratch"],
        [],
        0,
    ),
    # an activation that the card never makes
    (
        [row for row in BASE if row[0] != "up"],
        [(TRACE_ALONE, "aten.up", -10 * KIB)],
        [],
        ["aten.up"],
        0,
    ),
    # one that lives longer on the card
    (
        changed("last", ("last", 50 * KIB, B, ())),
        [(LONGER_ON_CARD, "aten.act", 20 * KIB)],
        [],
        [],
        0,
    ),
    # one that lives longer in the dry run
    (
        changed("last", ("last", 50 * KIB, B, ("act", "up"))),
        [(LONGER_IN_TRACE, "aten.up", -10 * KIB)],
        [],
        [],
        0,
    ),
    # the same allocations in another order
    (
        [BASE[0], BASE[2], BASE[1], *BASE[3:]],
        [],
        [],
        [],
        1,
    ),
    # another size is another allocation on either side
    (
        changed("grad", ("grad", 44 * KIB, B, ("down",))),
        [(CARD_ALONE, "aten.grad", 44 * KIB), (TRACE_ALONE, "aten.grad", -40 * KIB)],
        ["aten.grad"],
        ["aten.grad"],
        0,
    ),
]


@pytest.mark.parametrize(("rows", "parts", "on_card", "in_trace", "moved"), PLANTED)
def test_a_planted_difference_is_found(rows: Any, parts: Any, on_card: Any, in_trace: Any, moved: int) -> None:
    report = planted(rows)
    assert report.peak_phase is B
    assert [(part.why, part.place.site, part.bytes) for part in report.parts if part.place is not None] == parts
    alone = [(entry.where, entry.place.site) for entry in report.differences]
    assert sorted(alone) == sorted([*((CARD_ALONE, op) for op in on_card), *((TRACE_ALONE, op) for op in in_trace)])
    assert report.moved == moved
    assert report.matched + report.moved == report.allocations_on_card - len(on_card)


def test_what_the_card_alone_makes_is_told_by_its_neighbour() -> None:
    report = planted(changed("grad", ("grad", 40 * KIB, B, ("down",)), ("workspace", 70 * KIB, B, ())))
    (entry,) = report.differences
    assert (entry.place.module, entry.place.near) == ("model.layers.*.mlp", "aten.grad in model.layers.*.mlp")


def test_blocks_that_are_larger_than_asked_are_a_part() -> None:
    """The card counts 3 MiB more than its allocations; the dry run's own blocks are as large as they were asked for."""
    counted = sum(size for name, size, _, _ in BASE if name not in ("down", "act")) + 3 * MIB
    events = from_stream(Step(BASE).stream())._replace(segments=((0, 20 * MIB), (1, 2 * MIB), (2, -2 * MIB)))
    report = compare(history_of(events, peaks=[{"phase": B, "allocated_bytes": counted}]), Step(BASE).trace())
    assert [(part.why, part.bytes) for part in report.parts] == [(BLOCKS, 3 * MIB)]
    assert report.card_reserved_bytes == 22 * MIB


NAMES = st.sampled_from([name for name, *_ in BASE[1:]])
EDITS = st.lists(st.tuples(NAMES, st.sampled_from(["drop", "double", "grow", "keep"])), max_size=4)


@given(EDITS, st.integers(0, 5 * MIB))
@settings(max_examples=60)
def test_the_parts_add_up_to_the_byte(edits: list[tuple[str, str]], surplus: int) -> None:
    rows = list(BASE)
    for number, (name, edit) in enumerate(edits):
        rows = [row for old in rows for row in edited(old, name, edit, number)]
    names = {name for name, *_ in rows}
    rows = [(name, size, phase, tuple(other for other in dead if other in names)) for name, size, phase, dead in rows]
    held = Step(rows).history()
    traced = Step(BASE).trace()
    for fields in ({}, {"made_by": "allocator", "peaks": ({"phase": B, "allocated_bytes": 10**6 + surplus},)}):
        report = compare(History.model_validate({**held.model_dump(), **fields}), traced)
        beside = next(entry for entry in report.phases if entry.phase is report.peak_phase)
        assert sum(part.bytes for part in report.parts) == beside.card_bytes - beside.trace_bytes


def edited(row: Any, name: str, edit: str, number: int) -> list[Any]:
    if row[0] != name:
        return [row]
    twin = (f"{name}{number}", row[1], row[2], ())
    return {"drop": [], "double": [row, twin], "grow": [(name, row[1] + 4096, *row[2:])], "keep": [(*row[:3], ())]}[edit]


# Files.


def test_a_file_keeps_what_it_is_given(tmp_path: Path) -> None:
    held = Step(BASE).history(peaks=[{"phase": B, "allocated_bytes": 1}])
    path = tmp_path / f"a{history.SUFFIX}"
    history.write(held, path)
    assert history.read(path) == held
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no gzip", "cannot be read"),
        (b"", "cannot be read|cut off|no history"),
        ("half", "cut off|cannot be read"),
        ("empty object", "no history of a run: row is missing"),
    ],
)
def test_what_is_no_history_is_refused_in_one_line(tmp_path: Path, content: Any, words: str) -> None:
    import gzip

    path = tmp_path / f"a{history.SUFFIX}"
    whole = gzip.compress(b"{}")
    path.write_bytes({"half": whole[: len(whole) // 2], "empty object": whole}.get(content, content))
    with pytest.raises(InvalidInputError, match=words) as raised:
        api.snapshots(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_any_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["accuracy", "--snapshots", str(tmp_path)]) == 2
    assert "on_card.py" in capsys.readouterr().err
    assert run(["accuracy", "--snapshots", str(tmp_path), "--trace"]) == 2
    assert "--snapshots stands alone" in capsys.readouterr().err


def test_a_plan_that_no_dry_run_runs_is_listed_with_the_reason(tmp_path: Path) -> None:
    """The row by hand states no plan."""
    history.write(Step(BASE).history(config=CONFIG), tmp_path / f"a{history.SUFFIX}")
    found = api.snapshots(tmp_path)
    assert (found.reports, len(found.not_compared)) == ((), 1)
    shown = draw(screen(found), Look(width=80))
    assert "Not compared" in shown
    assert "not stated" in shown


# A history that a recorder made of real training on the processor.

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def simulated() -> History:
    """Two steps of LoRA with eager attention, which a processor runs as a card does."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from advisor.dryrun.dry_run import Settings, record_on_cpu

    plan = Plan(method="lora", micro_batch_size=2, seq_len_tokens=64, attention="eager")
    stream, _ = record_on_cpu(spec_from_config(CONFIG, id="tiny", source="a test"), plan, Settings(lengths=(64, 64)))
    stated = {name: value for name, value in plan.model_dump(mode="json").items() if name != "n_gpus"}
    row = ROW.model_copy(update={"settings": type(ROW.settings).model_validate(stated)})
    events = from_stream(stream)._asdict()
    return History(row=row, config=CONFIG, steps=2, made_by="recorder", **events)


@pytest.fixture(scope="module")
def traced(simulated: History) -> Any:
    return traced_for(simulated)


def test_a_recorded_history_is_the_dry_run_but_for_the_optimizers_scalars(simulated: History, traced: Any) -> None:
    """A processor holds AdamW's step counters beside the moments; foreach on a card keeps them on the host, where no card counts them."""
    report = compare(simulated, traced)
    assert report.matched == report.allocations_in_trace
    assert report.moved == 0
    assert {(entry.where, entry.place.phase, entry.place.site) for entry in report.differences} == {
        (CARD_ALONE, Phase.OPTIMIZER_STEP, "aten.lift_fresh.default")
    }
    assert all(abs(entry.relative_error) < 0.01 for entry in report.phases)
    shown = draw(screen(SnapshotReports(reports=(report,), not_compared=())), Look(width=80))
    assert "both make" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_tensor_planted_among_thousands_is_found(simulated: History, traced: Any) -> None:
    """A megabyte that lives from the middle of the last forward to the end of backward."""
    first = max(index for index, label in enumerate(simulated.labels) if label.phase is Phase.FORWARD and label.step == 2)
    number = len(simulated.allocations) + 1
    births = [abs(signed) for signed in simulated.events]
    at = births.index(next(n + 1 for n, entry in enumerate(simulated.allocations) if entry.label == first))
    held = simulated.model_copy(
        update={
            "allocations": (*simulated.allocations, history.Allocation(MIB, first)),
            "events": (*simulated.events[:at], number, *simulated.events[at:]),
        }
    )
    report = compare(held, traced)
    assert (report.parts[0].why, report.parts[0].bytes) == (CARD_ALONE, MIB)
    assert report.parts[0].place is not None
    assert report.parts[0].place.near


def test_the_dry_run_played_on_an_allocator_is_the_dry_run(simulated: History, traced: Any) -> None:
    """As `_snapshot()` tells it: addresses that come again, frees that complete, every block and segment as the allocator lays it out."""
    held = history_of(
        from_snapshot(played(traced.stream)),
        peaks=[{"phase": phase, "allocated_bytes": moment.allocated_bytes} for phase, moment in traced.layout.peaks.items()],
    )
    report = compare(held, traced)
    assert (report.parts, report.differences, report.moved) == ((), (), 0)
    assert report.matched == report.allocations_in_trace
    assert all(entry.relative_error == 0 for entry in report.phases)
    assert report.card_reserved_bytes == report.trace_reserved_bytes


def played(stream: Stream) -> Iterator[dict[str, Any]]:
    """The entries that a card's allocator would have written."""
    allocator, blocks = Allocator(), {}
    steps = [index for index, text in stream.marks if text == STEP]
    for index, signed in enumerate(stream.events):
        born = stream.births[abs(signed) - 1]
        if not born.size_bytes:
            continue
        told = metadata_of(sum(step <= index for step in steps), stream.births[abs(signed) - 1].phase, born.place)
        if signed < 0:
            address = blocks[-signed].address
            allocator.free(blocks.pop(-signed))
            yield entry("free_requested", address, born.size_bytes, told)
            yield entry("free_completed", address, born.size_bytes, told)
            continue
        reserved = allocator.reserved_bytes
        blocks[signed] = block = allocator.malloc(born.size_bytes)
        if allocator.reserved_bytes > reserved:
            yield entry("segment_alloc", block.address, allocator.reserved_bytes - reserved, told)
        yield entry("alloc", block.address, born.size_bytes, told)
