"""A few seeds of benchmarks/diagnose.py: real training on the CPU, whose limit is known, is diagnosed rightly."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("scipy")

import torch

from benchmarks.diagnose import CASES, diagnose


# Of the rates, seed 0 is ten times too high, seed 1 a hundred times too low.
@pytest.mark.parametrize(("cause", "seed"), [("rank", 0), ("learning rate", 0), ("learning rate", 1), ("data", 0), ("noise", 0)])
@pytest.mark.sampled(2)
def test_the_known_limit_is_found(cause: str, seed: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are too small to share
    try:
        found = diagnose(cause, seed)
    finally:
        torch.set_num_threads(threads)
    assert found.sure
    assert found.found in CASES[cause].right


@pytest.mark.slow
@pytest.mark.parametrize("cause", CASES)
def test_nine_of_ten_seeds_are_right(cause: str) -> None:
    right = [diagnose(cause, seed).found in CASES[cause].right for seed in range(20)]
    assert sum(right) >= 18
