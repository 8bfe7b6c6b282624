"""The closed form against dry runs of the same plans, kept as data: `python benchmarks/trace_grid.py` makes them anew."""

from statistics import median

import pytest

from advisor import profiles
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.values import Method, Plan

ROWS = [row for row in profiles.read("measurements/replays") if not {"loss", "lora_dropout"} & set(row["plan"])]

MEDIAN_ERROR, NINETY_FIFTH_ERROR, WORST_ERROR = 0.01, 0.03, 0.08
"""The bars of the closed form on peak allocated."""


@pytest.fixture(scope="module")
def errors():
    """(relative error, row), smallest first."""
    found = []
    for row in ROWS:
        predicted = estimate_memory(load_model(row["model"]), Plan(**row["plan"])).peak_allocated_bytes
        found.append((abs(predicted / row["allocated_bytes"] - 1), row))
    return sorted(found, key=lambda pair: pair[0])


def test_the_grid_is_wide():
    plans = [Plan(**row["plan"]) for row in ROWS]
    models = {row["model"] for row in ROWS}
    kinds = {load_model(model).shape.blocks[-1].mlp.kind for model in models}
    assert len(ROWS) >= 300
    assert len({load_model(model).model_type for model in models}) >= 8
    assert "moe" in kinds
    assert {plan.method for plan in plans} == set(Method)
    for setting in ("gradient_checkpointing", "attention", "micro_batch_size", "seq_len_tokens", "optimizer", "stack"):
        assert len({getattr(plan, setting) for plan in plans}) > 1, setting


def test_the_closed_form_is_near_the_dry_run(errors):
    sizes = [error for error, _ in errors]
    assert median(sizes) <= MEDIAN_ERROR
    assert sizes[int(len(sizes) * 0.95)] <= NINETY_FIFTH_ERROR
    assert sizes[-1] <= WORST_ERROR, errors[-1]


def test_no_architecture_or_method_is_off_as_a_whole(errors):
    for key in ("model", "method"):
        groups = {}
        for error, row in errors:
            groups.setdefault(row["model"] if key == "model" else row["plan"].get("method", "lora"), []).append(error)
        for name, group in groups.items():
            assert median(group) <= MEDIAN_ERROR, name
