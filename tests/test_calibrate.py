"""Records of calibrations and what later answers make of them: no torch, no child process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advisor import api, formulas
from advisor.accuracy.rows import Measurement
from advisor.calibration import export, store
from advisor.calibration.fit import non_negative
from advisor.calibration.formulas import ROOMS, digest
from advisor.calibration.run import _priced_anew, _unsteady
from advisor.cli.run import run
from advisor.errors import InvalidInputError, UnknownNameError
from advisor.memory import estimate_memory
from advisor.speed import step_time
from advisor.user_files import APPLICATION, DATA
from advisor.values import GpuSpec, MemoryBreakdown, Phase, Plan, Term, TermBytes
from advisor.values.calibration import Calibration, Hardware, PhaseMeasurement, Point, Timing
from advisor.values.card import StepRates

CARD = "H100 SXM"
MODEL = "llama-3.2-1b"
MODEL_ID = api.as_model(MODEL).id
PLAN = Plan(seq_len_tokens=512)


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA.variable, str(tmp_path))
    return tmp_path / "calibrations"


def card() -> GpuSpec:
    return api.as_gpu("h100")


def a_record(number: int = 0, **changes: object) -> Calibration:
    """What moves lay 10 % above the prediction, and weights were exact."""
    peak = PhaseMeasurement(
        phase=Phase.BACKWARD,
        measured=(TermBytes(term=Term.WEIGHTS, bytes=1000), TermBytes(term=Term.ACTIVATIONS, bytes=110)),
        predicted=(TermBytes(term=Term.WEIGHTS, bytes=1000), TermBytes(term=Term.ACTIVATIONS, bytes=100)),
    )
    timing = Timing(forward_s=1, backward_s=2, optimizer_s=0.1, micro_low_s=2.9, micro_high_s=3.1, steps=3)
    point = Point(layers=2, plan=PLAN, resting_bytes=1000, phases=(peak,), predicted_reserved_bytes=1100, timing=timing)
    rates = StepRates(
        s_per_block_flop=1e-14,
        s_per_head_flop=1e-14,
        s_per_pass=1e-4,
        s_per_optimizer_byte=1e-12,
        error_share=0.05,
        achieved_flop_per_s=1e14,
    )
    fields = {
        "id": f"20261124T1200{number:02}-abcdef",
        "created_at": "2026-11-24T12:00:00+00:00",
        "tool_version": "0.1.0",
        "formulas": digest(),
        "mode": "cut",
        "hardware": Hardware(backend="cuda", card="NVIDIA H100 80GB HBM3", profile=card().name),
        "versions": {},
        "model": MODEL_ID,
        "model_type": "llama",
        "model_layers": 16,
        "plan": PLAN,
        "points": (point,),
        "rates": rates,
        "context_bytes": 500_000_000,
    }
    return Calibration.model_validate({**fields, **changes})


def test_a_record_is_read_back_as_it_was() -> None:
    path = store.save(a_record())
    assert store.read(path).calibration == a_record()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("formulas", ["", "0123456789abcdef"])
def test_a_record_against_other_formulas_is_said_and_not_used(formulas: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.save(a_record(formulas=formulas))
    found = card()
    assert found.calibrations == ()
    assert "is ignored: it was held against the formulas of another version (finetune-advisor 0.1.0)" in found.resolved_from
    assert run(["calibrate", "--list"]) == 0
    assert "was held against the formulas of another version" in " ".join(capsys.readouterr().out.split())


NO_FORMULAS = {
    "bounded",
    "display",
    "errors",
    "formulas",
    "frames",
    "json_files",
    "names",
    "profiles",
    "refusals",
    "shown",
    "tiers",
    "units",
    "user_files",
    "yaml_files",
}
"""Rooms that predictions use and that make no byte of them: they read, refuse and name."""


def test_the_digest_of_the_formulas_is_of_all_code_that_predicts() -> None:
    from test_layers import PACKAGE, all_imports, room_of

    assert re.fullmatch("[0-9a-f]{16}", digest())
    seen: set[str] = set()
    waiting = {"memory", "dryrun", "speed"}
    while waiting:
        room = waiting.pop()
        seen.add(room)
        paths = [path for path in PACKAGE.rglob("*.py") if room_of(path) == room]
        assert paths, room
        parts = [name.split(".") for path in paths for name in all_imports(path) if name.startswith("advisor.")]
        waiting |= {part[1] for part in parts} - seen - {"__version__"}
    assert seen - NO_FORMULAS == set(ROOMS)


def test_a_digest_changes_with_a_letter_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room").mkdir()
    found = []
    for text in ("BYTES = 4", "BYTES = 2"):
        (tmp_path / "room" / "one.py").write_text(text, encoding="utf-8")
        (tmp_path / "other.py").write_text("", encoding="utf-8")
        monkeypatch.setattr(formulas, "_PACKAGE", tmp_path)
        found.append(formulas.digest.__wrapped__("room", "other"))
    assert found[0] != found[1]


def test_an_estimate_on_that_card_uses_it_and_says_so() -> None:
    model, before = api.as_model(MODEL), card()
    store.save(a_record())
    memory, unaware = (estimate_memory(model, PLAN, gpu) for gpu in (card(), before))
    assert memory.expected_bytes - memory.context_bytes == unaware.expected_bytes - unaware.context_bytes
    assert memory.context_bytes == 500_000_000
    below, above = memory.interval.low_share, memory.interval.high_share  # of all that is reserved; what moves lay 0 to 10 % above
    assert (below, above) == pytest.approx(tuple(share * memory.moving_bytes / memory.peak_reserved_bytes for share in (0.03, 0.13)))
    assert memory.interval.source.startswith("calibrated on this card on 2026-11-24")
    assert "1 calibration on this card" in card().resolved_from
    assert api.estimate(MODEL, PLAN, "h100", use_calibrations=False) == unaware
    time = step_time(model, PLAN, card())
    assert time is not None
    assert "achieved on this card" in time.seconds_per_step.source
    larger = step_time(api.as_model("llama-3.2-3b"), PLAN, card())
    assert larger is not None
    assert "achieved on this card" not in larger.seconds_per_step.source


@pytest.mark.parametrize(
    "plan",
    [PLAN.model_copy(update={"gradient_checkpointing": False}), PLAN.model_copy(update={"rank": 64})],
    ids=["other kind", "other rank"],
)
def test_residuals_speak_for_plans_of_their_kind(plan: Plan) -> None:
    store.save(a_record())
    calibrated = estimate_memory(api.as_model(MODEL), plan, card()).interval.source.startswith("calibrated")
    assert calibrated == (plan.kind == PLAN.kind)


def test_they_speak_for_no_other_card_and_no_other_model() -> None:
    store.save(a_record())
    assert api.as_gpu("rtx 4090").calibrations == ()
    assert not estimate_memory(api.as_model("qwen2.5-7b"), PLAN, card()).interval.source.startswith("calibrated")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[1]", "is no calibration"),
        ('{"a": 1}', "is no calibration"),
        ('{"calibration_version": 99}', "is of version 99"),
        ('{"calibration_version": 1}', "is damaged"),
    ],
)
def test_what_is_damaged_or_foreign_is_ignored_with_a_word(records: Path, text: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    good = store.save(a_record())
    good.with_name(f"{store.slug(card().name)}--bad.json").write_text(text, encoding="utf-8")
    (records / ".half-written.tmp").write_text("{", encoding="utf-8")
    found = card()
    assert len(found.calibrations) == 1
    assert f"calibration bad is ignored: it {word}" in found.resolved_from
    assert run(["calibrate", "--list"]) == 0
    assert word in capsys.readouterr().out


def test_other_versions_are_ignored_with_a_word() -> None:
    store.save(a_record(versions={"pydantic": "0.1", "no-such-library": "1"}))
    assert card().calibrations == ()
    assert "was measured with pydantic 0.1, and here is" in card().resolved_from


def test_many_at_once_keep_a_record_each(records: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.save, [a_record(number) for number in range(40)]))
    assert len(card().calibrations) == 40
    assert all(path.suffix == ".json" for path in records.iterdir())


def test_the_commands_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    store.save(a_record())
    name = a_record().id
    assert run(["calibrate", "--show", name]) == 0
    assert "Measured beside predicted" in capsys.readouterr().out
    assert run(["calibrate", "--export", name[:10]]) == 0
    rows = [Measurement.model_validate(row) for row in json.loads(capsys.readouterr().out)]
    assert [(row.scored, row.layers) for row in rows] == [(True, a_record().points[0].layers)]
    assert run(["calibrate", "--forget", name]) == 0
    assert card().calibrations == ()
    with pytest.raises(UnknownNameError, match="there are no calibrations"):
        store.find(name)


def test_what_another_card_says() -> None:
    """Rounding and kernels of another card speak for this one; tensors on a processor leave the verdict as it was."""
    model, held = api.as_model(MODEL), api.as_gpu("rtx 3060")
    found = _priced_anew(model, PLAN, held, a_record())
    memory = found["calibrated"]
    assert isinstance(memory, MemoryBreakdown)
    assert memory.interval.source.startswith("calibrated on NVIDIA H100 80GB HBM3 on 2026")
    assert memory.context_bytes == estimate_memory(model, PLAN, held).context_bytes
    assert _priced_anew(model, PLAN, held, a_record(hardware=Hardware(backend="cpu", card="a processor", profile="a processor"))) == {}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", MODEL, "--gpu", "80GB"], 3, "Not checked: a calibration needs torch"),
        (["--model", "llama-70b", "--gpu", "4GiB"], 1, "Not checked: nothing fits"),
    ],
)
def test_without_a_check_the_verdict_is_printed(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["advisor.calibration.run"], "find_spec", lambda name: None)
    assert run([*arguments, "--calibrate"]) == code
    shown = capsys.readouterr()
    assert "advise estimate --model" in shown.out  # the command of the plan, under the verdict
    assert words in shown.out
    assert run([*arguments, "--calibrate", "--json"]) == code
    assert words.removeprefix("Not checked: ") in json.loads(capsys.readouterr().out)["problem"]


@pytest.mark.parametrize(("slowest_s", "said"), [(3.3, 0), (30.0, 1)])
def test_unsteady_times_are_doubted_aloud(slowest_s: float, said: int) -> None:
    point = a_record().points[0]
    assert point.timing is not None
    unsteady = point.model_copy(update={"timing": point.timing.model_copy(update={"micro_high_s": slowest_s})})
    assert len(tuple(_unsteady((point, unsteady)))) == said


def test_a_row_of_the_whole_model_is_of_no_cut() -> None:
    record = a_record(model_layers=a_record().points[0].layers)
    row = Measurement.model_validate(export.row(record, record.points[0]))
    assert (row.scored, row.layers) == (True, None)


def test_a_row_of_a_processor_is_not_scored() -> None:
    record = a_record(hardware=Hardware(backend="cpu", card="a processor", profile="a processor"))
    row = Measurement.model_validate(export.row(record, record.points[0]))
    assert (row.scored, row.reason) == (False, "live storages were counted, not a card's memory")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "--device tpu"),
        (["--processes", "0"], "--processes 0"),
        (["--memory-limit", "much"], "'much' is not a size"),
        (["--time-limit", "-1"], "--time-limit -1"),
        (["--list"], "give one of them"),
        (["--accelerate-config", "/no/such.yaml"], "there is no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--accelerate-config" in arguments:
        pytest.importorskip("accelerate")
        pytest.importorskip("peft")
    assert run(["calibrate", "--model", MODEL, *arguments]) == 2
    complaint = capsys.readouterr().err
    assert words in complaint
    assert complaint.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv(DATA.variable, str(file))
    with pytest.raises(InvalidInputError, match="cannot be written"):
        store.save(a_record())


@pytest.mark.parametrize("base", ["", "/elsewhere"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs itself is asked")
def test_the_folder_is_the_one_of_platformdirs(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    import platformdirs

    monkeypatch.delenv(DATA.variable)
    monkeypatch.setenv("XDG_DATA_HOME", base)
    assert store.folder().parent == Path(platformdirs.user_data_dir(APPLICATION, appauthor=False))


@pytest.mark.parametrize(
    ("meets", "given", "taken"), [("127.0.0.1", None, True), ("127.0.0.1", "eth1", False), ("10.0.0.7", None, False), (None, None, False)]
)
def test_processes_that_meet_on_loopback_stay_there(
    meets: str | None, given: str | None, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor.calibration.worker import stay_on_this_machine

    variables = {"MASTER_ADDR": meets, "GLOO_SOCKET_IFNAME": given, "NCCL_SOCKET_IFNAME": given}
    for name, value in variables.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.if_nameindex", lambda: [(2, "eth0"), (1, "lo")])
    stay_on_this_machine()
    found = {os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    assert found == ({"lo"} if taken else {given})


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, advisor.calibration.run, advisor.render.calibrate; print('torch' in sys.modules, 'platformdirs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_rates_are_found_again_and_never_negative() -> None:
    rows = [(4.0, 2.0, 4.0), (2.0, 1.0, 4.0), (3.0, 2.0, 2.0), (1.5, 1.0, 2.0)]
    times = [2.0 * a + 3.0 * b + 0.5 * c for a, b, c in rows]
    assert non_negative(rows, times) == pytest.approx([2.0, 3.0, 0.5])
    assert min(non_negative(rows, [1.0, 5.0, 1.0, 5.0])) >= 0
