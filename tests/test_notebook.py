"""The notebook shows what the code says today, and tells its story in ten minutes."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from test_html import Checked

EXAMPLES = Path(__file__).parent.parent / "examples"
MOST_WORDS = 10 * 200
"""Of a reader at 200 words a minute, slow for prose; the tables are looked at, not read."""


@cache
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebook", EXAMPLES.parent / "benchmarks" / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def stored() -> dict[str, Any]:
    return dict(json.loads((EXAMPLES / "ten_minutes.ipynb").read_text(encoding="utf-8")))


def test_the_notebook_is_what_its_cells_show_today() -> None:
    assert maker().notebook() == stored(), "if that is meant: python benchmarks/make_notebook.py"


def test_every_cell_of_code_shows_something_but_the_imports() -> None:
    code = [cell for cell in stored()["cells"] if cell["cell_type"] == "code"]
    assert [bool(cell["outputs"]) for cell in code] == [False] + [True] * (len(code) - 1)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_what_is_shown_is_a_part_of_a_page_that_fetches_nothing() -> None:
    shown = [output for cell in stored()["cells"] for output in cell.get("outputs", ()) if "data" in output]
    assert len(shown) >= 4
    for output in shown:
        page = Checked("".join(output["data"]["text/html"]))
        assert "script" not in page.tags
        assert len(output["data"]["text/plain"][0]) < 400


def test_the_story_takes_ten_minutes() -> None:
    prose = [word for cell in stored()["cells"] if cell["cell_type"] == "markdown" for word in "".join(cell["source"]).split()]
    assert 100 < len(prose) < MOST_WORDS
