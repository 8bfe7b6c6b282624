"""The ledger of runs: many writers lose nothing, every source is understood, and what is broken is one clear line."""

from __future__ import annotations

import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor import Evaluation, Method, Plan, Quantization, RunRecord, record, runs
from advisor.cli.run import run as command
from advisor.errors import AdvisorError, InvalidInputError
from advisor.ledger import book, facts_from_ledger, record_all
from advisor.render.runs import recorded, run as one_run, runs as listing
from advisor.render.terminal import Look, draw
from advisor.values.evidence import LossPoint

LEDGER = "advise-runs.sqlite"
LORA = {"method": "lora", "rank": 16, "alpha": 32, "learning_rate": 2e-4}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a project directory of its own, and works in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADVISE_LEDGER", raising=False)
    return tmp_path


def write(path: str, content: object) -> str:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# What is stored is read back


def test_a_run_is_stored_and_numbered() -> None:
    first = record(**LORA, metric="exact_match", score=0.482, n=1319, oom=False, peak_bytes=41 * 10**9, tokens=4_200_000, seed=0)
    second = record(method="qlora", rank=64)
    assert (first.id, second.id) == (1, 2)
    assert runs() == (first, second)
    assert first.method is Method.LORA
    assert first.final_score == Evaluation(metric="exact_match", score=0.482, n=1319)
    assert first.recorded_at.endswith("+00:00")
    assert Path(LEDGER).is_file()
    assert sorted(os.listdir()) == [LEDGER]


def test_a_project_without_a_ledger_has_no_runs() -> None:
    assert runs() == ()
    assert not Path(LEDGER).exists()
    with pytest.raises(InvalidInputError, match="there is no ledger here"):
        runs("elsewhere.sqlite")


def test_the_ledger_can_be_named(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    (project / "other").mkdir()
    record(**LORA, ledger="mine.sqlite")
    record(**LORA, ledger="other")
    monkeypatch.setenv("ADVISE_LEDGER", str(project / "env.sqlite"))
    record(**LORA)
    assert sorted(str(path.relative_to(project)) for path in project.rglob("*.sqlite")) == ["env.sqlite", "mine.sqlite", f"other/{LEDGER}"]


def test_losses_that_are_no_numbers_are_kept() -> None:
    stored = record(**LORA, train_losses=[(1, 2.5), (2, math.nan), (3, math.inf)], eval_losses=[(3, -math.inf)])
    assert stored.has_diverged
    (read,) = runs()
    assert [point.step for point in read.train_losses] == [1, 2, 3]
    assert math.isnan(read.train_losses[1].loss)
    assert read.train_losses[2].loss == math.inf
    assert read.eval_losses[0].loss == -math.inf
    assert read.has_diverged
    text = read.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)  # no NaN, which is no JSON
    assert repr(RunRecord.model_validate_json(text)) == repr(read)


def test_a_plan_gives_the_options_that_follow_from_it() -> None:
    plan = Plan(
        method=Method.QLORA, quantization=Quantization.NF4, rank=8, alpha=16, micro_batch_size=2, grad_accum_steps=4, use_rslora=True
    )
    stored = record(plan=plan, learning_rate=1e-4)
    assert stored.plan == plan
    assert (stored.method, stored.rank, stored.quantization, stored.use_rslora) == (Method.QLORA, 8, Quantization.NF4, True)
    assert stored.sequences_per_step == 8
    assert runs() == (stored,)
    with pytest.raises(InvalidInputError, match="rank is 4 there and 8 here"):
        record(plan=plan, rank=4)


curves = st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=False)), max_size=5)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {"method": st.sampled_from(Method), "learning_rate": st.floats(1e-9, 10), "train_losses": curves, "eval_losses": curves},
        optional={"rank": st.integers(1, 4096), "oom": st.booleans(), "peak_bytes": st.integers(0, 10**13), "name": st.text(max_size=20)},
    )
)
def test_whatever_is_stored_is_read_back(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("law") / LEDGER
    stored = record(**fields, ledger=path)
    assert runs(path) == (stored,)


def test_what_was_not_known_is_added_to_a_run() -> None:
    record(**LORA)
    later = record(run=1, seed=3, metric="exact_match", score=0.48, n=100)
    again = record(run=1, metric="pass_at_1", items=[True, False, True, True], item_ids=["a", "b", "c", "d"])
    assert later.id == again.id == 1
    assert [entry.metric for entry in again.evaluations] == ["exact_match", "pass_at_1"]
    assert again.evaluations[1].score == 0.75
    assert again.evaluations[1].n == 4
    assert again.seed == 3
    assert runs() == (again,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run": 1, "rank": 8}, "run 1: rank is 16 there and 8 here; a run keeps what it is"),
        ({"run": 2, "seed": 1}, "holds no run 2: its 1 runs are numbered up to 1"),
        ({"run": 1, "oom": True}, "ran out of memory has no score"),
        ({}, "there is nothing to record"),
        ({"bogus": 1}, "bogus: there is no such field"),
        ({"method": "lorra"}, "method 'lorra': must be 'lora'"),
        ({"rank": 0}, "rank '0': must be greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate 'nan': must be a finite number"),
        ({"learning_rate": -1}, "learning_rate '-1': must be greater than 0"),
        ({"score": math.nan}, "score 'nan': must be a finite number"),
        ({"metric": "exact_match"}, "metric is given without a score"),
        ({"n": 5}, "n is given without a score"),
        ({"score": 0.5, "n": 0}, "n '0': must be greater than 0"),
        ({"items": [1, 0], "n": 3}, "n is 3, but there are 2 items"),
        ({"items": [1, 0], "score": 0.9}, "score is 0.9, but the mean of the items is 0.5"),
        ({"items": [1, 0], "item_ids": ["a"]}, "1 names for 2 items"),
        ({"items": [1, 0], "item_ids": ["a", "a"]}, "an item is named twice"),
        ({"items": [1, math.nan]}, "must be a finite number"),
        ({"method": "lora", "quantization": "nf4"}, "LoRA on a quantised base is called QLoRA"),
        ({"method": "full", "quantization": "nf4"}, "full fine-tuning does not train quantised weights"),
        ({"kind": "base", "method": "lora"}, "the untuned model has no method"),
        ({"oom": True, "score": 0.4}, "ran out of memory has no score"),
        ({"train_losses": "x"}, "train_losses"),
        ({"train_losses": [(-1, 2.0)]}, "train_losses.0.step '-1.?0?': must be greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_lost(fields: dict[str, Any], said: str) -> None:
    kept = record(**LORA, score=0.5, n=10)
    before = Path(LEDGER).read_bytes()
    with pytest.raises(InvalidInputError, match=said) as refusal:
        record(**fields)
    assert "\n" not in str(refusal.value)
    assert Path(LEDGER).read_bytes() == before
    assert runs() == (kept,)


def test_a_percentage_may_stand_beside_items() -> None:
    assert record(items=[1, 0, 1, 1], score=75).final_score is not None


# Many writers


WRITER = """
import sys
from advisor import record
for number in range(200):
    record(method="lora", rank=8, seed=number, name=f"{sys.argv[1]}-{number}", metric="exact_match", score=0.5, n=10)
"""


@pytest.mark.long
def test_eight_processes_writing_two_hundred_runs_each_lose_none() -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(number)], stderr=subprocess.PIPE, text=True) for number in range(8)]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    found = runs()
    assert len(found) == 1600
    assert sorted(entry.name for entry in found) == sorted(f"{writer}-{number}" for writer in range(8) for number in range(200))
    assert [entry.id for entry in found] == list(range(1, 1601))
    for writer in range(8):
        own = [entry.seed for entry in found if entry.name.startswith(f"{writer}-")]
        assert own == list(range(200))


AMENDER = """
import sys
from advisor import record
for number in range(25):
    record(run=1, metric=f"metric-{sys.argv[1]}-{number}", score=0.5, n=10)
"""


def test_writers_of_the_same_run_lose_no_evaluation() -> None:
    record(**LORA)
    writers = [subprocess.Popen([sys.executable, "-c", AMENDER, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    (found,) = runs()
    assert len(found.evaluations) == 100


def test_a_writer_that_is_killed_in_the_middle_leaves_the_rest_whole() -> None:
    kept = record(**LORA)
    code = (
        "import os, sqlite3\n"
        f"c = sqlite3.connect('{LEDGER}', isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute(\"INSERT INTO runs (recorded_at, body) VALUES ('now', '{}')\")\n"
        "c.execute('PRAGMA cache_spill = 1')\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert runs() == (kept,)
    assert record(**LORA).id == 2


def test_a_lock_that_is_held_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    record(**LORA)
    monkeypatch.setattr(book, "BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(LEDGER, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InvalidInputError, match="locked by another process"):
        record(**LORA)
    holder.close()
    assert record(**LORA).id == 2


def test_a_second_writer_waits_for_the_first() -> None:
    """sqlite.org/lang_transaction.html: what has read before it writes is refused at once where another writes, however patient it is; an
    immediate transaction waits before it reads."""
    record(**LORA)
    others: list[RunRecord] = []
    second = threading.Thread(target=lambda: others.extend(book.add(Path(LEDGER), [RunRecord(method=Method.DORA)], patience_s=60)))

    def changed(run: RunRecord) -> RunRecord:
        second.start()
        second.join(0.5)
        return run

    book.amend(Path(LEDGER), 1, changed)
    second.join()
    assert [run.id for run in others] == [2]
    assert [run.method for run in runs()] == [Method.LORA, Method.DORA]


# Damaged ledgers


def damaged(change: Callable[[bytes], bytes]) -> Callable[[], None]:
    return lambda: (Path(LEDGER).write_bytes(change(Path(LEDGER).read_bytes())), None)[1]


def executed(*statements: str) -> Callable[[], None]:
    def change() -> None:
        connection = sqlite3.connect(LEDGER)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


DAMAGES: dict[str, tuple[Callable[[], None], str]] = {
    "another file": (damaged(lambda held: b"these are my notes\n"), "no ledger, or its beginning is damaged"),
    "a short file": (damaged(lambda held: b"x"), "no ledger, or its beginning is damaged"),
    "a zeroed header": (damaged(lambda held: bytes(100) + held[100:]), "no ledger, or its beginning is damaged"),
    "cut to the header": (damaged(lambda held: held[:100]), "is damaged"),
    "cut in the first page": (damaged(lambda held: held[:3000]), "is damaged"),
    "cut after a page": (damaged(lambda held: held[:4096]), "is damaged"),
    "another program's": (executed("PRAGMA application_id = 7"), "SQLite file of another program"),
    "a newer version": (executed("PRAGMA user_version = 99"), "ledger of version 99, and this program knows version 2: upgrade"),
    "an older version": (executed("PRAGMA user_version = 0"), "ledger of version 0"),
    "no table": (executed("DROP TABLE runs", "CREATE TABLE other (x)"), "its table of runs is missing"),
}


def sixty_runs() -> None:
    for number in range(60):
        record(**LORA, name=f"run {number}", notes=("x" * 200,))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_ledger_of_which_nothing_can_be_read_is_one_line_and_left_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sixty_runs()
    damage, said = DAMAGES[name]
    damage()
    before = Path(LEDGER).read_bytes()
    for attempt in (runs, lambda: record(**LORA), lambda: record(run=1, seed=1), facts_from_ledger):
        with pytest.raises(InvalidInputError, match=said) as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
        assert Path(LEDGER).read_bytes() == before
    assert sorted(os.listdir()) == [LEDGER]
    for arguments in (["runs"], ["record", "--method", "lora"], ["runs", "--json"]):
        assert command(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
    assert Path(LEDGER).read_bytes() == before


PARTIAL: dict[str, tuple[Callable[[], None], str]] = {
    "a changed letter": (damaged(lambda held: held.replace(b'"run 41"', b'"run 91"')), r"run 42 is not what was stored"),
    "a changed number": (damaged(lambda held: held.replace(b'"run 7"', b'"run \xff"')), r"run 8 is not what was stored"),
    "a changed date": (executed("UPDATE runs SET recorded_at = '1999' WHERE id = 3"), "run 3 is not what was stored"),
    "a changed text": (executed("""UPDATE runs SET body = '{"rank": 8}' WHERE id = 5"""), "run 5 is not what was stored"),
    "another's text": (
        executed("UPDATE runs SET body = (SELECT body FROM runs WHERE id = 2) WHERE id = 6"),
        "run 6 is not what was stored",
    ),
    "cut near the end": (damaged(lambda held: held[:-1000]), "run 56 cannot be read"),
    "a page of noise": (damaged(lambda held: held[:12288] + bytes(range(256)) * 16 + held[16384:]), "run 1 cannot be read"),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_what_is_damaged_is_named_and_the_rest_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sixty_runs()
    whole = runs()
    damage, said = PARTIAL[name]
    damage()
    before = Path(LEDGER).read_bytes()
    with pytest.warns(UserWarning, match=f"is damaged .*{said}") as warned:
        left = runs()
    assert "\n" not in str(warned[0].message)
    assert 30 < len(left) < 60
    assert all(entry in whole for entry in left)  # none is another than was stored
    for attempt in (lambda: record(**LORA), lambda: record(run=left[0].id, seed=1), lambda: record(run=42, seed=1)):
        with pytest.raises(InvalidInputError, match="is damaged"):
            attempt()
    assert said.split()[0] in facts_from_ledger().notes[0]
    assert command(["runs"]) == 2
    printed = capsys.readouterr()
    assert printed.out.count("LoRA") == len(left)
    assert printed.err.startswith(f"error: {LEDGER}")
    assert printed.err.count("\n") == 1
    assert command(["next", "--model", "llama-2-7b"]) in (0, 3)
    assert "is damaged" in " ".join(capsys.readouterr().out.split())
    assert Path(LEDGER).read_bytes() == before
    assert sorted(os.listdir()) == [LEDGER]


def test_the_runs_that_are_left_go_on_in_a_new_file_as_the_error_says(capsys: pytest.CaptureFixture[str]) -> None:
    sixty_runs()
    PARTIAL["a changed letter"][0]()
    assert command(["runs", "42"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "run 42 is not what was stored" in printed.err
    assert "advise runs --json > runs.json, and advise record runs.json --ledger NEW" in printed.err
    assert command(["runs", "--json"]) == 2
    Path("runs.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert command(["record", "runs.json", "--ledger", "new.sqlite"]) == 0
    names = [entry.name for entry in runs("new.sqlite")]
    assert names == [f"run {number}" for number in range(60) if number != 41]


def test_whatever_bytes_are_flipped_no_run_is_another_and_a_refusal_changes_nothing() -> None:
    for number in range(30):
        record(**LORA, name=f"run {number}", notes=("x" * 150,))
    stored = runs()
    whole, chance = Path(LEDGER).read_bytes(), random.Random(0)
    refusals, partial = [], 0
    for _ in range(100):
        flipped = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            flipped[chance.randrange(chance.choice([4200, len(whole)]))] = chance.randrange(256)
        Path(LEDGER).write_bytes(flipped)
        try:
            held = book.load(Path(LEDGER))
        except AdvisorError as refusal:
            refusals.append(str(refusal))
        else:
            assert all(entry in stored for entry in held.runs)
            assert (held.runs == stored) or held.problem
            partial += bool(held.problem)
        for attempt in (lambda: record(method="lora"), lambda: record(run=3, seed=1)):
            before = Path(LEDGER).read_bytes()
            try:
                attempt()
            except AdvisorError as refusal:
                refusals.append(str(refusal))
                unchanged = Path(LEDGER).read_bytes() == before
                assert unchanged
    assert len(refusals) > 60
    assert partial > 20
    assert not any("\n" in text for text in refusals)


def test_a_ledger_without_checksums_is_read_and_gets_them_when_a_run_is_stored() -> None:
    """As version 1 wrote it: a file made here by that version's own statements, not by the code under test."""
    connection = sqlite3.connect(LEDGER)
    connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, recorded_at TEXT NOT NULL, body TEXT NOT NULL)")
    rows = [("2026-11-20T10:00:00+00:00", f'{{"method":"lora","rank":{rank}}}') for rank in (8, 16)]
    connection.executemany("INSERT INTO runs (recorded_at, body) VALUES (?, ?)", rows)
    connection.execute(f"PRAGMA application_id = {0x41647652}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    before = Path(LEDGER).read_bytes()
    assert [(entry.id, entry.rank) for entry in runs()] == [(1, 8), (2, 16)]
    assert Path(LEDGER).read_bytes() == before
    record(method="lora", rank=32)
    assert [(entry.id, entry.rank) for entry in runs()] == [(1, 8), (2, 16), (3, 32)]
    executed("UPDATE runs SET body = '{}' WHERE id = 1")()
    with pytest.warns(UserWarning, match="run 1 is not what was stored"):
        assert [entry.id for entry in runs()] == [2, 3]


@pytest.mark.parametrize("body", ['{"rank": "sixteen"}', '{"rank": 16', "no json"])
def test_a_run_that_is_whole_and_still_cannot_be_read_is_named(body: str) -> None:
    record(**LORA)
    record(**LORA)
    checksum = zlib.crc32(f"1\0{runs()[0].recorded_at}\0{body}".encode())  # as the ledger's own documentation has it
    executed(f"UPDATE runs SET body = '{body}', crc32 = {checksum} WHERE id = 1")()
    with pytest.warns(UserWarning, match=r"run 1 cannot be read \("):
        assert [entry.id for entry in runs()] == [2]


def test_a_ledger_that_may_not_be_written(project: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no folder"):
        record(**LORA, ledger="nowhere/ledger.sqlite")
    record(**LORA)
    before = Path(LEDGER).read_bytes()
    with as_a_user_who_may_not_write(project):
        assert len(runs()) == 1
        with pytest.raises(InvalidInputError, match="cannot be used"):
            record(**LORA)
    assert Path(LEDGER).read_bytes() == before


@contextmanager
def as_a_user_who_may_not_write(folder: Path) -> Iterator[None]:
    """Permissions alone do not keep root from writing: root then acts as nobody."""
    if not hasattr(os, "geteuid"):
        pytest.skip("POSIX permissions")
    user = os.geteuid()
    modes = {folder: 0o555, folder / LEDGER: 0o444}
    modes |= {path: 0o755 for path in folder.parents if path.name.startswith(("pytest-", "popen-"))}  # pytest's own, closed to others
    before = {path: path.stat().st_mode for path in modes}
    for path, mode in modes.items():
        path.chmod(mode)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        for path, mode in before.items():
            path.chmod(mode)


# Sources: JSON files


def test_a_json_file_is_a_run() -> None:
    write("run.json", {**LORA, "evaluations": [{"metric": "exact_match", "score": 0.4, "n": 50}], "train_losses": [[1, 2.0], [2, 1.5]]})
    stored = record("run.json", name="mine")
    assert (stored.rank, stored.name, stored.source) == (16, "mine", "run.json")
    assert stored.train_losses == (LossPoint(step=1, loss=2.0), LossPoint(step=2, loss=1.5))
    assert stored.final_score == Evaluation(metric="exact_match", score=0.4, n=50)


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("accuracy", True),
        ("eval_loss", False),
        ("Perplexity", False),
        ("WER", False),
        ("glossary", True),
        ("bits_per_byte", False),
        ("bpb", False),
    ],
)
def test_metrics_that_count_downwards_are_known_by_the_words_of_their_names(metric: str, higher: bool) -> None:
    assert Evaluation(metric=metric, score=0.4).higher_is_better is higher
    assert Evaluation(metric=metric, score=0.4, higher_is_better=True).higher_is_better


def test_an_evaluations_fields_may_stand_beside_the_runs() -> None:
    write("run.json", {"method": "dora", "metric": "accuracy", "items": [1, 0, 0, 1]})
    assert record("run.json").final_score == Evaluation(metric="accuracy", score=0.5, n=4, items=(1, 0, 0, 1))


def test_what_is_listed_can_be_recorded_again(capsys: pytest.CaptureFixture[str]) -> None:
    record(**LORA, train_losses=[(1, math.nan)], metric="exact_match", score=0.5, n=10)
    record(method="full", learning_rate=1e-5)
    assert command(["runs", "--json"]) == 0
    write("exported.json", capsys.readouterr().out)
    stored = record_all("exported.json", ledger="copy.sqlite")
    assert [entry.model_copy(update={"source": ""}).model_dump_json() for entry in stored] == [entry.model_dump_json() for entry in runs()]


def test_a_list_with_one_bad_run_stores_none() -> None:
    write("list.json", [LORA, {"method": "lora", "rank": -1}])
    with pytest.raises(InvalidInputError, match=r"list\.json: entry 1: rank '-1'"):
        record_all("list.json")
    assert runs() == ()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", '{"method": "lora", "ra', "run.json is not valid JSON: .*is it complete?"),
        ("run.json", "", "run.json is empty"),
        ("run.json", "[]", "holds an empty list"),
        ("run.json", "{}", "there is nothing in it"),
        ("run.json", "3", "a run is an object of fields, not a int"),
        ("run.json", '{"methode": "lora"}', "methode: there is no such field"),
        ("run.json", '{"train_losses": [{"step": 1, "loss": 2, "lr": 3}]}', "train_losses.0.lr: there is no such field"),
        ("run.json", '{"train_losses": [[1, 2], [-1, 2]]}', r"train_losses\.1\.step '-1': must be greater than or equal to 0"),
        ("run.json", '{"train_losses": [[1, 2], [1, 2, 3]]}', r"train_losses.1 '\[1, 2, 3\]': must be a"),
        ("run.json", '{"learning_rate": NaN}', "learning_rate 'nan': must be a finite number"),
        ("trainer_state.json", '{"global_step": 3}', "is no whole trainer state: it has no log_history"),
        ("trainer_state.json", '{"log_history": 3}', "is no trainer state: it has no log_history"),
        ("trainer_state.json", '{"log_history": [{"loss": "low", "step": 1}]}', "has the loss 'low' at step '1': no numbers"),
        ("trainer_state.json", '{"log_history": [{"loss": 1.0}]}', "at step 'None': no numbers"),
        ("trainer_state.json", '{"log_history": [{"loss": 1.0, "step"', "is not valid JSON"),
        ("training_args.bin", "x", "is a pickle"),
    ],
)
def test_a_broken_file_is_one_line(name: str, content: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(name, content)
    with pytest.raises(InvalidInputError, match=said):
        record(name, method="lora")
    assert command(["record", name, "--method", "lora"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path(LEDGER).exists()


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere.json: no such file or folder"):
        record("nowhere.json")


# Sources: trainer_state.json, as transformers writes it

STATE: dict[str, Any] = {
    "epoch": 2.0,
    "global_step": 20,
    "max_steps": 20,
    "num_input_tokens_seen": 0,
    "num_train_epochs": 2,
    "train_batch_size": 4,
    "log_history": [
        {"epoch": 0.5, "step": 5, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-4, "num_tokens": 1000.0},
        {"epoch": 1.0, "step": 10, "loss": 1.5, "grad_norm": 0.9, "learning_rate": 2e-4, "num_tokens": 2000.0},
        {"epoch": 1.0, "step": 10, "eval_loss": 1.6, "eval_accuracy": 0.4, "eval_runtime": 2.0, "eval_samples_per_second": 50.0},
        {"epoch": 1.5, "step": 15, "loss": 1.2, "grad_norm": 0.8, "learning_rate": 1e-4, "num_tokens": 3000.0},
        {"epoch": 2.0, "step": 20, "eval_loss": 1.7, "eval_accuracy": 0.45, "eval_runtime": 2.0, "eval_samples_per_second": 50.0},
        {"epoch": 2.0, "step": 20, "train_runtime": 100.0, "train_loss": 1.5, "train_samples_per_second": 1.0, "total_flos": 1.0},
    ],
}


def test_a_trainer_state() -> None:
    stored = record(write("trainer_state.json", STATE), method="lora", rank=8)
    assert (stored.learning_rate, stored.steps, stored.epochs, stored.batch_size, stored.tokens) == (2e-4, 20, 2.0, 4, 3000)
    assert stored.seconds == 100.0
    assert [(point.step, point.loss) for point in stored.train_losses] == [(5, 2.0), (10, 1.5), (15, 1.2)]
    assert [(point.step, point.loss) for point in stored.eval_losses] == [(10, 1.6), (20, 1.7)]
    assert stored.evaluations == (
        Evaluation(metric="accuracy", score=0.4, n=100, epoch=1.0),
        Evaluation(metric="accuracy", score=0.45, n=100),
    )
    assert stored.best_eval_loss == 1.6
    assert stored.notes == ("learning rate: the highest of 3 logged",)


def test_a_state_with_nan_is_kept_with_its_nan() -> None:
    state = {
        **STATE,
        "log_history": [{"loss": 2.0, "step": 1, "learning_rate": 1e-2}, {"loss": math.nan, "step": 2, "eval_loss": math.nan}],
    }
    stored = record(write("trainer_state.json", state), method="lora")
    assert stored.has_diverged
    assert [math.isnan(point.loss) for point in stored.train_losses] == [False, True]
    assert math.isnan(stored.eval_losses[0].loss)


def test_a_state_alone_says_no_method(capsys: pytest.CaptureFixture[str]) -> None:
    write("trainer_state.json", STATE)
    assert command(["record", "trainer_state.json"]) == 0
    assert "the method is not known: say it with advise record --run 1 --method lora" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InvalidInputError, match="run 1 has no method"):
        facts_from_ledger()
    record(run=1, method="lora", rank=8)
    assert facts_from_ledger().runs[0].method is Method.LORA


# (runtime, samples per second, items): both are rounded, to four and three digits.
@pytest.mark.parametrize(
    ("runtime", "rate", "items"),
    [(2.0, 50.0, 100), (12.3457, 106.839, 1319), (0.1286, 62.22, 8), (100.0, 13.19, 1319), (0.0001, 80000.0, None), (10000.0, 20.0, None)],
)
def test_items_follow_from_the_rates_where_rounding_leaves_one_number(runtime: float, rate: float, items: int | None) -> None:
    from advisor.ledger.trainer_state import items_of

    assert items_of({"eval_runtime": runtime, "eval_samples_per_second": rate}) == items


@given(st.integers(1, 20000), st.floats(0.5, 5000))
def test_items_that_are_read_off_the_rates_are_right(items: int, runtime: float) -> None:
    from advisor.ledger.trainer_state import items_of

    found = items_of({"eval_runtime": round(runtime, 4), "eval_samples_per_second": round(items / runtime, 3)})
    assert found in (items, None)


# Sources: output folders

ADAPTER = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["v_proj", "q_proj"],
    "use_dora": False,
    "use_rslora": False,
    "init_lora_weights": True,
    "base_model_name_or_path": "meta-llama/Llama-3.1-8B",
}
CARD = """---
library_name: peft
base_model: meta-llama/Llama-3.1-8B
model-index:
- name: out
  results:
  - task: {type: text-generation}
    metrics:
    - {name: Accuracy, type: accuracy, value: 0.44}
    - {name: Loss, type: loss, value: 1.6}
---

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 0.0003
- train_batch_size: 4
- gradient_accumulation_steps: 8
- total_train_batch_size: 32
- lr_scheduler_type: SchedulerType.COSINE
- num_epochs: 3
- seed: 42

### Training results

| Training Loss | Epoch | Step | Validation Loss | Accuracy |
|:-------------:|:-----:|:----:|:---------------:|:--------:|
| No log        | 1.0   | 10   | 1.8             | 0.4      |
| 1.9           | 2.0   | 20   | 1.6             | 0.44     |
| 1.4           | 3.0   | 30   | nan             | 0.44     |

### Framework versions

- PEFT 0.21.0
- Transformers 5.23.0
- Pytorch 2.13.0
"""


def test_a_folder_with_everything() -> None:
    write("out/adapter_config.json", ADAPTER)
    write("out/README.md", CARD)
    write("out/checkpoint-10/trainer_state.json", {**STATE, "global_step": 10})
    write("out/checkpoint-20/trainer_state.json", STATE)
    write("out/checkpoint-9/trainer_state.json", {**STATE, "global_step": 9})
    write("out/all_results.json", {"eval_accuracy": 0.45, "eval_samples": 1319, "train_samples": 5000, "train_loss": 1.2})
    stored = record("out", method="qlora")
    assert (stored.method, stored.rank, stored.alpha, stored.dropout) == (Method.QLORA, 16, 32, 0.05)
    assert stored.target_modules == ("q_proj", "v_proj")
    assert stored.model == "meta-llama/Llama-3.1-8B"
    assert stored.learning_rate == 3e-4  # as configured, not as logged
    assert (stored.steps, stored.effective_batch, stored.grad_accum, stored.lr_schedule, stored.seed) == (20, 32, 8, "cosine", 42)
    assert stored.examples == 5000
    assert [(entry.score, entry.n, entry.epoch) for entry in stored.evaluations] == [(0.4, 100, 1.0), (0.45, 100, None)]
    assert stored.versions == {"peft": "0.21.0", "transformers": "5.23.0", "torch": "2.13.0"}
    assert stored.notes == ()


def test_a_folder_with_only_the_card() -> None:
    stored = record(str(Path(write("out/README.md", CARD)).parent), method="lora")
    assert stored.learning_rate == 3e-4
    assert stored.epochs == 3
    assert [(point.step, point.loss) for point in stored.train_losses] == [(20, 1.9), (30, 1.4)]
    assert [point.step for point in stored.eval_losses] == [10, 20, 30]
    assert math.isnan(stored.eval_losses[2].loss)
    assert stored.evaluations == (Evaluation(metric="accuracy", score=0.44),)


def test_whether_the_base_was_quantised_is_not_guessed() -> None:
    write("out/adapter_config.json", {**ADAPTER, "use_dora": True})
    assert record("out").method is Method.DORA
    assert "whether the base was quantised does not stand in the folder" in record("out").notes[0]
    write("out/README.md", "- load_in_4bit: True\n- bnb_4bit_quant_type: nf4\n")  # as peft's cards of 2023 have it
    assert record("out").method is Method.QDORA
    assert record("out").quantization is Quantization.NF4


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"out/notes.txt": "x"}, "out holds no trace of a run"),
        ({"out/adapter_config.json": '{"peft_type": "LORA", "r"'}, "is not valid JSON"),
        ({"out/adapter_config.json": {"peft_type": "IA3"}}, "peft_type is IA3"),
        ({"out/adapter_config.json": {**ADAPTER, "r": "x"}}, "rank 'x'"),
        ({"out/adapter_config.json": ADAPTER, "out/trainer_state.json": '{"log_history": [{"lo'}, "trainer_state.json is not valid JSON"),
        ({"out/adapter_config.json": ADAPTER, "out/all_results.json": "{"}, "all_results.json is not valid JSON"),
    ],
)
def test_a_broken_folder_is_one_line(files: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path, content in files.items():
        write(path, content)
    with pytest.raises(InvalidInputError, match=said):
        record("out")
    assert command(["record", "out"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path(LEDGER).exists()


def test_a_card_or_adapter_that_cannot_be_read_is_noted_and_the_run_kept() -> None:
    write("out/adapter_config.json", ADAPTER)
    write("out/README.md", "---\nmodel-index: [\n---\n- learning_rate: 0.0001\n")
    write("out/adapter_model.safetensors", "short")
    stored = record("out", method="lora")
    assert stored.learning_rate == 1e-4
    assert any("metadata of README.md cannot be read" in note for note in stored.notes)
    assert any("the adapter was not inspected" in note for note in stored.notes)


# Items


@pytest.mark.parametrize(
    ("name", "content", "results", "ids"),
    [
        ("items.json", "[1, 0, true, false]", (1, 0, 1, 0), ()),
        ("items.json", '{"a": 1, "b": 0}', (1, 0), ("a", "b")),
        ("items.jsonl", '{"id": 7, "correct": true}\n{"id": 9, "correct": false}\n', (1, 0), ("7", "9")),
        ("items.json", '{"id": 7, "correct": true}\n{"id": 9, "correct": false}\n', (1, 0), ("7", "9")),
        ("items.jsonl", '{"doc_id": 0, "exact_match": 1.0, "acc": 0}\n', (1,), ("0",)),  # as lm-evaluation-harness leaves its samples
        ("items.json", '[{"task_id": "HumanEval/0", "passed": true}]', (1,), ("HumanEval/0",)),
    ],
)
def test_items_of_a_file(name: str, content: str, results: tuple[float, ...], ids: tuple[str, ...]) -> None:
    stored = record(method="lora", metric="exact_match", items=write(name, content))
    assert stored.final_score is not None
    assert stored.final_score.items == results
    assert stored.final_score.item_ids == ids
    assert stored.final_score.n == len(results)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no items"),
        ("3", "holds no items"),
        ("[1, null]", "item 1 has the result 'None'"),
        ('[1, "yes"]', "item 1 has the result 'yes'"),
        ("[1, NaN]", "item 1 has the result 'nan'"),
        ('[{"id": 1, "answer": 4}]', "an item's fields are id, answer; name the one that is its result with metric"),
        ("[1, 0", "is not valid JSON"),
    ],
)
def test_items_that_cannot_be_read(content: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        record(method="lora", metric="exact_match", items=write("items.json", content))
    assert runs() == ()


# Facts


def test_facts_of_a_ledger() -> None:
    record(kind="base", model="llama-2-7b", metric="accuracy", score=0.25, n=1000)
    record(
        **LORA,
        model="llama-2-7b",
        gpu="rtx 4090",
        metric="accuracy",
        items=[1, 0, 1, 1],
        item_ids=list("abcd"),
        target=0.8,
        batch_size=4,
        grad_accum=8,
    )
    record(method="qlora", rank=16, quantization="nf4", model="llama-2-7b", oom=True, task="math", dataset_tokens=5_000_000)
    facts = facts_from_ledger()
    assert facts.model is not None
    assert facts.model.layers == 32
    assert facts.gpu is not None
    assert (facts.task.value if facts.task else None, facts.dataset_tokens) == ("math", 5_000_000)
    assert (facts.evaluation.metric, facts.evaluation.base, facts.evaluation.target, facts.evaluation.n) == ("accuracy", 0.25, 0.8, 4)
    first, second = facts.runs
    assert (first.id, first.method, first.rank, first.batch, first.score) == ("2", Method.LORA, 16, 32, 0.75)
    assert first.correct == (True, False, True, True)
    assert first.item_ids == ("a", "b", "c", "d")
    assert second.oom
    assert second.score is None


def test_the_score_of_a_truncated_adapter_is_a_fact_about_the_adapter() -> None:
    record(**LORA, metric="accuracy", score=0.5, n=1000)
    record(run=1, metric="accuracy", score=0.49, n=1000, truncated_rank=8)
    record(run=1, metric="mmlu", score=0.6, n=14042, retention=True)
    record(run=1, metric="f1", score=0.7, n=100)
    facts = facts_from_ledger(metric="accuracy")
    assert facts.runs[0].score == 0.5
    assert facts.runs[0].retention == 0.6
    assert facts.adapter is not None
    assert (facts.adapter.rank, facts.adapter.truncated_rank, facts.adapter.truncated_score) == (16, 8, 0.49)
    assert [(other.metric, other.score) for other in facts.other_scores] == [("f1", 0.7)]


def test_facts_of_one_model_and_of_a_named_run() -> None:
    record(**LORA, model="llama-2-7b", metric="accuracy", score=0.5, n=100, adapter={"rank": 16, "energy_at_half": 0.9})
    record(**LORA, model="mistral-7b", metric="accuracy", score=0.6, n=100)
    record(method="dora", rank=8, metric="accuracy", score=0.6, n=100)
    assert [run.id for run in facts_from_ledger(model="llama-2-7b").runs] == ["1", "3"]
    assert [run.id for run in facts_from_ledger().runs] == ["2", "3"]
    assert facts_from_ledger(model="llama-2-7b").adapter is None
    named = facts_from_ledger(model="llama-2-7b", current="1")
    assert named.current == "1"
    assert named.adapter is not None
    assert named.adapter.energy_at_half == 0.9


def test_unique_tokens_follow_from_the_epochs() -> None:
    record(**LORA, tokens=9_000_000, epochs=3, metric="accuracy", score=0.5, n=10)
    assert facts_from_ledger().dataset_tokens == 3_000_000


def test_a_model_nobody_knows_is_a_note() -> None:
    record(**LORA, model="./not-there/", gpu="no such card", metric="accuracy", score=0.5, n=10)
    facts = facts_from_ledger()
    assert facts.model is None
    assert facts.gpu is None
    assert "not known" in facts.model_note


def test_a_run_that_has_not_ended_is_no_evidence() -> None:
    record(**LORA, unfinished=True)
    assert facts_from_ledger().runs == ()
    record(run=1, oom=True)
    assert [run.oom for run in facts_from_ledger().runs] == [True]


def test_facts_of_nothing() -> None:
    with pytest.raises(InvalidInputError, match="holds no runs yet"):
        facts_from_ledger()


# The commands and their screens


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--method", "lora", "--rank", "16", "--learning-rate", "2e-4", "--peak", "38.2GiB", "--no-oom"]
    assert command(["record", *arguments, "--metric", "exact_match", "--score", "0.482", "--n", "1319", "--json"]) == 0
    stored = RunRecord.model_validate_json(capsys.readouterr().out)
    assert stored == runs()[0]
    assert stored.peak_bytes == round(38.2 * 1024**3)
    assert stored.oom is False
    assert command(["record", "--run", "1", "--note", "again"]) == 0
    assert runs()[0].notes == ("again",)
    assert command(["record", "--base", "--metric", "exact_match", "--score", "0.2", "--n", "1319"]) == 0
    capsys.readouterr()
    assert command(["runs", "--json"]) == 0
    assert [RunRecord.model_validate(entry) for entry in json.loads(capsys.readouterr().out)] == list(runs())
    assert command(["runs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == 1
    assert command(["runs", "3"]) == 2
    assert command(["record"]) == 2
    assert command(["record", "--method", "lora", "--items", "1319"]) == 2
    assert "their number is --n 1319" in capsys.readouterr().err


def test_listing_and_recording_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom advisor.cli.run import run\n"
        "assert run(['record', '--method', 'lora', '--score', '0.5', '--n', '10']) == run(['runs']) == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "sqlite3" in loaded
    assert loaded & {"torch", "transformers", "peft", "numpy", "safetensors", "scipy", "huggingface_hub", "pynvml"} == set()


def test_every_flag_is_a_field() -> None:
    from advisor.cli.run_commands import RECORD_SWITCHES, RECORD_TEXTS

    fields = {*RunRecord.model_fields, *Evaluation.model_fields, "train_loss", "eval_loss", "peak", "peak_allocated", "note"}
    assert {*RECORD_TEXTS, *RECORD_SWITCHES} <= fields


def sample() -> tuple[RunRecord, ...]:
    record(kind="base", model="meta-llama/Llama-3.1-8B", metric="exact_match", score=0.21, n=1319)
    record(
        **LORA,
        model="meta-llama/Llama-3.1-8B",
        gpu="a100 80gb",
        epochs=3,
        steps=468,
        name="first",
        train_losses=[(10, 1.9), (468, 0.607)],
        eval_losses=[(468, 0.71)],
        metric="exact_match",
        score=0.482,
        n=1319,
        target=0.52,
        peak_bytes=41_000_000_000,
        tokens=12_600_000,
        notes=("learning rate: the highest of 47 logged",),
    )
    record(method="lora", rank=64, learning_rate=2e-3, train_losses=[(10, 2.0), (20, math.nan)], model="meta-llama/Llama-3.1-8B")
    record(method="full", learning_rate=1e-5, oom=True, peak_bytes=85_000_000_000, model="meta-llama/Llama-3.1-8B")
    return runs()


def test_screens(matches_screen: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuple(entry.model_copy(update={"recorded_at": "2026-11-24T10:00:00+00:00"}) for entry in sample())
    screens = {
        "runs-80.txt": draw(listing(found), Look()),
        "run-80.txt": draw(one_run(found[1]), Look()),
        "recorded-80.txt": draw(recorded(found[2:3], LEDGER), Look()),
    }
    for name, shown in screens.items():
        assert max(map(len, shown.splitlines())) <= 80
        matches_screen(name, shown)
    assert "No runs are recorded" in draw(listing(()), Look())


# The callback


TINY = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from advisor import record_callback

class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if sys.argv[1] == "oom" and state.global_step == 2:
            raise torch.OutOfMemoryError("as in life")

torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
model = get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"]))
rows = [{"input_ids": (row := torch.randint(0, 64, (16,))), "labels": row} for _ in range(24)]
settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2, "learning_rate": 1e-3}
quiet = {"logging_steps": 1, "eval_strategy": "epoch", "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
trainer = Trainer(
    model, TrainingArguments("out", **settings, **quiet), train_dataset=rows, eval_dataset=rows[:8],
    callbacks=[record_callback(name="by itself", gpu="rtx 4090"), Fails()], compute_metrics=lambda found: {"accuracy": 0.25},
)
trainer.train()
"""


def tiny_run(how: str) -> tuple[RunRecord, str]:
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    done = subprocess.run([sys.executable, "-c", TINY, how], capture_output=True, text=True)
    assert (done.returncode == 0) == (how == "fine"), done.stderr[-2000:]
    (stored,) = runs()
    return stored, done.stderr


def test_a_real_trainer_records_itself() -> None:
    stored, _ = tiny_run("fine")
    assert (stored.method, stored.rank, stored.alpha, stored.target_modules) == (Method.LORA, 4, 8, ("q_proj",))
    assert (stored.learning_rate, stored.batch_size, stored.grad_accum, stored.effective_batch) == (1e-3, 4, 2, 8)
    assert (stored.steps, stored.epochs, stored.examples, stored.name) == (6, 2.0, 24, "by itself")
    assert [point.step for point in stored.train_losses] == [1, 2, 3, 4, 5, 6]
    assert [point.step for point in stored.eval_losses] == [3, 6]
    assert [(entry.metric, entry.n, entry.epoch) for entry in stored.evaluations] == [("accuracy", 8, 1.0), ("accuracy", 8, None)]
    assert not stored.unfinished
    assert stored.seconds is not None
    assert {"torch", "transformers", "peft"} <= set(stored.versions)
    assert facts_from_ledger().runs[0].batch == 8


@pytest.mark.long
def test_a_run_that_dies_of_too_little_memory_says_so() -> None:
    stored, errors = tiny_run("oom")
    assert "OutOfMemoryError" in errors
    assert stored.oom
    assert stored.unfinished
    assert [point.step for point in stored.train_losses] == [1]
    assert stored.notes == ("ended by OutOfMemoryError",)
    assert facts_from_ledger().runs[0].oom


def test_a_run_that_dies_of_a_bug_stays_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from types import SimpleNamespace

    from transformers import TrainingArguments

    from advisor import record_callback

    callback = record_callback(method="lora")
    callback.on_train_begin(
        TrainingArguments("out", report_to=[], use_cpu=True), SimpleNamespace(is_world_process_zero=True, **STATE), None
    )
    monkeypatch.setattr(sys, "last_value", ZeroDivisionError("x"), raising=False)  # as the interpreter leaves it before it exits
    callback.close_as_failed()
    (stored,) = runs()
    assert stored.unfinished
    assert not stored.oom
    assert stored.notes == ("ended by ZeroDivisionError",)


def test_a_ledger_that_breaks_in_the_middle_does_not_end_the_training(project: Path) -> None:
    pytest.importorskip("transformers")
    from types import SimpleNamespace

    from transformers import TrainingArguments

    from advisor import record_callback

    callback = record_callback(method="lora")
    state = SimpleNamespace(is_world_process_zero=True, **STATE)
    arguments = TrainingArguments("out", report_to=[], use_cpu=True)
    callback.on_train_begin(arguments, state, None)
    assert runs()[0].unfinished
    Path(LEDGER).write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"the run is kept in .*advise-runs-run-1.json"):
        callback.on_train_end(arguments, state, None)
    assert Path(LEDGER).read_bytes() == b"broken"
    kept = record("advise-runs-run-1.json", ledger="new.sqlite")
    assert kept.steps == 20
    assert not kept.unfinished


def test_only_the_first_process_writes() -> None:
    pytest.importorskip("transformers")
    from types import SimpleNamespace

    from advisor import record_callback

    callback = record_callback()
    callback.on_train_begin(None, SimpleNamespace(is_world_process_zero=False), None)
    callback.on_train_end(None, SimpleNamespace(is_world_process_zero=False), None)
    assert runs() == ()


def test_the_callback_refuses_what_record_refuses() -> None:
    pytest.importorskip("transformers")
    from advisor import record_callback

    with pytest.raises(AdvisorError, match="bogus: there is no such field"):
        record_callback(bogus=1)


def test_the_next_step_reads_the_adapter_of_the_run_it_goes_on_from() -> None:
    from advisor import api
    from advisor.evidence.gather import gathered

    common = {"model": "llama-2-7b", "metric": "accuracy", "n": 1000, "target": 0.9, "dataset_tokens": 10**8, "method": "lora"}
    record(**common, rank=8, learning_rate=2e-4, score=0.5, adapter={"rank": 8, "energy_at_half": 0.7})
    record(**common, rank=16, learning_rate=1e-4, score=0.6, adapter={"rank": 16, "energy_at_half": 0.9})
    record(**common, rank=32, learning_rate=1e-3, score=0.3)
    adapter = gathered(None, None, {}).adapter
    assert adapter is not None
    assert adapter.rank == 16
    assert any("goes on from 2" in text for text in api.next_step().assumptions)


def test_a_folder_that_is_recorded_again_is_the_same_run() -> None:
    state = {
        "global_step": 2,
        "log_history": [{"loss": 2.5, "learning_rate": 2e-4, "step": 1}, {"loss": 2.25, "learning_rate": 1e-4, "step": 2}],
    }
    write("out/trainer_state.json", state)
    write("out/adapter_config.json", {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]})
    first = record("out", method="qlora")
    again = record("./out", method="qlora", metric="exact_match", score=0.5, n=100)
    assert (first.id, again.id, len(runs())) == (1, 1, 1)
    assert again.final_score == Evaluation(metric="exact_match", score=0.5, n=100)
    assert again.notes[-1].startswith("recorded more than once")
    assert record("out", method="qlora").notes == again.notes
    with pytest.raises(InvalidInputError, match="run 1: method is qlora there and lora here"):
        record("out", method="lora")
    state["log_history"][1]["loss"] = 2.2  # type: ignore[index]
    write("out/trainer_state.json", state)
    assert record("out", method="qlora").id == 2
