"""A share is written one way on every screen and in every text, "32.6 %", by the functions of `advisor.units`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.explain import explain, listed
from advisor.render.explain import explanation
from advisor.render.terminal import Look, draw
from advisor.units import format_difference, format_rough_share, format_share

ROOT = Path(__file__).parent.parent
TEXTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "tests" / "screens").glob("*.txt"),
    *(path for folder in ("methods", "stacks", "not_covered") for path in (ROOT / "profiles" / folder).glob("*.json")),
    ROOT / "profiles" / "explanations.json",
]
WRITERS = {ROOT / "advisor" / "units.py"}
STYLES = {ROOT / "advisor" / "render" / name for name in ("html.py", "style.py")}
"""Lengths of a style sheet are shares of another kind: CSS has no space there."""
WITHOUT_SPACE = re.compile(r"\d%(?![0-9A-F]{2})")
"""Not the escapes of an address."""


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (format_share(0.326, 1), "32.6 %"),
        (format_share(0.25), "25 %"),
        (format_share(1.0), "100 %"),
        (format_difference(0.0131), "+1.3 %"),
        (format_difference(-0.00412, 2), "−0.41 %"),
        (format_rough_share(1.0), "100 %"),
        (format_rough_share(0.00306), "0.31 %"),
        (format_rough_share(0.1234, 3), "12.3 %"),
    ],
)
def test_a_share_as_text(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_text_leaves_the_space_out(path: Path) -> None:
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if WITHOUT_SPACE.search(line)] == []


@pytest.mark.parametrize("name", sorted({name for _, names in listed() for name in names}))
def test_no_explanation_leaves_the_space_out(name: str) -> None:
    screen = draw(explanation(explain(name)), Look(width=100))
    assert WITHOUT_SPACE.search(screen) is None, screen


def _written_otherwise(path: Path) -> Iterator[str]:
    """Formatted values that a percent sign follows, by their format or as text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        for part, behind in zip(node.values, [*node.values[1:], None], strict=True):
            if not isinstance(part, ast.FormattedValue):
                continue
            formatted = part.format_spec is not None and ast.unparse(part.format_spec).rstrip("'\"").endswith("%")
            if formatted or (isinstance(behind, ast.Constant) and re.match(r" ?%", str(behind.value))):
                yield f"{path.name}:{node.lineno}"


def test_no_other_code_writes_a_share() -> None:
    sources = {*(ROOT / "advisor").rglob("*.py"), ROOT / "docs" / "generate.py"} - WRITERS - STYLES
    assert [place for path in sorted(sources) for place in _written_otherwise(path)] == []


def test_code_that_writes_a_share_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text('f"{share:.0%} of it"\nf"{100 * share:.1f} % of it"\nf"{share}% of it"\nf"{share} of it: %"\n')
    assert [*_written_otherwise(tmp_path / "code.py")] == ["code.py:1", "code.py:2", "code.py:3"]
