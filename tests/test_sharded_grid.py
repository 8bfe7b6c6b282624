"""The closed form of several cards against dry runs of the same plans, kept as data: `python benchmarks/sharded_grid.py` makes them."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.values import Method, Plan, Sharding
from benchmarks.sharded_grid import read_grid, spec_of

ROWS = [row for row in read_grid() if "refused" not in row]
MEDIAN_ERROR, NINETY_FIFTH_ERROR, WORST_ERROR = 0.003, 0.01, 0.03
"""The bars of the closed form on peak allocated."""


@pytest.fixture(scope="module")
def errors() -> list[tuple[float, dict[str, Any]]]:
    """(predicted over traced less one, row), smallest first by size."""
    found = []
    for row in ROWS:
        predicted = estimate_memory(spec_of(row["model"]), Plan(**row["plan"])).peak_allocated_bytes
        found.append((predicted / max(row["allocated_bytes"].values()) - 1, row))
    return sorted(found, key=lambda pair: abs(pair[0]))


def test_the_grid_is_wide() -> None:
    plans = [Plan(**row["plan"]) for row in ROWS]
    models = {row["model"] for row in ROWS}
    assert len(ROWS) >= 150
    assert len({load_model(model).model_type for model in models}) >= 6
    assert "moe" in {load_model(model).shape.blocks[-1].mlp.kind for model in models}
    assert {plan.method for plan in plans} == set(Method)
    assert {plan.sharding for plan in plans} == {Sharding.FSDP1, Sharding.FSDP2, Sharding.DDP}
    assert {2, 7, 64} <= {plan.n_gpus for plan in plans}
    for setting in ("autocast", "masters", "stack", "gradient_checkpointing", "micro_batch_size", "optimizer"):
        assert len({getattr(plan, setting) for plan in plans}) > 1, setting
    assert {1, 2, 4} <= {plan.grad_accum_steps for plan in plans}


def test_the_closed_form_is_near_the_dry_run(errors: list[tuple[float, dict[str, Any]]]) -> None:
    sizes = [abs(error) for error, _ in errors]
    assert median(sizes) <= MEDIAN_ERROR
    assert sizes[int(len(sizes) * 0.95)] <= NINETY_FIFTH_ERROR
    assert sizes[-1] <= WORST_ERROR, errors[-1]


def test_nothing_that_fits_by_the_closed_form_is_above_the_card_in_the_dry_run() -> None:
    """On a card of any size: a plan is called a fit where the upper end of its interval fits, and the traced peak is below that."""
    for row in ROWS:
        memory = estimate_memory(spec_of(row["model"]), Plan(**row["plan"]))
        assert max(row["allocated_bytes"].values()) + memory.context_bytes <= memory.high_bytes, row
