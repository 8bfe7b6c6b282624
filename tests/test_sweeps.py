"""Sweeps: arrays equal `estimate` to the byte, every row of a file says what `estimate` says, and a killed sweep loses nothing."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from test_memory_laws import models, plans

from advisor import AdvisorError, InvalidInputError, UnsupportedError, api, sweep
from advisor.cli.run import run
from advisor.devices import load_gpu
from advisor.ladder import classify
from advisor.memory import estimate_memory
from advisor.values import Fit, GpuSpec, Masters, Sharding
from advisor.values.sweep import SweepReport

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")

from advisor.memory.curves import curves_of, totals_in, totals_of  # noqa: E402
from advisor.memory.peak import resting_bytes  # noqa: E402
from advisor.sweeps.grid import read_sweep  # noqa: E402
from advisor.sweeps.kinds import rows_of  # noqa: E402
from advisor.sweeps.shapes import DOES_NOT_FIT, FITS, LARGEST_BYTES, UNCERTAIN, Shapes, exact, price  # noqa: E402

CODES = {Fit.FITS: FITS, Fit.UNCERTAIN: UNCERTAIN, Fit.DOES_NOT_FIT: DOES_NOT_FIT}
WORDS = {Fit.FITS: "fits", Fit.UNCERTAIN: "cannot tell", Fit.DOES_NOT_FIT: "no"}
CARDS = (*map(load_gpu, ("t4", "rtx 4090", "h100", "mi300x")), api.as_gpu("cpu", use_calibrations=False))


# ------------------------------------------------------------------------------------------------------------------- arrays


@st.composite
def sharded(draw: st.DrawFn, plan: Any) -> Any:
    """The plan on one card or on several, shared by any engine."""
    cards = draw(st.sampled_from((1, 2, 7, 8)))
    sharding = draw(st.sampled_from([each for each in Sharding if each is not Sharding.NONE])) if cards > 1 else Sharding.NONE
    own = Masters.LIFTED if sharding.is_fsdp else Masters.COPIED if sharding.is_zero else Masters.NONE
    masters = draw(st.sampled_from((Masters.NONE, own)))
    return plan.model_copy(update={"n_gpus": cards, "sharding": sharding, "masters": masters, "eval_micro_batch_size": None})


@given(models(), plans(), st.sampled_from(CARDS), st.data())
@settings(max_examples=60)
def test_arrays_equal_estimate_to_the_byte(model: Any, plan: Any, card: GpuSpec, data: st.DataObject) -> None:
    plan = data.draw(sharded(plan))
    seq_lens = data.draw(st.lists(st.integers(1, 4095), min_size=1, max_size=4))  # below the windows of these models: one kind
    batches = data.draw(st.lists(st.integers(1, 64), min_size=len(seq_lens), max_size=len(seq_lens)))
    plan = plan.model_copy(update={"seq_len_tokens": min(seq_lens)})
    curves = curves_of(model, plan, card)
    priced = price(curves, Shapes(np.array(batches), np.array(seq_lens)), card.usable_bytes)
    for row, (batch, seq_len) in enumerate(zip(batches, seq_lens, strict=True)):
        memory = estimate_memory(model, plan.model_copy(update={"micro_batch_size": batch, "seq_len_tokens": seq_len}), card)
        found = [int(column[row]) for column in priced]
        phase = [phase for phase, _ in curves.phases].index(memory.peak_phase)
        assert found == [
            memory.peak_allocated_bytes,
            memory.reserved_slack_bytes,
            memory.low_bytes,
            memory.expected_bytes,
            memory.high_bytes,
            phase,
            CODES[classify(memory, card.usable_bytes)],
        ]


@given(models(), plans(), st.sampled_from(CARDS), st.integers(1, 64), st.integers(1, 20_000), st.data())
@settings(max_examples=60)
def test_totals_are_those_of_the_breakdown(model: Any, plan: Any, card: GpuSpec, batch: int, seq_len: int, data: st.DataObject) -> None:
    """What searches ask for; whatever the length, beyond windows too. Nothing takes less than what rests."""
    plan = data.draw(sharded(plan)).model_copy(update={"micro_batch_size": batch, "seq_len_tokens": seq_len})
    memory = estimate_memory(model, plan, card)
    assert totals_of(model, plan, card) == totals_in(memory)
    assert resting_bytes(model, plan) <= memory.expected_bytes


@given(models(), plans(), st.sampled_from(CARDS), st.integers(1, 10**6), st.integers(1, 10**6))
@settings(max_examples=40)
def test_what_is_taken_for_exact_is(model: Any, plan: Any, card: GpuSpec, batch: int, seq_len: int) -> None:
    curves = curves_of(model, plan.model_copy(update={"eval_micro_batch_size": None, "seq_len_tokens": seq_len}), card)
    if exact(curves, batch, seq_len):
        tokens = batch * seq_len
        assert max(abs(size.at(tokens, tokens * seq_len)) for _, sizes in curves.phases for size in sizes) < LARGEST_BYTES


# --------------------------------------------------------------------------------------------------------------------- files

GRID = """
- model: [llama-3.2-1b, gemma-3-1b]
  gpu: [rtx 3060, h100]
  gpus: [1, 4]
  shard: [ddp, fsdp2, zero2]
  method: [lora, qlora, full]
  quantization: [nf4]
  seq_len: {from: 256, to: 1280, step: 512}
  batch_size: [1, 6, 20]
- {model: mistral-7b-v0.1, gpu: 24GB, rank: [8, 64], checkpointing: [true, false], grad_accum: [1, 2, 9], seq_len: [4095, 4096, 8k]}
- {model: mamba-130m, gpu: 24GB, method: lora}
"""
"""Windows that lengths reach (512, 4,096), accumulations of three kinds, contradictions (full with nf4), a model without tables."""


def written(folder: Path, text: str = GRID, name: str = "out.jsonl") -> tuple[Path, SweepReport]:
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
    report = sweep(folder / "sweep.yaml", folder / name)
    return folder / name, report


def said_by_estimate(row: dict[str, Any]) -> dict[str, Any]:
    """What `advise estimate` says of a row's options."""
    names = ("gpus", "method", "rank", "quantization", "checkpointing", "batch_size", "seq_len", "grad_accum")
    options = {name: row[name] for name in names if row.get(name) is not None}
    if row["gpus"] > 1:
        options["shard"] = row["shard"]
    gpu = "24GB" if row["gpu"] == "24 GB card" else row["gpu"]
    try:
        priced = api.price(row["model"], gpu, use_calibrations=False, **options)
    except AdvisorError as error:
        return {"verdict": "cannot tell", "high_bytes": None, "expected_bytes": None, "low_bytes": None, "reason": str(error)}
    memory, fit = priced.memory, priced.fit
    assert fit is not None
    sizes = {"low_bytes": memory.low_bytes, "expected_bytes": memory.expected_bytes, "high_bytes": memory.high_bytes}
    more = {"allocated_bytes": memory.peak_allocated_bytes, "slack_bytes": memory.reserved_slack_bytes}
    return {"verdict": WORDS[fit], **sizes, **more, "phase": memory.peak_phase.value, "usable_bytes": memory.usable_bytes, "reason": ""}


def test_every_row_says_what_estimate_says(tmp_path: Path) -> None:
    out, report = written(tmp_path)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == report.verdicts.rows == 2 * 2 * (1 + 3) * 3 * 9 + 2 * 2 * 9 + 1
    for row in rows:
        if row["model"] == "state-spaces/mamba-130m-hf":
            continue
        said = said_by_estimate(row)
        assert {name: row[name] for name in said} == said
    counted = [sum(row["verdict"] == word and not row["reason"] for row in rows) for word in ("fits", "no", "cannot tell")]
    assert counted == [report.verdicts.fits, report.verdicts.no, report.verdicts.cannot_tell]
    assert all(counted), "the grid shows every verdict"
    reasons = {row["reason"] for row in rows}
    assert any("called QLoRA" in reason for reason in reasons)
    assert any("its steps are recorded" in reason for reason in reasons)
    assert not any(path.name.endswith(".parts") for path in tmp_path.iterdir())


def test_every_format_holds_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    grid = "{model: llama-3.2-1b, gpu: h100, method: [lora, full], quantization: [nf4], seq_len: [512, 1024]}\n"
    lines = written(tmp_path, grid, "a.jsonl")[0].read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert json.loads(written(tmp_path, grid, "a.json")[0].read_text(encoding="utf-8")) == rows
    assert pq.read_table(written(tmp_path, grid, "a.parquet")[0]).to_pylist() == rows
    with written(tmp_path, grid, "a.csv")[0].open(encoding="utf-8", newline="") as file:
        assert [*csv.DictReader(file)] == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def test_a_kind_is_priced_alike_in_any_pieces(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{model: gemma-3-1b, gpu: h100, seq_len: {from: 1, to: 900, step: 7}, batch_size: [1, 8, 16]}")
    (kind,) = read_sweep(tmp_path / "s.yaml")
    whole = rows_of(kind, 0, kind.rows).priced
    parts = [rows_of(kind, first, min(first + 100, kind.rows)).priced for first in range(0, kind.rows, 100)]
    assert whole is not None
    assert all(part is not None for part in parts)
    for index, column in enumerate(whole):
        assert np.array_equal(column, np.concatenate([part[index] for part in parts if part is not None]))


# -------------------------------------------------------------------------------------------------------------------- refusals

REFUSED = [
    ("{gpu: 24GB}", "model is missing"),
    ("{model: llama-3.2-1b}", "gpu is missing"),
    ("{model: llama-3.2-1b, gpu: 24GB, batchsize: 2}", "batchsize: a sweep has no such option; did you mean batch_size?"),
    ("{model: llama-3.2-1b, gpu: 24GB, seq_len: many}", "seq-len many: "),
    ("{model: llama-3.2-1b, gpu: 24GB, seq_len: {from: 1, to: 9}}", "seq_len: a span is written"),
    ("{model: llama-3.2-1b, gpu: 24GB, seq_len: {from: 1, to: 9, step: 0}}", "seq_len: a span is written"),
    ("{model: llama-3.2-1b, gpu: 24GB, method: {from: 1, to: 9, step: 1}}", "method: only batch_size, seq_len"),
    ("{model: llama-3.2-1b, gpu: 24GB, rank: []}", "rank: there is no value"),
    ("{model: llama-3.2-1b, gpu: 24GB, rank: [null]}", "rank: write one value, or a list"),
    ("{model: llama-3.2-1b, gpu: 24GB, seq_len: {from: 1, to: 1000000, step: 1}, batch_size: {from: 1, to: 9999, step: 1}}", "at most"),
    ("{model: llama-3.2-1b, gpu: 24GB, seq_len: {from: 1, to: 99999999999, step: 1}}", "seq_len: 99,999,999,999 values; at most"),
    ("{model: llama-9, gpu: 24GB}", "model 'llama-9' is not known"),
    ("{model: llama-3.2-1b, gpu: 24GBB}", "no card called"),
    ("[]", "is no sweep"),
    ("hello", "is no sweep"),
    ("{model: [", "is not valid YAML"),
    ("{model: !!python/object/apply:os.system [ls], gpu: 24GB}", "is not allowed"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_refused_in_one_line_and_nothing_is_written(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        written(tmp_path, text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


SMALL = "{model: llama-3.2-1b, gpu: h100, method: [lora, full], seq_len: [512, 1024]}\n"


def test_nothing_is_overwritten_and_strangers_are_left_alone(tmp_path: Path) -> None:
    out, _ = written(tmp_path, SMALL)
    before = out.read_bytes()
    with pytest.raises(InvalidInputError, match="is there already"):
        written(tmp_path, SMALL)
    assert out.read_bytes() == before
    with pytest.raises(InvalidInputError, match="the end of the name is the format"):
        written(tmp_path, SMALL, "out.xls")
    with pytest.raises(InvalidInputError, match="there is no folder"):
        sweep(tmp_path / "sweep.yaml", tmp_path / "no" / "out.csv")
    (tmp_path / "b.csv.parts").mkdir()
    (tmp_path / "b.csv.parts" / "diary.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is in the way"):
        written(tmp_path, SMALL, "b.csv")
    (tmp_path / "b.csv.parts" / "sweep.json").write_text('{"sweep": "another"}')
    with pytest.raises(InvalidInputError, match="pieces of another sweep"):
        written(tmp_path, SMALL, "b.csv")
    assert (tmp_path / "b.csv.parts" / "diary.txt").read_text() == "mine"


def test_the_example_is_a_sweep() -> None:
    kinds = read_sweep(Path(__file__).parent.parent / "examples" / "sweep.yaml")
    assert sum(kind.rows for kind in kinds) > 500


def test_evaluation_and_models_without_tables_have_no_curves() -> None:
    from advisor.hub import load_model
    from advisor.values import Plan

    with pytest.raises(UnsupportedError, match="one plan at a time"):
        curves_of(load_model("llama-3.2-1b"), Plan(eval_micro_batch_size=2), CARDS[0])


@pytest.mark.parametrize(
    ("grid", "code"),
    [
        (SMALL, 0),
        ("{model: llama-70b, gpu: 24GB, method: lora}", 1),
        ("{model: llama-70b, gpu: 24GB, method: lora, quantization: nf4}", 3),
        ("{model: llama-70b, gpu: 24GB, method: nothing}", 2),
    ],
)
def test_exit_code_screen_and_json(grid: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(grid)
    assert run(["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "a.csv"), "--json"]) == code
    shown = capsys.readouterr()
    if code == 2:
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1
        return
    report = SweepReport.model_validate_json(shown.out)
    assert report.exit_code == code
    assert run(["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "b.csv")]) == code
    text = capsys.readouterr().out
    assert " ".join(text.split()).endswith(f"written to {tmp_path / 'b.csv'}.")
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80


# ------------------------------------------------------------------------------------------------------------------------ kills

KILLED = """
model: [llama-3.2-1b, gemma-3-1b]
gpu: [rtx 3060, h100]
method: [lora, qlora, full]
rank: [4, 8, 16, 32]
seq_len: {from: 128, to: 4096, step: 128}
batch_size: {from: 1, to: 32, step: 1}
"""
COMMAND = (sys.executable, "-m", "advisor", "sweep")


def started(folder: Path, out: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*COMMAND, str(folder / "k.yaml"), "--out", str(folder / out)], env=environment, **quiet)


@pytest.mark.parametrize("kills", [pytest.param(20, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_sweep_goes_on_to_the_same_bytes(kills: int, tmp_path: Path) -> None:
    """Killed at random moments of a real process, again and again, until that many kills have hit; each sweep then runs to its end."""
    (tmp_path / "k.yaml").write_text(KILLED, encoding="utf-8")
    whole = started(tmp_path, "whole.parquet")
    begun = time.monotonic()
    assert whole.wait(120) == 0
    lasts_s = time.monotonic() - begun
    expected = (tmp_path / "whole.parquet").read_bytes()
    draw, hits, number = random.Random(kills), 0, 0
    while hits < kills:
        out, number = tmp_path / f"{number}.parquet", number + 1
        for _ in range(4):  # of one sweep
            child = started(tmp_path, out.name)
            try:
                child.wait(draw.uniform(0.2, 1.0) * lasts_s)
                break
            except subprocess.TimeoutExpired:
                child.send_signal(draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)))
                hits += child.wait(60) != 0
        if not out.exists():
            assert started(tmp_path, out.name).wait(120) == 0
        assert out.read_bytes() == expected


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    def interrupts(text: str) -> None:
        if text.startswith("1 of"):
            raise KeyboardInterrupt

    (tmp_path / "sweep.yaml").write_text(SMALL, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "sweep.yaml", tmp_path / "out.csv", progress=interrupts)
    piece = tmp_path / "out.csv.parts" / "000000-0000.arrow"
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match=r"000000-0000\.arrow is damaged or gone; delete it"):
        sweep(tmp_path / "sweep.yaml", tmp_path / "out.csv")
    piece.unlink()
    assert sweep(tmp_path / "sweep.yaml", tmp_path / "out.csv").exit_code == 0


def test_an_interrupted_sweep_leaves_whole_pieces_alone(tmp_path: Path) -> None:
    """Ctrl-C in the middle: the pieces that are there are whole, none is priced again, and the folder is gone at the end."""
    grid, out, told = tmp_path / "sweep.yaml", tmp_path / "out.csv", []
    grid.write_text(SMALL.replace("[lora, full]", "[lora, qlora, full]"), encoding="utf-8")

    def interrupts(text: str) -> None:
        told.append(text)
        if text.startswith("2 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(grid, out, progress=interrupts)
    parts = tmp_path / "out.csv.parts"
    assert sorted(path.name for path in parts.iterdir()) == ["000000-0000.arrow", "000001-0000.arrow", "sweep.json"]
    report = sweep(grid, out, progress=told.append)
    assert report.resumed == 2
    assert [text for text in told if " of 3" in text] == [f"{n} of 3 kinds of plans, {2 * n + 2} rows" for n in (0, 1, 2, 2)]
    assert not parts.exists()
    assert out.read_bytes() == written(tmp_path, grid.read_text(encoding="utf-8"), "again.csv")[0].read_bytes()
