"""The pages of docs/ say what is so: their commands run, their screens are the program's own, and the reference leaves nothing out."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kept_text import COLUMNS, block, check, fenced, printed

import advisor
from advisor.cli.app import SUBCOMMANDS
from advisor.explain import listed
from advisor.ladder.knowledge import sources
from advisor.values.request import Request

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ENDS_WITH_AN_ANSWER = (0, 1, 3)
TABLES = "advise sweep"
"""What on a page needs the extra `sweep`."""


@cache
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a ledger of its own, as a reader begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", COLUMNS)
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_of_a_page_answers(path: Path, at_home: Path) -> None:
    """In the order of the page, in one folder: what the one writes, the next reads."""
    text = path.read_text(encoding="utf-8")
    if TABLES in text:
        pytest.importorskip("pyarrow")
    for found in fenced(path):
        if found.comment.startswith("file: "):
            (at_home / found.comment.removeprefix("file: ")).write_text(found.text, encoding="utf-8")
        if found.language == "sh" and not found.comment.startswith("not run: "):
            for line in found.text.splitlines():
                code, out = printed(line)
                assert code in ENDS_WITH_AN_ANSWER, line
                assert out


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_screen_of_a_page_is_the_real_one(path: Path, at_home: Path) -> None:
    for command in re.findall(r"<!-- screen: (.*) -->", path.read_text(encoding="utf-8")):
        check(path, f"screen: {command}", f"```text\n{printed(command)[1]}```\n")
        assert "GiB" in block(path, f"screen: {command}")[0]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_python_of_a_page_is_true(path: Path, at_home: Path) -> None:
    """Sessions are run; other Python is marked as not run, and is Python at least."""
    for found in fenced(path):
        if found.language == "python" and ">>>" not in found.text:
            assert found.comment.startswith("not run: "), found.text
            ast.parse(found.text)
    result = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert result.failed == 0


def test_every_page_is_in_the_navigation_and_none_besides() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    assert named == {name_of(path) for path in PAGES} | set(maker().PAGES)
    assert set(maker().PARTS) <= {name_of(path) for path in PAGES}
    assert all(maker().MADE_HERE in (DOCS / name).read_text(encoding="utf-8") for name in maker().PARTS)


def test_the_commands_page_has_every_command_and_option() -> None:
    page = maker().commands_page()
    assert [name for name in SUBCOMMANDS if f"## advise {name}\n" not in page] == []
    options = ["--" + name.replace("_", "-") for name in Request.model_fields]
    assert [option for option in options if f"`{option} " not in page] == []
    assert page.count("`--lora-dropout ") == 2  # of a plan, and of a run that is recorded


def test_the_words_pages_have_everything_that_is_explained() -> None:
    words, facts, codes = maker().words_page(), maker().facts_page(), maker().exit_codes_page()
    for kind, names in listed():
        page = {"fact": facts, "exit code": codes}.get(kind, words)
        assert [name for name in names if f"### {name}\n" not in page] == []
    assert facts.count("Source: ") == len(sources())


def test_the_python_page_has_every_public_name() -> None:
    page = maker().python_page()
    assert [name for name in advisor.__all__ if name != "__version__" and not re.search(rf"^::: advisor\..*\b{name}$", page, re.M)] == []


@pytest.mark.parametrize("name", maker().ANSWERS)
def test_the_fields_of_an_answer_are_on_the_json_page(name: str) -> None:
    section = maker().json_page().partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert [field for field in maker().schema_of(name)["properties"] if f"`{field}`" not in section] == []


def test_a_field_is_described_by_the_text_under_it() -> None:
    assert maker().described(advisor.MemoryBreakdown)["versions"] == "Library versions that the number speaks for."


def test_every_memory_term_has_its_check() -> None:
    """Of the measured runs: differences that are shares, of runs that have both predictions."""
    reports, found = maker().held_to_account()
    page = maker().terms_part()
    assert [report.tier for report in reports] == ["estimate", "trace"]
    for name in dict(listed())["term"]:
        assert f"## {name}\n" in page
    assert set(found) >= {term.value.replace("_", " ") for term in (advisor.values.Term.WEIGHTS, advisor.values.Term.ACTIVATIONS)}
    assert all(len(found[term]) >= 10 for term in found)
    assert max(abs(one.share) for one in found["adapter"]) < 0.001


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a | b", "a \\| b"), ("<script>", "&lt;script&gt;"), ("two\n lines", "two lines"), ("q_proj *", "q\\_proj \\*")],
)
def test_text_in_a_cell_stays_text(text: str, expected: str) -> None:
    assert maker().cell(text) == expected
