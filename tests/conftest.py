"""Shared by every test: hypothesis' profile, and whole screens kept as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# Derandomised, so that a run says the same twice and everywhere; no deadline, because two busy cores are no reason to fail.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=2000)
# A counter-example is enough where nobody reads it: benchmarks/mutants.py.
settings.register_profile("unshrunk", deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked `sampled(n)`, leave n cases that lie evenly apart in the default run; the others are `long`."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        left_out = any(item.get_closest_marker(name) for name in ("long", "slow", "gpu", "network"))
        if item.get_closest_marker("sampled") and not left_out:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        marker = found[0].get_closest_marker("sampled")
        assert marker is not None
        kept = {round(number * (len(found) - 1) / max(marker.args[0] - 1, 1)) for number in range(marker.args[0])}
        for number, item in enumerate(found):
            if number not in kept:
                item.add_marker(pytest.mark.long)


SCREENS = Path(__file__).parent / "screens"


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was calibrated and recorded on this machine is no part of a test."""
    monkeypatch.setenv("FINETUNE_ADVISOR_CACHE", str(tmp_path_factory.getbasetemp() / "no-cache"))
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path_factory.getbasetemp() / "no-data"))


@pytest.fixture(autouse=True)
def _nothing_of_another_test() -> None:
    """A test may put another estimate in the place of the ladder's own."""
    from advisor.ladder import fit

    fit.memory_of.cache_clear()


@pytest.fixture
def matches_screen() -> Callable[[str, str], None]:
    """Asserts that a text equals `tests/screens/NAME`. UPDATE_SCREENS=1 writes the file instead: read the diff before committing it."""

    def check(name: str, text: str) -> None:
        path = SCREENS / name
        if os.environ.get("UPDATE_SCREENS"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; if that is meant, run with UPDATE_SCREENS=1"

    return check
