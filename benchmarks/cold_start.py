"""How long the first answer takes: `python benchmarks/cold_start.py [NAME…] [--runs 15]`, with the python that has finetune-advisor.

Each whole command is timed in turn with the bare imports that it cannot do without, and the ratio is taken pair by pair, so that a machine
whose speed drifts still gives it. Install the wheel for it: an editable install adds its own import hook.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from advisor.units import format_size


class Case(NamedTuple):
    command: list[str]
    imports: str
    aim: float
    """Largest ratio of the two."""


IMPORTS = "import typer, rich.table, pydantic"
LIBRARIES = "import torch, transformers, peft"
CASES = {
    "advise": Case(["--model", "llama-70b", "--gpu", "80GB"], IMPORTS, 2.2),
    "trace-8b": Case(["trace", "--model", "llama-3.1-8b", "--method", "lora"], LIBRARIES, 2.5),
    "trace-70b": Case(["trace", "--model", "llama-70b", "--method", "qlora"], LIBRARIES, 3.5),
}


def seconds(arguments: list[str], folder: str) -> float:
    """Wall time of one process, in a folder that holds nothing to import, with .pyc files written as pip leaves them."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=folder, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all of them if left out")
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    for name in arguments.names or CASES:
        command, imports, aim = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            seconds(["-m", "advisor", *command], folder)  # fills the caches
            turns = range(arguments.runs)
            pairs = [(seconds(["-m", "advisor", *command], folder), seconds(["-c", imports], folder)) for _ in turns]
        commands, bare = zip(*pairs, strict=True)
        ratios = sorted(whole / part for whole, part in pairs)
        print(f"advise {' '.join(command)}")
        print(f"  command {statistics.median(commands):.3f} s, imports {statistics.median(bare):.3f} s, the median of {arguments.runs}")
        print(f"  ratio {statistics.median(ratios):.2f} (aim {aim}), between {ratios[0]:.2f} and {ratios[-1]:.2f}")
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"  largest process so far {format_size(largest)}")


if __name__ == "__main__":
    main()
