"""Run a grid of trainings on the card of this machine and keep what its allocator says: measured rows, and histories event by event.

    python benchmarks/on_card.py --minutes 8 --out out            the grid, most telling runs first; again: goes on where it stopped
    python benchmarks/on_card.py --minutes 5 --out out --time     matrix and copy ceilings, and the methods' steps side by side
    python benchmarks/on_card.py --out out --only qlora           runs with that text in their id
    python benchmarks/on_card.py --device cpu --out out           the same grid with small models, to try the script itself
    python benchmarks/on_card.py --list                           the grid

What it needs: this repository's files (installed or not), torch, transformers, accelerate and peft, and what `advise` itself imports. Runs
that need bitsandbytes, TRL or liger-kernel are skipped with a line where those are missing. Nothing is downloaded: models are built on the
card from their configs, with random weights. Each run has a process of its own; one that dies (out of memory, a crash, its time limit) is a
result.

What it leaves in --out: `rows.json`, a row for each run in the format of `profiles/measurements/`; `ID.history.json.gz`, the allocator's
history of some of them; `times.json` with --time. What to do with them:

    advise accuracy --snapshots out                               why a dry run differs from the card, event by event
    advise accuracy --rows out/rows.json --trace                  errors on these rows
    python benchmarks/on_card.py --out out --contribute           rows, their dry runs and the residuals, into profiles/measurements/
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the package need not be installed where a card is

NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "peft": "peft",
    "pydantic": "pydantic",
    "typer": "typer",
    "yaml": "pyyaml",
    "platformdirs": "platformdirs",
    "huggingface_hub": "huggingface_hub",
    "pynvml": "nvidia-ml-py",
}
"""Module → distribution."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no run is begun after so long (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("on-card"), help="folder of the results (default: on-card)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--time", action="store_true", help="ceilings and step times instead of the grid")
    parser.add_argument("--only", default="", help="runs with this text in their id, or one of several between commas")
    parser.add_argument("--contribute", action="store_true", help="bring what is in --out into profiles/measurements/, and end")
    parser.add_argument("--list", action="store_true", help="print the runs and end")
    given = parser.parse_args(arguments)
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        sys.stderr.write(f"error: this needs {', '.join(missing)}, which are not installed here: pip install {' '.join(missing)}\n")
        return 2
    # No look at the Hub, and none of its warnings: what has no profile is skipped.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    from advisor.errors import AdvisorError
    from benchmarks.card import session

    options = session.Options(
        until=time.monotonic() + 60 * given.minutes, out=given.out, device=given.device, only=given.only, times=given.time
    )
    try:
        if given.contribute:
            from benchmarks.card.contribute import contribute

            return contribute(given.out)
        return session.listed(options) if given.list else session.run(options)
    except AdvisorError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
