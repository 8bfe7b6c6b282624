"""The rows of benchmarks/planted_faults.py are still faults: what they change is in the sources, and the tests that own it are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.planted_faults import FAULTS, Planted

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}-{fault.right.split()[0]}")
def test_a_planted_fault_is_one(fault: Planted) -> None:
    source = (ROOT / "advisor" / fault.file).read_text(encoding="utf-8")
    assert fault.right in source
    compile(source.replace(fault.right, fault.wrong, 1), fault.file, "exec")
    assert all((ROOT / "tests" / f"test_{name}.py").is_file() for name in fault.tests.split())
