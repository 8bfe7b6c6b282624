"""Kill every command that writes, as a process of its own, at random moments: nothing lost, nothing half written, nothing left behind.

    python -m benchmarks.kills                       200 moments of each command, a third each by SIGKILL, SIGTERM and SIGINT
    python -m benchmarks.kills --moments 20 record   of one command

tests/test_kills.py kills line by line where the writing is; this takes whole processes, from their start to after their end. What was
acknowledged by the exit code must be there, what is there must be whole, and after SIGTERM or SIGINT no unfinished file may lie beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from advisor.ledger import book
from advisor.user_files import DATA
from benchmarks.fuzz_doors import FACTS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
killing = importlib.import_module("killing")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_S = 120


class Written(NamedTuple):
    """What a command leaves in its folder."""

    arguments: list[str]
    prepare: Callable[[Path], object]
    """Lays what it reads."""
    result: str
    """The file or folder that is made, whole or not at all; empty for a ledger, which is looked into."""
    leftovers: tuple[str, ...] = ()
    """What an interrupted one leaves on purpose, for the next."""


def _nothing(folder: Path) -> None:
    """It reads nothing of the folder's."""


def _lay_sweep(folder: Path) -> None:
    grid = "{model: llama-3.2-1b, gpu: [24GB, h100], method: [lora, full], rank: [8, 16], seq_len: [512, 1024]}"
    (folder / "s.yaml").write_text(grid, encoding="utf-8")


def _lay_trainer_file(folder: Path) -> None:
    settings = {"base_model": "meta-llama/Llama-3.1-8B", "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
    (folder / "t.yaml").write_text(json.dumps({**settings, "sequence_len": 1024, "micro_batch_size": 1}), encoding="utf-8")


def _lay_facts(folder: Path) -> None:
    (folder / "f.json").write_text(json.dumps(FACTS), encoding="utf-8")


PLAN = ["--model", "llama-3.2-1b", "--gpu", "24GB"]
COMMANDS = {
    "record": Written(["record", "--method", "lora", "--rank", "8"], _nothing, ""),
    "config": Written(["config", "--stack", "axolotl", *PLAN, "--out", "q.yml"], _nothing, "q.yml"),
    "truncate": Written(["inspect", "a", "--truncate", "4", "--out", "b"], lambda folder: killing.adapter(folder / "a"), "b"),
    "page": Written(["estimate", *PLAN, "--method", "lora", "--html", "p.html"], _nothing, "p.html"),
    "check": Written(["check", "t.yaml", "--gpu", "24GB", "--html", "p.html"], _lay_trainer_file, "p.html"),
    "sweep_csv": Written(["sweep", "s.yaml", "--out", "s.csv"], _lay_sweep, "s.csv", ("s.csv.parts",)),
    "sweep_parquet": Written(["sweep", "s.yaml", "--out", "s.parquet"], _lay_sweep, "s.parquet", ("s.parquet.parts",)),
    "next": Written(["next", "--facts", "f.json", "--html", "p.html"], _lay_facts, "p.html"),
}
"""`calibrate` trains for minutes: tests/test_kills.py kills it where its record is written, and its launcher's own tests its processes."""


def started(command: Written, folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != book.ENVIRONMENT}
    own = {"PYTHONPATH": str(ROOT), DATA.variable: str(folder / "data"), "TMPDIR": str(folder / "tmp"), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "advisor", *command.arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=folder, env=environment | own, stdin=quiet, stdout=quiet, stderr=quiet)


def content(path: Path) -> dict[str, bytes] | None:
    """Bytes of a file, or of every file of a folder; None where neither is there."""
    if path.is_dir():
        return {one.name: one.read_bytes() for one in path.iterdir()}
    return {path.name: path.read_bytes()} if path.exists() else None


def run(command: Written, folder: Path, after_s: float = 0.0, number: int | None = None) -> int:
    """Exit code of the command in an empty folder, which was sent the signal after so long."""
    for name in ("data", "tmp"):
        (folder / name).mkdir()
    command.prepare(folder)
    child = started(command, folder)
    if number is not None:
        time.sleep(after_s)
        child.send_signal(number)
    return child.wait(timeout=MOST_S)


def lost(command: Written, folder: Path, done: bool, whole: dict[str, bytes] | None) -> list[str]:
    """What is not there although the command said it was done, and what is there and not whole."""
    if not command.result:
        held = book.load(folder / book.FILE_NAME)
        missing = ["acknowledged, and not stored"] if done and len(held.runs) != 1 else []
        return missing + ([f"a damaged ledger: {held.problem}"] if held.problem or held.damaged else [])
    held_bytes = content(folder / command.result)
    if held_bytes is None:
        return ["acknowledged, and not there"] if done else []
    return [] if held_bytes == whole else ["half written"]


def left(command: Written, folder: Path, number: int, before: set[str]) -> list[str]:
    """Files that an end by SIGTERM or SIGINT should have taken along; SIGKILL may leave unfinished ones, under names that say so."""
    own = before | {command.result or book.FILE_NAME, *command.leftovers}
    inside = [one for name in command.leftovers if (folder / name).is_dir() for one in (folder / name).iterdir()]
    found = {one.name for one in [*folder.iterdir(), *inside, *(folder / "tmp").iterdir()]} - own
    strange = {name for name in found if not name.endswith(".arrow") and name != "sweep.json"}
    if number == signal.SIGKILL:
        strange = {name for name in strange if not name.startswith(".advise-") and name != killing.JOURNAL.name}
    return [f"left behind: {sorted(strange)}"] if strange else []


def swept(name: str, moments: int, seed: int) -> int:
    """Kill one command so often; say how its processes ended and what was wrong, and count that."""
    command, rng, ends, wrong = COMMANDS[name], Random(f"{seed}:{name}"), Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="advise-kills-") as folder:
        begun = time.monotonic()
        own_code = run(command, Path(folder))
        seconds, whole = time.monotonic() - begun, content(Path(folder) / command.result) if command.result else None
    if own_code not in (0, 1, 3) or (command.result and not whole):
        raise SystemExit(f"error: advise {' '.join(command.arguments)} ends with {own_code} when nobody kills it")
    for moment in range(moments):
        number, after_s = rng.choice(SIGNALS), rng.uniform(0, 1.1 * seconds)
        with tempfile.TemporaryDirectory(prefix="advise-kills-") as inside:
            folder_ = Path(inside)
            code = run(command, folder_, after_s, number)
            before = {"data", "tmp", "a", "s.yaml", "t.yaml", "f.json"}
            found = [*lost(command, folder_, code == own_code, whole), *left(command, folder_, number, before)]
        found += [] if code in (own_code, -number, 128 + number) else [f"exit code {code}"]
        ends[f"{number.name} {code}"] += 1
        wrong += bool(found)
        if found:
            print(f"{name}, moment {moment}, {number.name} after {after_s:.3f} s, exit code {code}: {'; '.join(found)}", flush=True)
    print(
        f"{name}: {moments} kills in {seconds:.1f} s, {wrong} faults ({', '.join(f'{n} {end}' for end, n in sorted(ends.items()))})",
        flush=True,
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=", ".join(COMMANDS))
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    return int(sum(swept(name, given.moments, given.seed) for name in given.commands or COMMANDS) > 0)


if __name__ == "__main__":
    sys.exit(main())
