"""The real worker, which ends in a given way once it has reached a given phase: for the tests of what the parent makes of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from advisor.calibration import job, worker

PHASE, WAY = os.environ["DIES_IN"].split(":")
tell = job.Log.at


def at(log: job.Log, phase: str, shape: str = "") -> None:
    tell(log, phase, shape)
    if phase != PHASE:
        return
    if WAY == "hang":
        time.sleep(600)
    if WAY == "memory":
        raise MemoryError("no more")
    if WAY == "full_card":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1e-6)  # the card gives nothing more
        return
    if WAY == "error":
        raise ValueError("of a library,\non two lines")
    os.kill(os.getpid(), getattr(signal, WAY))


if __name__ == "__main__":
    job.Log.at = at  # type: ignore[method-assign]
    worker.main(Path(sys.argv[1]))
