"""A model's name in files that are written: whatever a folder is called, the file parses, names that model, and runs nothing of it."""

from __future__ import annotations

import ast
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from advisor.configs.emit import text_of
from advisor.errors import UnsupportedError
from advisor.hub import load_model
from advisor.ladder.snippet import snippet
from advisor.shown import capped, json_shown, quoted, shown
from advisor.stacks import default_plan
from advisor.stacks.write import STARTS
from advisor.units import GIB
from advisor.values import CheckpointFormat, GpuSpec, Method, ModelSpec, Request, Stack

LLAMA = load_model("llama-3-8b")
CARD = GpuSpec(name="card", vendor="NVIDIA", usable_bytes=79 * GIB, usable_source="test")
NAME_KEYS = ("base_model", "model_name_or_path")
HOSTILE = (
    "x' + str(__import__('os').system('touch PWNED')) + '",
    'x" + str(__import__("os").system("touch PWNED")) + "',
    "it's",
    "x\\",
    "a\x85b",
    "!!object:x",
    "123",
    "1e5",
    "true",
    "a\u202eb",
    "new\nimport os",
    "a\u2028b",
    "caf\udce9",
    "\x1b[2J",
    "a: b # c",
    "{0}%s${HOME}",
    "\U000e0041",
)


def named(name: str) -> ModelSpec:
    return LLAMA.model_copy(update={"id": name})


@cache
def written(name: str, stack: Stack) -> str:
    return text_of(named(name), default_plan(Method.LORA, named(name), CARD, Request(stack=stack)))


def check_yaml(name: str, stack: Stack) -> None:
    text = written(name, stack)
    text.encode("utf-8")
    read = yaml.safe_load(text)
    assert [read[key] for key in NAME_KEYS if key in read] == [name]
    assert {key: value for key, value in read.items() if key not in NAME_KEYS} == {
        key: value for key, value in yaml.safe_load(written("plain", stack)).items() if key not in NAME_KEYS
    }


def check_script(name: str) -> None:
    """The program is that of a plain name but for one string constant."""
    text = written(name, Stack.HF)
    text.encode("utf-8")
    program, plain = ast.parse(text), ast.parse(written("plain", Stack.HF))
    constants = [node for node in ast.walk(program) if isinstance(node, ast.Constant) and node.value == name]
    assert len(constants) == 1
    constants[0].value = "plain"
    assert ast.dump(program) == ast.dump(plain)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_data_in_every_file(name: str) -> None:
    check_script(name)
    for stack in STARTS:
        check_yaml(name, stack)


@settings(deadline=None, max_examples=25)
@given(name=st.text(st.characters(), min_size=1))
def test_any_name_is_data_in_every_file(name: str) -> None:
    check_script(f"n{name}n")
    for stack in STARTS:
        check_yaml(f"n{name}n", stack)


@pytest.mark.parametrize("name", ["null", "~"])
def test_a_name_that_the_frameworks_take_for_none_is_refused(name: str) -> None:
    for stack in (Stack.HF, *STARTS):
        with pytest.raises(UnsupportedError, match="has no setting for a model called"):
            written(name, stack)


def test_a_refusal_inside_a_snippet_stays_a_comment() -> None:
    stored = CheckpointFormat(method="mxfp4", bits=4)
    model = named("x\nimport os").model_copy(update={"checkpoint_format": stored})
    plan = default_plan(Method.QLORA, LLAMA, CARD, Request(stack=Stack.AXOLOTL))
    assert [line for line in snippet(model, plan).splitlines() if not line.startswith("#")] == []


UNSEEN = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
UNSEEN += ["\ue000", "\uf8ff", "\U0010fffd", "\u0378", "\U0010ffff"]  # for private use, and of no meaning yet


@given(st.text(st.characters()))
def test_a_quoted_text_is_read_back_by_python_and_by_yaml(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text
    assert yaml.safe_load(f"name: {quoted(text)}")["name"] == text
    assert not set(quoted(text)) & set(UNSEEN)


def test_what_cannot_be_seen_stands_as_its_escape() -> None:
    assert shown("a\x1b[2J\u202e\ud800\x00é …\U000e0041") == "a\\x1b[2J\\u202e\\ud800\\x00é …\\U000e0041"
    assert shown("two\nlines", "\n") == "two\nlines"
    for text in ("".join(UNSEEN), "plain"):
        assert not set(shown(text)) & set(UNSEEN)
    assert json_shown('{"a": "\u202e\U000e0041\x7f"}\n') == '{"a": "\\u202e\\udb40\\udc41\\u007f"}\n'


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    cut = capped("name " * 1000 + "do this", 60)
    assert (len(cut), cut[:4], cut[-7:]) == (60, "name", "do this")
    assert capped("short", 60) == "short"


def test_the_folder_s_name_runs_nothing(tmp_path: Path) -> None:
    """The minimal input of the fault: a folder whose name is code, through the command itself."""
    folder = tmp_path / "x' + str(__import__('os').system('touch PWNED')) + '"
    folder.mkdir()
    (folder / "config.json").write_text(LLAMA.config_json or "", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "advisor", "config", "--stack", "hf", "--model", str(folder), "--gpu", "24GB"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    load = next(
        node for node in ast.walk(ast.parse(done.stdout)) if isinstance(node, ast.Call) and "from_pretrained" in ast.unparse(node.func)
    )
    assert ast.literal_eval(load.args[0]) == folder.name


@pytest.mark.parametrize(("cards", "processes"), [(2, 2), (8, 8), (9, 8), (16, 8)])
def test_a_machine_starts_eight_processes_at_most(cards: int, processes: int) -> None:
    plan = default_plan(Method.LORA, LLAMA, CARD, Request(stack=Stack.HF, gpus=cards, shard="ddp"))
    assert f"# start with: torchrun --nproc-per-node {processes} this_file.py ({cards} GPUs in all)\n" in snippet(LLAMA, plan)
