"""Every supported model type: the closed form against dry runs kept as data. `python benchmarks/type_grid.py` makes them anew."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from advisor.architectures import SUPPORTED, spec_from_config
from advisor.errors import UnsupportedError
from advisor.memory import estimate_memory
from advisor.values import Method, ModelSpec, Plan

GRID = json.loads((Path(__file__).parent / "data" / "type_grid.json").read_text(encoding="utf-8"))["types"]
ROWS = [(name, row) for name, kept in GRID.items() for row in kept["rows"]]
IDS = [f"{name}-{number}" for name, kept in GRID.items() for number in range(len(kept["rows"]))]

MEDIAN_ERROR, WORST_ERROR = 0.003, 0.05
"""The bars on peak allocated."""
SAMPLED = ("llama", "falcon", "bert", "qwen3_moe")
"""Types of which one row is traced anew in every run of the tests."""


def spec_of(name: str) -> ModelSpec:
    return spec_from_config(GRID[name]["config"], id=name, source="tests/data/type_grid.json")


def error_of(name: str, row: dict[str, Any]) -> float:
    predicted = estimate_memory(spec_of(name), Plan(**row["plan"])).peak_allocated_bytes
    return float(predicted / row["allocated_bytes"] - 1)


def test_every_type_stands_in_the_grid() -> None:
    assert set(GRID) == set(SUPPORTED)


@pytest.mark.parametrize("name", GRID)
def test_every_type_meets_every_method(name: str) -> None:
    plans = [Plan(**row["plan"]) for row in GRID[name]["rows"]]
    met = {(plan.method, plan.gradient_checkpointing) for plan in plans}
    assert met == {(method, checkpointing) for method in Method for checkpointing in (True, False)}


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_the_closed_form_is_near_the_dry_run_or_refuses(name: str, row: dict[str, Any]) -> None:
    """What the libraries cannot run is refused, and what is answered is near."""
    try:
        error = error_of(name, row) if "refused" not in row else None
    except UnsupportedError:
        return
    if error is None:
        with pytest.raises(UnsupportedError):
            estimate_memory(spec_of(name), Plan(**row["plan"]))
    else:
        assert abs(error) <= WORST_ERROR, f"{error:+.2%}"


def test_the_closed_form_is_near_in_the_middle_and_answers_nearly_all() -> None:
    errors = []
    for name, row in ROWS:
        try:
            errors.append(abs(error_of(name, row)) if "refused" not in row else None)
        except UnsupportedError:
            errors.append(None)
    answered = [error for error in errors if error is not None]
    assert median(answered) <= MEDIAN_ERROR
    assert len(answered) >= 0.95 * len(errors)


def retraced(name: str, row: dict[str, Any]) -> None:
    from advisor.dryrun import trace

    plan = Plan(**row["plan"])
    if "refused" in row:
        with pytest.raises(UnsupportedError):
            trace(spec_of(name), plan)
        return
    memory = trace(spec_of(name), plan, keep_outputs=False).breakdown
    assert (memory.peak_allocated_bytes, memory.peak_reserved_bytes) == (row["allocated_bytes"], row["reserved_bytes"])


def _is_recorded_version() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    recorded = json.loads((Path(__file__).parent / "data" / "type_grid.json").read_text(encoding="utf-8"))["versions"]
    try:
        return all(version(name) == recorded[name] for name in ("torch", "transformers", "peft", "bitsandbytes"))
    except PackageNotFoundError:
        return False


only_recorded_versions = pytest.mark.skipif(not _is_recorded_version(), reason="other libraries than those of the recorded rows")


@only_recorded_versions
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.sampled(2)
def test_a_recorded_row_is_what_the_dry_run_says(name: str) -> None:
    retraced(name, GRID[name]["rows"][0])


@pytest.mark.slow
@only_recorded_versions
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_every_recorded_row_is_what_the_dry_run_says(name: str, row: dict[str, Any]) -> None:
    retraced(name, row)


_AUTOCAST: dict[str, Any] = {"autocast": True}
_PREPARED = _AUTOCAST | {"kbit_prepare": True}
_MASTERS = _AUTOCAST | {"base_dtype": "fp32"}
_REENTRANT: dict[str, Any] = {"use_reentrant": True}
# (type, its row in the grid, what the plan does otherwise, allocated bytes of the dry run): types that autocast and checkpoints change
CHANGED = [
    ("glm4_moe", 0, _AUTOCAST, 6567402496),
    ("glm4_moe", 6, _AUTOCAST, 5222511616),
    ("glm4_moe", 8, _PREPARED, 6884212224),
    ("qwen3_moe", 4, _MASTERS, 8615452160),
    ("qwen3_moe", 8, _REENTRANT, 2120828416),
    ("mistral", 6, _REENTRANT, 2205747712),
    ("ernie4_5_moe", 8, _AUTOCAST, 2678698496),
    ("mixtral", 0, _AUTOCAST, 16107748352),
    ("mixtral", 9, _MASTERS, 49136278016),
    ("deepseek_v2", 6, _AUTOCAST, 2786624512),
    ("gpt_oss", 0, _AUTOCAST, 6777385984),
    ("gpt_oss", 1, _PREPARED, 13654621184),
    ("gpt_oss", 5, _MASTERS, 11515175936),
    ("mistral", 8, _PREPARED, 4751328768),
    ("granitemoe", 8, _AUTOCAST, 6696080896),
]


@pytest.mark.parametrize(("name", "number", "otherwise", "allocated_bytes"), CHANGED)
def test_autocast_and_reentrant_checkpoints_change_what_they_change(
    name: str, number: int, otherwise: dict[str, Any], allocated_bytes: int
) -> None:
    plan = Plan(**GRID[name]["rows"][number]["plan"] | otherwise)
    assert estimate_memory(spec_of(name), plan).peak_allocated_bytes == pytest.approx(allocated_bytes, rel=0.03)


@pytest.mark.slow
@only_recorded_versions
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "number", "otherwise", "allocated_bytes"), CHANGED)
def test_a_changed_row_is_what_the_dry_run_says(name: str, number: int, otherwise: dict[str, Any], allocated_bytes: int) -> None:
    from advisor.dryrun import trace

    plan = Plan(**GRID[name]["rows"][number]["plan"] | otherwise)
    assert trace(spec_of(name), plan, keep_outputs=False).breakdown.peak_allocated_bytes == allocated_bytes
