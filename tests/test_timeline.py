"""A recording as a trace file, against the Trace Event Format and against the breakdown of the same recording.

The format: "Trace Event Format", docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU, and what Perfetto reads of it
(perfetto.dev/docs/getting-started/other-formats).
"""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.run import run
from advisor.values import MemoryBreakdown

pytest.importorskip("torch", reason="needs the extra `torch`")
for library in ("transformers", "peft"):
    pytest.importorskip(library, reason="needs the extra `torch`")

COMMAND = "trace --model smollm2-135m --method lora --seq-len 256 --gpu t4 --timeline"
# What each kind of event must have: sections "Complete Events", "Counter Events", "Instant Events" and "Metadata Events".
FIELDS = {
    "X": {"name", "ph", "ts", "dur", "pid", "tid"},
    "C": {"name", "ph", "ts", "pid", "args"},
    "i": {"name", "ph", "s", "ts", "pid", "tid"},
    "M": {"name", "ph", "ts", "pid", "tid", "args"},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], MemoryBreakdown]:
    """The file, and what the command that wrote it says of the same recording."""
    path = tmp_path_factory.mktemp("timeline") / "step.json"
    path.write_text("an older one", encoding="utf-8")
    with redirect_stdout(StringIO()) as out:
        assert run([*COMMAND.split(), str(path), "--json"]) == 0
    return json.loads(path.read_text(encoding="utf-8")), MemoryBreakdown.model_validate_json(out.getvalue())


@pytest.fixture
def written(told: tuple[dict[str, Any], MemoryBreakdown]) -> dict[str, Any]:
    return told[0]


def of_kind(written: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in written["traceEvents"] if event["ph"] == kind]


def test_every_event_has_the_fields_of_its_kind(written: dict[str, Any]) -> None:
    assert set(written) == {"traceEvents", "otherData"}
    for event in written["traceEvents"]:
        assert set(event) == FIELDS[event["ph"]]
        assert isinstance(event["ts"], int)
    assert all(isinstance(value, int) and value >= 0 for event in of_kind(written, "C") for value in event["args"].values())


def test_phases_follow_each_other_without_a_gap(written: dict[str, Any]) -> None:
    slices = of_kind(written, "X")
    assert {event["name"] for event in slices} >= {"load", "forward", "backward", "optimizer_step"}
    ends = [event["ts"] + event["dur"] for event in slices]
    assert [event["ts"] for event in slices] == [0, *ends[:-1]]
    assert [event["name"] for event in of_kind(written, "i")] == ["a step begins"] * 2


def test_its_highest_moments_are_those_of_the_breakdown(told: tuple[dict[str, Any], MemoryBreakdown]) -> None:
    written, memory = told
    allocated = [sum(event["args"].values()) for event in of_kind(written, "C") if event["name"] == "allocated, by term"]
    reserved = [event["args"]["reserved"] for event in of_kind(written, "C") if event["name"] == "reserved"]
    assert max(allocated) == memory.peak_allocated_bytes
    assert max(reserved) == memory.peak_reserved_bytes
    assert all(one <= other for one, other in zip(allocated, reserved, strict=True))


@pytest.mark.parametrize(
    ("name", "said"),
    [("step.txt", "name a file that ends in .json"), ("none/step.json", "cannot be written: there is no folder none")],
)
def test_where_no_file_can_be_is_refused(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*COMMAND.split(), name]) == 2
    assert said in capsys.readouterr().err
