"""How fast a sweep is: shapes of a known kind a second, beside `estimate_memory`, and a million plans of 200 kinds to Parquet, cold.

python benchmarks/sweep_speed.py

Aims: 1,000,000 shapes a second, 100 times as many as one at a time in the same run; the million in 20 seconds of two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.memory.curves import curves_of
from advisor.sweeps.shapes import Shapes, price
from advisor.values import Plan

ROUNDS = 7
SHAPES = 1_000_000
ONE_BY_ONE = 500
GRID = """
model: [llama-3.1-8b, qwen2.5-7b, mistral-7b-v0.3, gemma-2-9b, phi-4]
gpu: [rtx 4090, h100]
gpus: [1, 8]
method: [lora, qlora]
rank: [8, 16, 32, 64, 128]
seq_len: {from: 128, to: 9984, step: 128}
batch_size: {from: 1, to: 64, step: 1}
"""
"""5 x 2 x 2 x 2 x 5 kinds of 78 x 64 shapes: 998,400 plans."""


def known_kind() -> tuple[float, float]:
    """Shapes a second as arrays, and one at a time: medians."""
    model, gpu, plan = load_model("llama-3.1-8b"), load_gpu("a100 80gb"), Plan()
    curves = curves_of(model, plan, gpu)
    batch: Any = np.repeat(np.arange(1, 1001), SHAPES // 1000)
    seq_len: Any = np.tile(np.arange(128, 128 + 8 * SHAPES // 1000, 8), 1000)
    arrays, single = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        price(curves, Shapes(batch, seq_len), gpu.usable_bytes)
        arrays.append(SHAPES / (time.perf_counter() - begun))
        begun = time.perf_counter()
        for size in range(1, ONE_BY_ONE + 1):
            estimate_memory(model, plan.model_copy(update={"micro_batch_size": size}), gpu)
        single.append(ONE_BY_ONE / (time.perf_counter() - begun))
    return median(arrays), median(single)


def million(folder: Path) -> float:
    """Seconds of the command, from nothing to the file."""
    (folder / "million.yaml").write_text(GRID, encoding="utf-8")
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "advisor", "sweep", str(folder / "million.yaml"), "--json"], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def main() -> None:
    arrays, single = known_kind()
    print(f"shapes of a known kind: {arrays:,.0f} a second; one at a time {single:,.0f}: {arrays / single:,.0f} times")
    with tempfile.TemporaryDirectory() as folder:
        seconds = million(Path(folder))
        size = (Path(folder) / "million.parquet").stat().st_size
    print(f"998,400 plans of 200 kinds: {seconds:.1f} s, {size / 1e6:.1f} MB of Parquet")


if __name__ == "__main__":
    main()
