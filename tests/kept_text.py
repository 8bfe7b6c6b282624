"""Written pages that show what the program says: blocks between markers are compared with it, and UPDATE_SCREENS=1 writes them anew."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from advisor.cli.run import run

COLUMNS = "100"
"""Of the terminal that pages show."""
END = "<!-- end -->"


def block(path: Path, marker: str) -> tuple[str, int, int]:
    """The text between `<!-- marker… -->` and `<!-- end -->`, and where it stands."""
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(marker)}[^\n]*-->\n(.*?){END}", text, re.DOTALL)
    assert found, f"{path.name} has no block {marker}"
    return found[1], found.start(1), found.end(1)


def check(path: Path, marker: str, expected: str) -> None:
    """Asserts that a block equals the program's output; UPDATE_SCREENS=1 writes it instead."""
    shown, start, end = block(path, marker)
    if os.environ.get("UPDATE_SCREENS"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text[:start] + expected + text[end:], encoding="utf-8")
        shown = expected
    assert shown == expected, f"{path.name} is stale; UPDATE_SCREENS=1 python -m pytest tests/test_readme.py tests/test_docs.py mends it"


class Fenced(NamedTuple):
    """A fenced block, with the comment on the line above it."""

    language: str
    text: str
    comment: str


def fenced(path: Path) -> Iterator[Fenced]:
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)```", text, re.DOTALL):
        yield Fenced(found[2], found[3], found[1] or "")


def printed(command: str) -> tuple[int, str]:
    """Exit code and stdout of an `advise …` line, run in this process."""
    words = shlex.split(command)
    assert words[0] == "advise", command
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out):
        code = run(words[1:])
    out.seek(0)
    return code, out.read()
