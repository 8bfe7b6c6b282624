"""Files of someone else's, and streams that fail: one line, the right exit code, at once. Rows are the smallest inputs of faults."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from advisor.adapters.config import CONFIG, WEIGHTS
from advisor.adapters.inspect import inspect_adapter
from advisor.adapters.patterns import first_matches
from advisor.adapters.tensors import open_tensors
from advisor.bounded import opened, place, read_bounded
from advisor.cli.run import LONGEST_ERROR, run
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.json_files import DEEPEST, LONGEST_NUMBER, parse_json
from advisor.yaml_files import front_matter

ROOT = Path(__file__).parent.parent
AT_ONCE_S = 10
"""A hang is one that never ends; the machine of the tests may be slow."""


@contextmanager
def at_once() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(AT_ONCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line of error, as it must be: short, of characters that are seen, without a traceback."""
    with at_once():
        assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) <= LONGEST_ERROR + len("error: \n")
    assert err.rstrip("\n").isprintable()
    return err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lora(base: str) -> str:
    return f"base_model: {base}\nadapter: lora\n"


TORCHTUNE = {
    "model": {"_component_": "torchtune.models.llama3.lora_llama3_8b", "lora_attn_modules": [], "lora_rank": 8, "lora_alpha": 16},
    "tokenizer": {"max_seq_len": 2048},
    "batch_size": 2,
    "dataset": {"_component_": "x"},
    "optimizer": {"_component_": "torch.optim.AdamW"},
}
MERGE_BOMB = "a: &a {x: 1}\nm0: &m0 {<<: [*a, *a]}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 27))
LLAMA_RUN = '{"model":"llama-2-7b","runs":[{"method":"lora",%s}]}'
T4 = json.loads((ROOT / "profiles" / "measurements" / "t4_fitcheck.json").read_bytes())
SCORED = T4[0]


def rows(**changed: Any) -> str:
    return json.dumps([{**SCORED, "settings": {**SCORED["settings"], **changed}}])


# (arguments, files, words of the line)
REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("check x.yaml", {"x.yaml": lora('"~nobodyx/x"')}, "whose home folder"),
    ("check x.yaml", {"x.yaml": lora("/dev/zero")}, "outside of its project: if it is to be read, say --model"),
    ("check x.yaml", {"x.yaml": lora("../../../etc")}, "outside of its project"),
    ("check x.yaml --model /dev/zero", {"x.yaml": lora("x")}, "/dev/zero is no regular file"),
    ("check /dev/zero", {}, "is no regular file"),
    ("record /dev/zero", {}, "is no regular file"),
    ("next --facts /dev/zero", {}, "is no regular file"),
    ("accuracy --rows /dev/zero", {}, "is no regular file"),
    ("check x.json --stack torchtune", {"x.json": json.dumps(TORCHTUNE)}, "x.json: "),
    ("check x.json --stack axolotl", {"x.json": '{"base_model": "x", "optimizer": "ad\\ud800am"}'}, "half of a surrogate pair"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":1000000001'}, "rank"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":16,"seq_len":10000000000'}, "seq_len"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":16,"alpha":10000000000'}, "alpha"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":16,"alpha":5e-324,"score":0.5'}, r"runs\[0\].alpha"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":16,"learning_rate":1e308,"score":0.5'}, "learning_rate"),
    ("next --facts f", {"f": LLAMA_RUN % '"rank":16,"lr_sweep":[[5e-324,0.5],[1e-4,0.5]]'}, "learning_rate"),
    ("record --method lora --rank 8 --learning-rate 1e308 --score 0.5 --n 9", {}, "learning"),
    ("next --facts f", {"f": '{"model":"llama-2-7b","n_gpus":1000000,"runs":[{"method":"lora","rank":16}]}'}, "gpus"),
    ("next --facts f", {"f": '{"evaluation":{"n":' + "1" * 310 + ',"target":0.5},"runs":[]}'}, "a number of 310 digits"),
    ("accuracy --rows r", {"r": rows(rank=0)}, "rank"),
    ("accuracy --rows r", {"r": rows(alpha=0)}, "alpha"),
    ("accuracy --rows r", {"r": rows(alpha=float("nan"))}, "alpha"),
    ("accuracy --rows r", {"r": rows(micro_batch_size=0)}, "micro_batch_size"),
    ("accuracy --rows r", {"r": rows(seq_len_tokens=-5)}, "seq_len_tokens"),
    ("accuracy --rows r", {"r": rows(sharding="fsdp")}, "sharding"),
    ("record run.json", {"run.json": '{"method":"lora","items":3}'}, "score is missing"),
    ("record run.json", {"run.json": '{"method":"lora","name":"\\ud800"}'}, "half of a surrogate pair"),
    ("record run.json", {"run.json": '{"method":"lora","evaluations":32}'}, "evaluations"),
    ("record run.json", {"run.json": '{"method":"lora","score":0.5,"evaluations":32}'}, "evaluations must be a list"),
    ("record d", {"d/trainer_state.json": '{"log_history":[{"step":1,"loss":' + "9" * 400 + "}]}"}, "a number of 400 digits"),
    ("record d", {"d/trainer_state.json": '{"log_history":[],"epoch":' + "9" * 400 + "}"}, "a number of 400 digits"),
    ("record d", {"d/adapter_config.json": '{"peft_type":"LORA","r":8,"target_modules":["q",1]}'}, "target_modules"),
    ("record x.json", {"x.json": "[" * 100_000}, "nests too deeply"),
    ("record x.json", {"x.json": "[" * 300 + "]" * 300}, f"deeper than {DEEPEST} levels"),
    ("trace --model llama-3-8b --peft-config x.json", {"x.json": "[" * 100_000}, "nests too deeply"),
    (f"estimate --model llama-3-8b --gpu {'9' * 400}", {}, "is not a size"),
    (f"estimate --model llama-3-8b --gpu {'9' * 5000}", {}, "is not a size"),
    (f"trace --model llama-3-8b --lengths {'9' * 5000}", {}, "--lengths"),
    (f"record --method lora --peak {'9' * 400}", {}, "is not a size"),
    (f"runs --ledger {'a' * 300}", {}, "no ledger here"),
    (f"record --method lora --score 0.5 --n 9 --ledger {'a' * 300}", {}, "File name too long|unable to open|cannot be"),
    (f"inspect {'a' * 300}", {}, "no such folder"),
    ("inspect ~nobodyx/x", {}, "whose home folder"),
    ("record ~nobodyx/x", {}, "whose home folder"),
    ("runs --ledger ~nobodyx/x", {}, "whose home folder"),
    ("--model ~nobodyx/x --gpu 24GB", {}, "whose home folder"),
    ("config --stack axolotl --model llama-3-8b --gpu 24GB --out .", {}, "is a folder"),
    ("config --stack axolotl --model llama-3-8b --gpu 24GB --out ~nobodyx/x", {}, "whose home folder"),
    ("sweep .", {}, "is a folder"),
    ("sweep /dev/zero", {}, "is no regular file"),
    ("sweep ~nobodyx/x", {}, "whose home folder"),
    (f"sweep {'a' * 300}", {}, "File name too long"),
    ("sweep s", {"s": MERGE_BOMB}, "its aliases stand for more than"),
    ("sweep s", {"s": "a: !!python/object/apply:os.system [id]"}, "not allowed"),
    ("sweep s", {"s": "{model: x, rank: " + "9" * 400 + "}"}, "a number of 400 characters"),
    ("sweep s", {"s": "{model: llama-3-8b, gpu: 24GB, seq_len: {from: 1, to: 100000000000, step: 1}}"}, "s"),
    ("sweep s", {"s": '{model: llama-3-8b, gpu: 24GB, "\\e[2J": 1}'}, r"\\x1b\[2J"),
    ("check train.py", {"train.py": "x = '\\d'\ny = 1or\n"}, "no valid Python at line 2"),
]


@pytest.mark.parametrize(("arguments", "files", "says"), REFUSED, ids=[f"{row[0][:40]}-{number}" for number, row in enumerate(REFUSED)])
def test_a_hostile_input_is_one_line(
    arguments: str, files: dict[str, str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--peft-config" in arguments:
        pytest.importorskip("torch")  # which the command asks for first
    if arguments.startswith("sweep"):
        pytest.importorskip("pyarrow")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert re.search(says, line_of(arguments.split(), capsys))


def test_a_setting_whose_name_only_running_shows_stands_as_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.sh").write_text("swift sft --model Qwen/Qwen2.5-7B-Instruct --dataset x --lora_rank 8 --${x} 2\n", encoding="utf-8")
    assert run(["check", "t.sh", "--gpu", "h100"]) == 3
    out = capsys.readouterr().out
    assert "${x} is no setting that is known here" in " ".join(out.split())
    assert out.replace("\n", "").isprintable()


def test_a_thousand_million_sequences_are_priced_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": "Qwen/Qwen2-1.5B-Instruct",
        "cutoff_len": 2048,
    }
    (tmp_path / "t.json").write_text(json.dumps({**plan, "per_device_train_batch_size": 10**9}), encoding="utf-8")
    with at_once():
        assert run(["check", "t.json", "--gpu", "rtx 4090"]) == 1
    assert "1000000000 ×" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check {}", "record {}", "next --facts {}", "accuracy --rows {}", "--model ./{} --gpu 24GB"])
def test_a_pipe_does_not_block(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in line_of(command.format("pipe").split(), capsys)


# What a trainer's state may say and is only left out: it is recorded.
STATES = [
    '{"log_history":[{"step":1,"loss":0.5,"eval_runtime":1e308,"eval_samples_per_second":1e308,"eval_acc":0.5}]}',
    '{"log_history":[{"step":1,"learning_rate":1e308,"loss":1}]}',
    '{"log_history":[{"step":1,"loss":Infinity}]}',
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_of_extremes_is_recorded(state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "trainer_state.json").write_text(state, encoding="utf-8")
    assert run(["record", "d"]) == 0
    assert capsys.readouterr().err == ""


def test_a_card_s_merge_bomb_is_left_out_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "README.md").write_text(f"---\n{MERGE_BOMB}---\n# model\n", encoding="utf-8")
    (tmp_path / "d" / CONFIG).write_text('{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q"]}', encoding="utf-8")
    with at_once():
        assert run(["record", "d"]) == 0
    assert "metadata of README.md cannot be read" in " ".join(capsys.readouterr().out.split())


def test_front_matter_is_the_yaml_between_the_first_two_lines() -> None:
    assert front_matter("---\na: 1\n---\nb: 2\n---\n", "x") == {"a": 1}
    assert front_matter("# no\n---\na: 1\n---\n", "x") is None
    with pytest.raises(InvalidInputError, match="not allowed"):
        front_matter("---\na: !!python/object/apply:os.system [id]\n---\n", "x")


# ------------------------------------------------------------------------------------------------------------ the doors


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    assert read_bounded(file, 1000) == b"x" * 1000
    with pytest.raises(InvalidInputError, match="is no card: it is larger than 0 kB"):
        read_bounded(file, 999, "card")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "no", "there is no such file"), (Path("a\0b"), "is no file name")):
        with pytest.raises(InvalidInputError, match=says), opened(path):
            pass


def test_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place("a/b") == Path("a/b")
    with pytest.raises(InvalidInputError, match="whose home folder"):
        place("~nobodyx/x")


def test_no_more_of_a_file_is_read_than_is_asked_for(tmp_path: Path) -> None:
    """A file of 64 MiB without content on the disk, by Python's own count of what is allocated."""
    file = tmp_path / "sparse"
    with file.open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="larger than"):
            read_bounded(file, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_numbers_and_levels_of_json_are_bounded() -> None:
    deepest: Any = 1
    for _ in range(DEEPEST):
        deepest = [deepest]
    assert parse_json(json.dumps(deepest), "x") == deepest
    with pytest.raises(InvalidInputError, match="deeper"):
        parse_json(json.dumps([deepest]), "x")
    assert parse_json("9" * LONGEST_NUMBER, "x") == int("9" * LONGEST_NUMBER)
    with pytest.raises(InvalidInputError, match="digits"):
        parse_json("9" * (LONGEST_NUMBER + 1), "x")
    assert parse_json('"\\ud83d\\ude00"', "x") == "\U0001f600"


# ------------------------------------------------------------------------------------------------------------ patterns


def test_patterns_match_the_end_of_a_name_as_peft_does() -> None:
    names = ["model.layers.0.q_proj", "model.layers.11.q_proj", "model.layers.1.v_proj"]
    keys = [r"layers\.1\.v_proj", "q_proj", "v_proj"]
    plain = {names[0]: "q_proj", names[1]: "q_proj", names[2]: keys[0]}
    assert first_matches(keys, names, "x") == plain
    assert first_matches([*keys, "never|ever"], names, "x") == plain  # in the child
    assert first_matches([r"layers\.\d+\.q_proj"], names, "x") == dict.fromkeys(names[:2], r"layers\.\d+\.q_proj")


def test_a_pattern_that_never_ends_is_stopped() -> None:
    with at_once(), pytest.raises(UnsupportedError, match="takes longer than"):
        first_matches(["(a+)+b"], ["a" * 60], "x")


@pytest.mark.parametrize("key", ["(?i)Q", "(", "a" * 2000, "[z-a]", "\x00("])
def test_a_key_that_is_no_pattern_is_told(key: str) -> None:
    with pytest.raises(InvalidInputError, match=r"no regular expression|no pattern"):
        first_matches([key], ["q"], "x")


# ---------------------------------------------------------------------------------------------------------- safetensors

SOUND: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [128, 136]},
}


def file_of(folder: Path, header: Any, data_bytes: int = 136) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / WEIGHTS
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * data_bytes)
    return path


def library_opens(path: Path) -> bool:
    safetensors = pytest.importorskip("safetensors")
    try:
        with safetensors.safe_open(path, "np"):
            return True
    except Exception:
        return False


def we_open(path: Path) -> bool:
    try:
        open_tensors(path)
    except InvalidInputError:
        return False
    return True


def changed(name: str, **fields: Any) -> dict[str, Any]:
    return {**SOUND, name: {**SOUND[name], **fields}}


# (header, bytes of data)
DAMAGED = [
    (changed("b", data_offsets=[120, 128]), 128),  # overlapping
    (changed("b", data_offsets=[136, 144]), 144),  # a gap
    (SOUND, 137),
    (SOUND, 135),
    (changed("b", data_offsets=["128", "136"]), 136),
    (changed("b", data_offsets=[128.0, 136.0]), 136),
    (changed("b", data_offsets=[128]), 136),
    (changed("b", shape=["4"]), 136),
    (changed("b", shape=[float("inf")]), 136),
    (changed("b", shape=[-4]), 136),
    (changed("b", shape=4), 136),
    (changed("b", dtype="Q4"), 136),
    ({**SOUND, "b": 3}, 136),
    ({**SOUND, "__metadata__": "x"}, 136),
    ({**SOUND, "__metadata__": {"format": [1]}}, 136),
    ([1], 136),
    (b"{", 136),
    (b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}', 4),
]


@pytest.mark.parametrize(("header", "data_bytes"), DAMAGED)
def test_what_the_library_refuses_is_refused(header: Any, data_bytes: int, tmp_path: Path) -> None:
    path = file_of(tmp_path, header, data_bytes)
    assert not library_opens(path)
    assert not we_open(path)


def test_what_the_library_takes_is_taken(tmp_path: Path) -> None:
    for header in (SOUND, {**SOUND, "__metadata__": {"format": "pt"}}, {**SOUND, "__metadata__": None}):
        path = file_of(tmp_path, header)
        assert library_opens(path)
        assert we_open(path)


_NUMBERS = st.one_of(st.integers(-2, 200), st.sampled_from([0, 128, 136, 8.0, "8", None, True, 2**63, 2**70]))


@settings(deadline=None, max_examples=150)
@given(offsets=st.lists(_NUMBERS, max_size=3), shape=st.lists(_NUMBERS, max_size=3), data_bytes=st.sampled_from([136, 144]))
def test_nothing_is_opened_that_the_library_does_not_open(
    offsets: list[Any], shape: list[Any], data_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = file_of(tmp_path_factory.mktemp("f"), changed("b", data_offsets=offsets, shape=shape), data_bytes)
    assert library_opens(path) or not we_open(path)


def test_too_many_dimensions_are_refused(tmp_path: Path) -> None:
    """numpy has no array of them, whatever the library's header allows."""
    assert not we_open(file_of(tmp_path, changed("a", shape=[4, 8, *[1] * 63])))


FACTORS = {
    "base_model.model.q.lora_A.weight": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]},
    "base_model.model.q.lora_B.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [128, 256]},
}

# (fields of the adapter's config, the header of its weights, words of the line)
ADAPTERS = [
    ({"rank_pattern": {"(?i)Q": 4}}, FACTORS, "no regular expression"),
    (
        {"rank_pattern": {"(a+)+b": 4}},
        {name.replace(".q.", f".{'a' * 60}."): entry for name, entry in FACTORS.items()},
        "takes longer than",
    ),
    ({"lora_alpha": 10**400}, FACTORS, "a number of 401 digits"),
    ({"r": 10**9}, FACTORS, "r is 1000000000"),
    ({}, {**FACTORS, "__metadata__": "x"}, "__metadata__ is no object of texts"),
    ({"base_model_name_or_path": "\x1b[2J"}, {f"\x1b[2J{name}": {**entry, "shape": []} for name, entry in FACTORS.items()}, r"\\x1b\[2J"),
]


@pytest.mark.parametrize(("config", "header", "says"), ADAPTERS)
@pytest.mark.parametrize("options", [[], ["--truncate", "2"]])
def test_a_hostile_adapter_is_one_line(
    config: dict[str, Any], header: dict[str, Any], says: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    file_of(folder, header, 256)
    settings_of = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q"]}
    (folder / CONFIG).write_text(json.dumps({**settings_of, **config}), encoding="utf-8")
    assert re.search(says, line_of(["inspect", "d", *options], capsys))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_factors_that_32_bits_do_not_hold_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both of 3e38: four columns of them add up, and each factor takes half of that: twice what it was."""
    pytest.importorskip("numpy")
    (tmp_path / "d").mkdir()
    content = json.dumps(FACTORS).encode()
    values = [*[3e38] * 32, *[3e38] * 32]
    (tmp_path / "d" / WEIGHTS).write_bytes(struct.pack("<Q", len(content)) + content + struct.pack("<64f", *values))
    (tmp_path / "d" / CONFIG).write_text('{"peft_type":"LORA","r":4,"lora_alpha":16,"target_modules":["q"]}', encoding="utf-8")
    assert "too large for 32 bits" in line_of(["inspect", "d", "--truncate", "2"], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


@pytest.mark.parametrize("alpha", [1e-308, 1e-170, 1e12])
def test_shares_of_an_update_do_not_ask_how_large_it_is(alpha: float, tmp_path: Path) -> None:
    """The squares of what 1e-170 leaves lie under the least float; shares of energy are those of any other alpha."""

    pytest.importorskip("numpy")

    def energy(of: float) -> list[tuple[float, float]]:
        folder = tmp_path / str(of)
        folder.mkdir()
        values = [float(number % 7 - 3) for number in range(64)]
        content = json.dumps(FACTORS).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(content)) + content + struct.pack("<64f", *values))
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": of, "target_modules": ["q"]}
        (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        return [(kept.pooled, kept.lowest) for kept in inspect_adapter(folder).energy]

    assert energy(alpha) == [pytest.approx(kept) for kept in energy(16)]


# -------------------------------------------------------------------------------------------------------------- streams


def started(arguments: list[str], folder: Path, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **streams.pop("environment", {})}
    return subprocess.run([sys.executable, "-m", "advisor", *arguments], cwd=folder, env=environment, check=False, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["models", "llama"], ["--help"], ["record", "--method", "lora", "--score", "0.5", "--n", "10"]])
def test_an_answer_that_cannot_be_printed_is_no_verdict(arguments: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = started(arguments, tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74
    assert done.stderr.startswith(b"error: the answer could not be printed (No space left on device)")
    assert done.stderr.count(b"\n") == 1
    if arguments[0] == "record":
        assert b"holds run 1: do not record it again" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_error_that_cannot_be_printed_keeps_its_code(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert started(["check", "nowhere.yaml"], tmp_path, stdout=subprocess.PIPE, stderr=full).returncode == 2


def test_a_closed_stdout_is_no_error(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m advisor record --method lora --score 0.5 --n 10 >&-'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert started(["runs"], tmp_path, stdout=subprocess.PIPE).stdout.count(b"0.5") == 1


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict", "latin-1:strict"])
def test_a_stream_that_lacks_a_character_shows_its_escape(encoding: str, tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": encoding}
    done = started(["check", b"caf\xe9.yaml"], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, environment=environment)  # type: ignore[list-item]
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"caf\\udce9.yaml cannot be read" in done.stderr


ESCAPES = "\x1b[2J\x1b]0;PWN\x07\u202e\x00\x9b"


def test_control_characters_of_a_file_stand_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"method": "lora", "name": ESCAPES, "notes": [ESCAPES]}), encoding="utf-8")
    assert run(["record", "run.json"]) == 0
    assert run(["runs"]) == 0
    assert run(["runs", "1"]) == 0
    assert run(["runs", "1", "--json"]) == 0
    screens = capsys.readouterr().out
    assert not set(screens) & set(ESCAPES) - set("[2J]0;PWN")
    assert "\\x1b[2J" in screens
    (tmp_path / "x.yaml").write_text(json.dumps({"base_model": "llama-3-8b", "adapter": ESCAPES}), encoding="utf-8")
    assert "\\x1b[2J" in line_of(["check", "x.yaml"], capsys)


NAMED = "--model llama-3.2-1b --gpu 24GB"


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["config", "--stack", "axolotl", *NAMED.split(), "--out"],
            ["record", "--method", "lora", "--score", "0.5", "--n", "9", "--ledger"],
        ),
        *(["estimate", "--method", "lora", *NAMED.split(), "--html"], ["check", "x.yaml", "--gpu", "24GB", "--html"]),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_moves_the_cursor_stands_as_text(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is written under the very name that was given, and what is said of it is of characters that are seen."""
    (tmp_path / "x.yaml").write_text(lora("meta-llama/Llama-3.2-1B") + "lora_r: 8\nlora_alpha: 16\nsequence_len: 512\n", encoding="utf-8")
    name = "a\x1b[2Jb\u202e.html"
    assert run([*arguments, name]) in (0, 1, 3)
    out, err = capsys.readouterr()
    assert (tmp_path / name).is_file()
    assert err == ""
    assert not set(out) & {"\x1b", "\u202e"}


def test_a_script_s_own_warnings_are_not_ours(tmp_path: Path) -> None:
    """Python itself warns of an escape that is none, where it parses one (Python reference, 2.4.1.1)."""
    script = "from trl import SFTTrainer\nx = '\\d'\nSFTTrainer(model='meta-llama/Llama-3.2-1B').train()\n"
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    done = started(
        ["check", "train.py"], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, environment={"PYTHONWARNINGS": "always"}
    )
    assert done.stderr == b""
    assert done.returncode in (0, 1, 3)


def test_a_signalling_nan_is_told_on_the_screen_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0x7f800001: the cast to double precision raises IEEE 754's invalid operation (6.2, "signaling NaN")."""
    pytest.importorskip("numpy")
    (tmp_path / "d").mkdir()
    path = file_of(tmp_path / "d", FACTORS, 0)
    path.write_bytes(path.read_bytes() + struct.pack("<I", 0x7F800001) * 64)
    settings_of = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q"]}
    (tmp_path / "d" / CONFIG).write_text(json.dumps(settings_of), encoding="utf-8")
    assert run(["inspect", "d"]) == 0
    out, err = capsys.readouterr()
    assert "adapter-not-finite" in out
    assert err == ""
