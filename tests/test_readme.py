"""The README says what is so: its screen, its table and its examples are the program's own output."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest
from kept_text import block, check

from advisor import api
from advisor.cli.app import SUBCOMMANDS
from advisor.cli.run import run
from advisor.render.accuracy import markdown
from advisor.render.summary import summary
from advisor.render.terminal import Look, draw

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MOST_SCREEN_LINES = 20


def test_the_screen_is_the_real_one() -> None:
    screen = draw(summary(api.advise("llama-70b", "80GB")), Look(width=100))
    check(README, "screen:", f"```text\n{screen[screen.index('rung') :]}```\n")


def test_the_screen_is_a_glance() -> None:
    assert block(README, "screen:")[0].count("\n") <= MOST_SCREEN_LINES + 2


def test_no_link_needs_the_repository_around_it() -> None:
    """The same text is shown by package indexes, where a relative link leads nowhere."""
    links = re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_accuracy_table_is_the_generators() -> None:
    check(README, "accuracy:", f"\n{markdown(api.accuracy())}\n")


def test_the_examples_are_true() -> None:
    result = doctest.testfile(str(README), module_relative=False, encoding="utf-8")
    assert result.attempted >= 9
    assert result.failed == 0


def test_every_command_is_named() -> None:
    text = README.read_text(encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as help_text:
        assert run(["--help"]) == 0
    commands = re.findall(r"^  (\w+)  ", help_text.getvalue(), re.MULTILINE)
    assert set(commands) == set(SUBCOMMANDS)
    assert [name for name in commands if f"`advise {name}" not in text] == []


@pytest.mark.parametrize("marker", ["main-command", "test-command"])
def test_a_command_sets_up_all_it_needs(marker: str) -> None:
    """Each is one line that makes its own environment and installs at the pinned versions; `.ci/run` runs the second."""
    found = re.search(rf"<!-- {marker} -->\n```sh\n([^\n]*)\n```", README.read_text(encoding="utf-8"))
    assert found
    words = shlex.split(found[1])
    assert words[:4] == ["python3", "-m", "venv", ".venv"]
    assert words[words.index("-c") + 1] == "constraints.txt"
