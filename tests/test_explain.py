"""Every id and word that a screen can show is explained: ids are read off the code itself, words off drawn screens."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor import api, cli
from advisor.cli import run as running
from advisor.cli.run import run
from advisor.errors import AdvisorError, UnknownNameError
from advisor.explain import explain, listed, names
from advisor.ladder.knowledge import sources
from advisor.render.advice import advice, bar_parts
from advisor.render.terminal import Look, draw
from advisor.values import Phase, Term

PACKAGE = Path(__file__).parent.parent / "advisor"
KINDS = dict(listed())
REMARKS = ("Remark", "remark", "found")
"""What makes a finding beside `Finding` itself, with the id first."""
SCRIPT_REMARKS = "stacks/script/"
"""A script's remarks have the setting's name first; their id is made in left_open.py."""


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
                yield path, node, name


def literals(node: ast.expr) -> Iterator[str]:
    """Texts that the expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def found_in_code() -> set[str]:
    ids = set()
    for path, call, name in calls():
        if name in ("Finding", "Gate", "Open"):
            ids |= {text for keyword in call.keywords if keyword.arg == "id" for text in literals(keyword.value)}
        elif name in REMARKS and call.args and not (name == "remark" and SCRIPT_REMARKS in path.as_posix()):
            ids |= set(literals(call.args[0]))
    return {text for text in ids if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text)}


BY_A_VARIABLE = {
    *("adapter-rank-unused", "adapter-rank-used", "adapter-rank-open"),
    *("spectrum-not-too-small", "spectrum-not-comparable", "spectrum-not-a-choice", "spectrum-not-after-quantisation"),
}
"""Ids that the code hands on in a variable; each stands in it as a text."""


def test_every_finding_of_the_code_is_explained_and_none_besides() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    assert {name for name in BY_A_VARIABLE if f'"{name}"' not in code} == set()
    told = "a finding has a row in profiles/explanations.json"
    assert found_in_code() | BY_A_VARIABLE == set(KINDS["finding"]), told


def test_every_gate_is_explained_and_none_besides() -> None:
    gates = {text for _, call, _ in calls() for keyword in call.keywords if keyword.arg == "gate" for text in literals(keyword.value)}
    assert gates == set(KINDS["gate"])


@pytest.mark.parametrize("name", [*(term.value for term in Term), *(phase.value for phase in Phase)])
def test_every_term_and_phase_is_explained(name: str) -> None:
    assert {found.kind for found in explain(name)} & {"term", "phase"}


def test_every_part_of_a_bar_is_explained() -> None:
    answer = api.advise("llama-3.1-8b", "t4", gpus=2)
    labels = {part.label for rung in answer.rungs for part in bar_parts(rung)}
    assert {label for label in labels if not any(found.kind == "term" for found in explain(label))} == set()


def test_every_exit_code_is_explained_and_none_besides() -> None:
    ours = {0, 1, 3, AdvisorError.exit_code, running.EXIT_BUG, running.EXIT_PRINTING, cli.EXIT_INTERRUPTED, 128 + 15, 128 + 1}
    assert set(map(str, ours)) == set(KINDS["exit code"])


@pytest.mark.parametrize("name", sources())
def test_every_fact_is_explained_with_its_source(name: str) -> None:
    (found,) = explain(name)
    assert found.kind == "fact"
    assert found.meaning
    assert found.source


@pytest.mark.parametrize(("model", "gpu", "options"), [("llama-70b", "80GB", {}), ("gpt-oss-20b", "h100", {"dataset_tokens": "30M"})])
def test_every_code_of_a_drawn_screen_is_explained(model: str, gpu: str, options: dict[str, str]) -> None:
    screen = draw(advice(api.advise(model, gpu, **options)), Look(width=140))
    codes = {code for cited in re.findall(r"\[([A-Z]+\d+(?:, [A-Z]+\d+)*)\]", screen) for code in cited.split(", ")}
    findings = re.findall(r"^  (?:!+ )?([a-z0-9]+(?:-[a-z0-9]+)+) ", screen.partition("\nFindings\n")[2], re.MULTILINE)
    assert codes
    assert findings
    for code in (*codes, *findings):
        assert explain(code)


@pytest.mark.parametrize(
    "word",
    [
        "rung",
        "ladder",
        "binding",
        "stack",
        "headroom",
        "interval",
        "DQ",
        "kbit",
        "tape",
        "LoRA",
        "QDoRA",
        "sweep",
        "closed form",
        "dry run",
    ],
)
def test_words_of_the_screens_are_explained(word: str) -> None:
    assert any(found.kind == "word" for found in explain(word))


def test_what_an_explanation_stands_on_is_told_whole() -> None:
    (found,) = explain("Batch High")
    assert [fact.id for fact in found.facts] == ["B1", "B2"]
    assert all(fact.meaning and fact.source for fact in found.facts)


def test_a_name_means_one_thing_of_each_kind() -> None:
    for name in names():
        kinds = [found.kind for found in explain(name)]
        assert len(kinds) == len(set(kinds)), name


@pytest.mark.parametrize(("word", "meant"), [("kbit-upcats", "kbit-upcast"), ("headrom", "headroom"), ("C444", "C4"), ("zzzzzz", "")])
def test_an_unknown_word_is_refused_with_the_nearest(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean {meant}" if meant else "nothing to explain"):
        explain(word)
    assert run(["explain", word]) == 2


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "optimizer", "state", "--json"]) == 0
    assert [found["id"] for found in json.loads(capsys.readouterr().out)] == ["optimizer state"]
    assert run(["explain", "Q4"]) == 0
    assert "arxiv.org/abs/2305.14314" in capsys.readouterr().out
    assert run(["explain"]) == 0
    assert "kbit-upcast" in capsys.readouterr().out
