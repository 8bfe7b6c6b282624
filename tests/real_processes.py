"""Start several real processes that meet over gloo on the CPU: by themselves, or through a launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MOST_S = 1800


def said(script: str, cards: int, folder: Path, *arguments: str) -> str:
    """What all of them wrote."""
    started = [_started([HERE / script, f"file://{folder / 'store'}", *arguments], RANK=str(rank)) for rank in range(cards)]
    return _ended(started)


def said_through(launcher: list[str], script: str, *arguments: str) -> str:
    """What the processes of `launcher`, which is a module of Python and its options, wrote."""
    return _ended([_started(["-m", *launcher, HERE / script, "env://", *arguments])])


def _started(words: list[str | Path], **more: str) -> subprocess.Popen[str]:
    own = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}
    return subprocess.Popen([sys.executable, *map(str, words)], env={**os.environ, **own}, stdout=subprocess.PIPE, text=True)


def _ended(started: list[subprocess.Popen[str]]) -> str:
    try:
        texts = [process.communicate(timeout=MOST_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(started)
    return "".join(texts)
