"""How long the first answer takes: `python benchmarks/cold_start.py [--runs 15]`, with the python that has finetune-advisor installed.

The whole command is timed in turn with the bare imports that it cannot do without, and the ratio is taken pair by pair, so that a machine
whose speed drifts still gives it. Aim: at most 2.2. Install the wheel for it: an editable install adds its own import hook.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = ["-c", "import typer, rich.table, pydantic"]
COMMAND = ["-m", "advisor", "--model", "llama-70b", "--gpu", "80GB"]


def seconds(arguments: list[str], folder: str) -> float:
    """Wall time of one process, in a folder that holds nothing to import, with .pyc files written as pip leaves them."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, cwd=folder, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(seconds(COMMAND, folder), seconds(IMPORTS, folder)) for _ in range(runs + 1)][1:]  # the first pair fills the caches
    commands, imports = zip(*pairs, strict=True)
    ratios = sorted(command / bare for command, bare in pairs)
    print(f"main command  {statistics.median(commands):.3f} s, the median of {runs}")
    print(f"bare imports  {statistics.median(imports):.3f} s")
    print(f"ratio         {statistics.median(ratios):.2f}, between {ratios[0]:.2f} and {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
