"""Results that are series become data frames: a row for each entry, bytes as int, and one clear line where nothing makes frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import advisor
from advisor.errors import MissingExtraError
from advisor.values import Advice

SERIES: dict[str, tuple[Callable[[], Any], Callable[[Any], int], set[str]]] = {
    "the ladder": (
        lambda: advisor.advise("llama-3.1-8b", "rtx 4090", dataset_tokens="30M"),
        lambda answer: len(answer.rungs),
        {"method", "fit", "chosen", "low_bytes", "high_bytes", "hours_low", "usd_high", "changes"},
    ),
    "models": (lambda: advisor.models("qwen3"), len, {"id", "params", "gated"}),
    "cards": (lambda: advisor.gpus("rtx 40"), len, {"name", "usable_bytes"}),
    "side by side": (
        lambda: advisor.compare(["llama-3.1-8b"], ["l4", "24GB"]),
        lambda found: len(found.offers),
        {"model", "gpu", "fit", "hours_low"},
    ),
    "what a fit trades": (
        lambda: advisor.fit("llama-3.1-8b", "24GB", method="qlora", seq_len="max"),
        lambda answer: len(answer.trades),
        {"method", "high_bytes", "asked", "change"},
    ),
    "cards of a fit": (
        lambda: advisor.fit("llama-3.1-8b", gpu="cheapest", method="full"),
        lambda answer: len(answer.trades) or len(answer.candidates),
        {"fit", "usd_low"},
    ),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_a_frame(name: str) -> None:
    pytest.importorskip("pandas")
    make, count, columns = SERIES[name]
    found = make()
    frame = found.to_frame()
    assert len(frame) == count(found) > 0
    assert columns <= set(frame.columns)
    assert "step_time" not in frame.columns
    assert all(frame[column].dtype.kind == "i" for column in frame.columns if column in ("low_bytes", "high_bytes", "usable_bytes"))


def test_a_row_says_what_the_value_says() -> None:
    pytest.importorskip("pandas")
    answer = advisor.advise("llama-70b", "80GB")
    frame = answer.to_frame()
    assert [*frame["method"]] == [rung.plan.method.value for rung in answer.rungs]
    assert [*frame["high_bytes"]] == [rung.memory.high_bytes for rung in answer.rungs]
    assert [*frame[frame["chosen"]]["method"]] == ["qlora"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "json"])
def test_a_sweep_s_table_is_read_back(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    grid = tmp_path / "grid.yaml"
    grid.write_text("model: llama-3.1-8b\ngpu: [t4, l4]\nmethod: [lora, qlora]\n", encoding="utf-8")
    report = advisor.sweep(grid, tmp_path / f"plans.{ending}")
    assert len(report.to_frame()) == report.verdicts.rows == 4


def test_without_a_library_that_makes_frames_one_line_says_so(monkeypatch: pytest.MonkeyPatch, answer: Advice) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        answer.to_frame()


def test_polars_makes_frames_where_pandas_is_not(monkeypatch: pytest.MonkeyPatch, answer: Advice) -> None:
    """A stand-in: what is asked of polars is its DataFrame of columns by name."""

    class Polars:
        DataFrame = dict

    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", Polars())  # type: ignore[arg-type]
    assert answer.to_frame()["method"][0] == "lora"


@pytest.fixture(scope="module")
def answer() -> Advice:
    return advisor.advise("llama-3.1-8b", "24GB")


# ----------------------------------------------------------------------------------------------------------------- side by side


def test_side_by_side_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found = advisor.compare(["llama-3.1-8b", "llama-70b"], ["t4", "a100-80gb"])
    assert "is the cheapest here that fits" in repr(found)
    assert "GPU" in str(found)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert "<figure" not in found._repr_html_()


def test_the_heat_map_says_each_cell_in_words() -> None:
    pytest.importorskip("vl_convert")
    found = advisor.compare(["llama-3.1-8b", "llama-70b"], ["t4", "a100-80gb"])
    page = found._repr_html_()
    assert page.count("<figure") == 1
    for line in found.offers:
        assert f"{line.model} on {line.gpu.name}: " in page
    assert "http" not in page.partition("<svg")[2].replace("http://www.w3.org/", "")
