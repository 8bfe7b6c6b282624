"""How long does `advise next` take as the ledger grows? It should grow with the number of runs, and no faster.

python -m benchmarks.next_speed              200, 500, 1,000 and 2,000 runs, some seconds
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from advisor import api
from advisor.ledger.book import add, ledger_path
from advisor.values.run import Evaluation, RunRecord


def run_number(number: int) -> RunRecord:
    """One of many runs of a project: ranks, rates, passes and shares of the data in turn, sixty losses each."""
    return RunRecord(
        model="llama-2-7b",
        method="lora",
        rank=2 ** (3 + number % 5),
        alpha=32,
        learning_rate=1e-4 * (1 + number % 7),
        epochs=1 + number % 3,
        data_fraction=(0.25, 0.5, 1.0)[number % 3],
        effective_batch=16,
        train_losses=tuple((10 * step, 2 - 0.01 * step) for step in range(60)),
        evaluations=(Evaluation(metric="accuracy", score=0.4 + 1e-4 * (number % 1000), n=1000),),
    )


def seconds(runs: int) -> float:
    """From the file of the ledger to the answer, imports apart."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = ledger_path(Path(folder) / "runs.sqlite")
        add(ledger, [run_number(number) for number in range(runs)])
        began_s = time.perf_counter()
        api.next_step(ledger=ledger, evaluation={"target": 0.99})
        return time.perf_counter() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, action="append")
    arguments = parser.parse_args()
    seconds(2)  # loads what is loaded once
    for runs in arguments.runs or (200, 500, 1000, 2000):
        took_s = seconds(runs)
        print(f"{runs:6,} runs: {took_s:5.2f} s, {1000 * took_s / runs:.2f} ms a run", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
