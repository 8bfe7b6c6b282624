"""The grid that is run on a card: its table, the plans at a card's edge, and the script itself with small models on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from advisor import api
from advisor.accuracy import Measurement, Metric, read_measurements
from advisor.accuracy.history import SUFFIX
from advisor.devices import load_gpu
from advisor.errors import AdvisorError, InvalidInputError
from advisor.memory import estimate_memory
from advisor.values import Phase, Plan
from advisor.values.calibration import Ending
from benchmarks.card import boundaries, grid
from benchmarks.card.contribute import add, contribute
from benchmarks.card.grid import Row, run_of
from benchmarks.card.launcher import Ended
from benchmarks.card.rows import row_of, text_of

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "on_card.py"
EVERY_ROW = (*grid.ROWS, *grid.SIDE_BY_SIDE)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_every_row_has_an_id_of_its_own() -> None:
    ids = [row.id for row in EVERY_ROW]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.id)
def test_every_row_is_a_plan(row: Row) -> None:
    run = run_of(row, load_gpu("h100"))
    assert run.plan.method.value == row.method
    assert (run.plan.grad_accum_steps, run.plan.n_gpus) == (row.options["grad_accum"], 1)
    assert run.config is None


def test_the_grid_is_wide() -> None:
    plans = [run_of(row, load_gpu("h100")).plan for row in grid.ROWS]
    for setting in (
        "method",
        "base_dtype",
        "autocast",
        "optimizer",
        "gradient_checkpointing",
        "use_reentrant",
        "attention",
        "padding",
        "lora_dropout",
        "loss",
        "stack",
        "grad_accum_steps",
        "kbit_prepare",
        "quantization",
    ):
        assert len({getattr(plan, setting) for plan in plans}) > 1, setting


@pytest.mark.parametrize("name", ["h100", "h200", "a100 40gb", "rtx 4090", "l4", "a6000"])
def test_boundaries_lie_at_the_cards_edge(name: str) -> None:
    gpu = load_gpu(name)
    found = boundaries.runs(gpu)
    memories = [estimate_memory(run.ran, run.plan, gpu) for run in found]
    fits = [memory for memory in memories if memory.high_bytes <= gpu.usable_bytes]
    refused = [memory for memory in memories if memory.low_bytes > gpu.usable_bytes]
    assert (len(fits), len(refused)) == (boundaries.EACH, boundaries.EACH)
    assert all(memory.high_bytes >= (1 - boundaries.NEAR) * gpu.usable_bytes for memory in fits)
    assert all(memory.low_bytes <= (1 + boundaries.NEAR) * gpu.usable_bytes for memory in refused)
    assert len({(run.model.id, run.plan.method) for run in found}) >= boundaries.EACH


# Rows, without a run.

RESULT = {
    "phases": {"load": 10, "forward": 30, "backward": 40, "optimizer_step": 20},
    "reserved": {"load": 20, "forward": 50, "backward": 60, "optimizer_step": 60},
    "process_bytes": 100,
    "context_bytes": 40,
    "card": "NVIDIA H100 80GB HBM3",
    "driver": "driver 580, CUDA 13.0",
    "compute_capability": "9.0",
    "timing": {"step_s": 0.5},
}
RUN = next(row for row in grid.ROWS if row.layers)


@pytest.mark.parametrize(
    ("ended", "kind", "scored", "readings"),
    [
        (Ended(Ending.DONE, "", "", ("a note",), RESULT, None), "run", True, {"allocated": 40, "reserved": 60, "process": 100}),
        (Ended(Ending.OUT_OF_MEMORY, "backward", "CUDA out of memory", (), None, None), "boundary", True, {}),
        (Ended(Ending.KILLED, "load", "the process ended with code -9", (), None, None), "run", False, {}),
        # measured, and dead while it was timed
        (Ended(Ending.KILLED, "forward", "the process ended with code -11", (), RESULT, None), "run", True, {"allocated": 40}),
        (Ended(Ending.FAILED, "load", "ValueError: no", (), None, None), "run", False, {}),
    ],
)
def test_every_end_is_a_row(ended: Ended, kind: str, scored: bool, readings: dict[str, int]) -> None:
    gpu = load_gpu("h100")
    row = row_of(run_of(RUN, gpu), ended, gpu, on_cpu=False)
    assert (row.kind, row.scored, row.card, row.layers) == (kind, scored, gpu.name, RUN.layers)
    assert readings.items() <= {reading.metric.value: reading.bytes for reading in row.readings}.items()
    assert row.fits is (False if kind == "boundary" else None)
    assert bool(row.reason) is not scored
    if ended.ending is not Ending.DONE:
        assert (row.stated["ending"], row.stated["ended_in"]) == (ended.ending.value, ended.phase)


def test_a_cut_is_priced_as_a_cut() -> None:
    """The row of a model's first layers is held against the closed form of as many."""
    from advisor.accuracy import CLOSED_FORM, accuracy, closed_form

    gpu = load_gpu("h100")
    run = run_of(RUN, gpu)
    row = row_of(run, Ended(Ending.DONE, "", "", (), RESULT, None), gpu, on_cpu=False)
    report = accuracy(closed_form, CLOSED_FORM, rows=[row])
    assert report.not_scored == ()
    allocated = next(item for item in report.comparisons if item.metric is Metric.ALLOCATED)
    assert allocated.predicted_bytes == estimate_memory(run.ran, run.plan, gpu).peak_allocated_bytes


def test_a_grid_of_unknown_models_says_so() -> None:
    with pytest.raises(AdvisorError):
        run_of(Row("nobody/unknown-1b", "lora", {"batch_size": 1, "seq_len": 64}), None)


# The script itself.


def on_card(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out.parent, timeout=400, check=False)


@pytest.mark.long
def test_the_script_runs_ends_and_goes_on(tmp_path: Path) -> None:
    """Two runs: one is measured; the other dies, as bitsandbytes pages on cards alone, and is a row all the same."""
    for library in ("torch", "transformers", "peft", "accelerate", "bitsandbytes"):
        pytest.importorskip(library)
    out = tmp_path / "out"
    chosen = ("--only", "0.5b-lora-2x1024-eager-no-checkpointing,full-2x1024-paged-adamw-8bit", "--minutes", "5")
    first = on_card(out, *chosen)
    assert first.returncode == 0, first.stderr
    rows = read_measurements(out / "rows.json")
    row, dead = rows
    assert row.reason == "live storages were counted, not a card's memory"
    assert row.settings.method == "lora"
    assert {stage.name for stage in row.stages} == {"load", "forward", "backward", "optimizer_step"}
    assert row.stated["timing"]["steps"] >= 3
    assert (dead.stated["ending"], dead.stated["ended_in"]) == ("failed", "load")
    assert "bitsandbytes pages on CUDA" in dead.stated["message"]
    again = on_card(out, *chosen)
    assert again.returncode == 0, again.stderr
    assert read_measurements(out / "rows.json") == rows
    assert [path.name for path in sorted(out.iterdir())] == [f"{row.stated['run']}{SUFFIX}", "rows.json"]
    (report,) = api.snapshots(out).reports
    assert report.matched / report.allocations_in_trace > 0.98
    assert all(abs(entry.relative_error) < 0.01 for entry in report.phases)


def test_what_is_missing_is_named_in_one_line(tmp_path: Path) -> None:
    """Without site-packages nothing is there but the standard library."""
    ran = subprocess.run([sys.executable, "-S", "-I", str(SCRIPT)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: this needs torch, transformers, accelerate, peft, pydantic")
    assert len(ran.stderr.splitlines()) == 1


def test_the_list_needs_no_card(tmp_path: Path) -> None:
    ran = on_card(tmp_path / "out", "--list", "--only", "dora")
    assert ran.returncode == 0
    assert ran.stdout.splitlines()
    assert all("dora" in line for line in ran.stdout.splitlines())
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_a_card_and_its_dry_run_are_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--only", "0.5b-lora-2x1024-no-checkpointing", "--minutes", "3"]
    assert subprocess.run(command, timeout=400, check=False).returncode == 0
    (report,) = api.snapshots(out).reports
    assert report.matched / report.allocations_in_trace > 0.95
    assert all(abs(entry.relative_error) < 0.005 for entry in report.phases)
    rows = json.loads((out / "rows.json").read_text())
    assert Plan.model_validate({**rows[0]["settings"], "n_gpus": 1}).method.value == "lora"
    tiers = api.accuracy(out / "rows.json", trace=True)
    assert all(abs(item.relative_error) < 0.06 for tier in tiers for item in tier.comparisons if item.metric is not Metric.PROCESS)


# Contributing.


def measured(run_id: str, name: str = "h100", **result: object) -> Measurement:
    gpu = load_gpu(name)
    row = row_of(run_of(RUN, gpu), Ended(Ending.DONE, "", "", (), {**RESULT, **result}, None), gpu, on_cpu=False)
    return row.model_copy(update={"id": run_id})


def test_rows_are_merged_by_their_ids(tmp_path: Path) -> None:
    first, second, again = measured("a"), measured("b"), measured("a", process_bytes=101)
    target = add((first, second), tmp_path)
    assert target.name == "on_card_h100_sxm5_80gb.json"
    assert read_measurements(target) == (first, second)
    assert add((again,), tmp_path) == target
    assert read_measurements(target) == (again, second)


def test_rows_of_no_card_or_of_several_are_refused(tmp_path: Path) -> None:
    gpu = load_gpu("h100")
    of_cpu = row_of(run_of(RUN, gpu), Ended(Ending.DONE, "", "", (), RESULT, None), gpu, on_cpu=True)
    for rows in ((of_cpu,), (measured("a"), measured("b", "h200"))):
        with pytest.raises(InvalidInputError, match="of no card, or of several"):
            add(rows, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_rows_of_other_libraries_are_traced_where_they_ran(tmp_path: Path) -> None:
    rows = [measured("a").model_copy(update={"versions": {"transformers": "4.48.0"}})]
    (tmp_path / "rows.json").write_text(text_of(rows), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"ran with transformers 4\.48\.0"):
        contribute(tmp_path)


# What a card's run tells the allocator, on an allocator that writes down what it is told.


def test_each_allocation_is_told_its_step_phase_and_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.card import watch
    from benchmarks.card.child import _Counters

    told: list[str] = [""]
    memory = torch.cuda.memory
    monkeypatch.setattr(memory, "_set_memory_metadata", told.append, raising=False)
    monkeypatch.setattr(memory, "_record_memory_history", lambda *arguments, **options: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    counters = _Counters(SimpleNamespace(), SimpleNamespace(at=lambda phase: None))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2)))
    closed: list[str] = []
    trainee = SimpleNamespace(
        at=counters.begin,
        built=SimpleNamespace(model=model),
        recorder=SimpleNamespace(close=lambda: closed.append("closed")),
        backend=SimpleNamespace(device=torch.device("cuda")),
    )
    entries: list[dict[str, object]] = []

    def allocate(*_: object) -> None:
        entries.append({"action": "alloc", "addr": len(entries), "size": 1, "user_metadata": told[-1], "frames": []})

    hook = model[1][0].register_forward_pre_hook(allocate)
    job = SimpleNamespace(device="cuda", run=SimpleNamespace(history=True))
    counters.begin(Phase.LOAD)
    watched = watch.of(job, counters)
    with watched.steps(trainee):
        for _ in range(2):
            for _ in range(2):  # an accumulation
                trainee.at(Phase.FORWARD)
                model(torch.ones(1, 2))
                allocate()
                trainee.at(Phase.BACKWARD)
                allocate()
            trainee.at(Phase.OPTIMIZER_STEP)
            allocate()
    hook.remove()
    assert (closed, trainee.recorder, told[-1]) == (["closed"], None, "")
    monkeypatch.setattr(memory, "_snapshot", lambda: {"device_traces": [entries]})
    watched.write(trainee, tmp_path / "events.json")
    labels, allocations, events, segments = json.loads((tmp_path / "events.json").read_text())
    found = [tuple(labels[label][:3]) for _, label in allocations]
    micro = [("forward", "1.0"), ("forward", ""), ("backward", "")]
    step = [*micro, *micro, ("optimizer_step", "")]
    assert found == [(number, *place) for number in (1, 2) for place in step]
    assert (events, segments) == ([*range(1, len(found) + 1)], [])
