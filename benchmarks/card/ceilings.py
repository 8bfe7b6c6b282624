"""What a card reaches at most: matrix products and copies, timed with the device's own events. Loaded in a child process only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

SIZE = 8192
"""Of the square matrices: large enough that a card is filled."""
SMALL_SIZE = 256
"""On a processor, where the figures say nothing of a card."""
COPIED_BYTES = 1 << 31
SMALL_COPIED_BYTES = 1 << 20
REPEATS, WARM_UPS = 10, 3


def main(device: str, target: Path) -> None:
    """Write the ceilings as JSON, and end the process."""
    import torch

    on_cpu = device == "cpu"
    size, copied = (SMALL_SIZE, SMALL_COPIED_BYTES) if on_cpu else (SIZE, COPIED_BYTES)
    found: dict[str, Any] = {}
    for name in ("bfloat16", "float16", "float32"):
        left, right = (torch.randn(size, size, device=device).to(getattr(torch, name)) for _ in range(2))
        found[f"matmul_{name}_flop_per_s"] = 2 * size**3 / _seconds(lambda a=left, b=right: a @ b, on_cpu)  # type: ignore[misc]
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target_tensor = torch.empty_like(source)
    # Read once and written once.
    found["copy_bytes_per_s"] = 2 * copied / _seconds(lambda: target_tensor.copy_(source), on_cpu)
    target.write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)


def _seconds(work: Callable[[], Any], on_cpu: bool) -> float:
    """Median over the repeats of one call."""
    for _ in range(WARM_UPS):
        work()
    return median(_on_cpu(work) if on_cpu else _on_card(work) for _ in range(REPEATS))


def _on_cpu(work: Callable[[], Any]) -> float:
    import time

    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _on_card(work: Callable[[], Any]) -> float:
    import torch

    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000
