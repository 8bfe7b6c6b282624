"""Commands that write are killed in the middle, line by line: what was acknowledged is there, what is there is whole, and what was asked to
end leaves nothing unfinished behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import PACKAGE, SCENARIOS

from advisor.ledger import book

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

TESTS = Path(__file__).parent
SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")


@pytest.mark.parametrize("most", [15, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in SCENARIOS])
@pytest.mark.sampled(6)
def test_killed_in_the_middle(scenario: str, number: str, most: int, tmp_path: Path) -> None:
    if "adapter" in scenario:
        pytest.importorskip("numpy")
    if "sweep" in scenario:
        pytest.importorskip("pyarrow")
    own = {"PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(TESTS))), "OPENBLAS_NUM_THREADS": "1"}
    environment = {**{name: value for name, value in os.environ.items() if name != book.ENVIRONMENT}, **own}
    command = [sys.executable, str(TESTS / "killing.py"), scenario, str(int(getattr(signal, number))), str(most)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500
    )  # minutes, on a busy machine
    assert done.returncode == 0, done.stderr[-3000:]


# ---------------------------------------------------------------------------------------------------------- a whole process


def test_a_command_that_is_told_to_end_says_so_by_its_exit_code(tmp_path: Path) -> None:
    """At random moments of a real process; before its first line the system ends it."""
    for number, delay in ((signal.SIGTERM, 0.05), (signal.SIGTERM, 0.3), (signal.SIGHUP, 0.4)):
        child = subprocess.Popen(
            [sys.executable, "-m", "advisor", "--model", "llama-3.1-8b", "--gpu", "24GB"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        )
        time.sleep(delay)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
        assert child.returncode in (0, -number, 128 + number)
        assert "Traceback" not in said or child.returncode != 128 + number


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from advisor import cli; cli._end_cleanly();"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN; assert signal.getsignal(signal.SIGTERM) is cli._end"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
