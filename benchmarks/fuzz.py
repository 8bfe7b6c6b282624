"""Ask the command about damaged inputs of every kind, and judge what comes: no traceback, no hang, one line an error, only characters seen.

    python -m benchmarks.fuzz                        3,000 inputs from today's seed
    python -m benchmarks.fuzz --inputs 1000000 --seed 7 --keep faults
    python -m benchmarks.fuzz --seed 7 --only 4711   one of them again, with all that it says

The command's own entry is called in this process with real byte streams; a child does some thousands at a time, under a limit of memory.
It answers as a core install does: torch and its libraries cannot be imported, so that no damaged model is dry-run. An input is told by its
seed and its number alone. `--keep` lays the files of each kind of fault down, the first of its kind: cut down, it belongs into
tests/test_hostile_inputs.py. `--doors` names some doors alone.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import gc
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.fuzz_doors import DOORS, ROOT, Door

MOST_CPU_S = 2.0
"""Issue of the house: no answer takes longer."""
HANG_S, STILL_S = 30, 300
"""Judgement: what has taken so long is stopped, of the processor's time; and what waits for something, by the clock, which a busy machine
is not to be blamed for."""
MOST_SILENT_S = 600
"""Judgement: by the clock, which a busy machine is not to be blamed for; an input takes a tenth of a second."""
MOST_BYTES = 4 * 2**30
"""Address space of a child, of which libraries take a half."""
MOST_RESIDENT_BYTES = 2**30
CHUNK = 5000
"""Inputs of a child, which imports everything first and answers from the shipped rows of a door once."""
MEMORY = Path("/dev/shm")
"""Where files cost least, on machines that have it."""
SLOW = "slow"
VERDICTS = (0, 1, 2, 3)
ABSENT = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "safetensors")


class Hang(BaseException):
    """Raised by the alarm; nothing of the command's catches it."""


class Said(NamedTuple):
    """What the command did."""

    code: int
    out: str
    err: str
    cpu_s: float


# ------------------------------------------------------------------------------------------------------------------ one input


def asked(seed: int, number: int, folder: Path, doors: Sequence[Door]) -> tuple[str, list[str]]:
    """The door and the arguments of one input, whose files are laid into the folder."""
    rng = Random(f"{seed}:{number}")
    (door,) = rng.choices(doors, [DOORS[door] for door in doors])
    return door.__name__, door(rng, folder)


def answer(arguments: list[str]) -> Said:
    """What `advise ARGUMENTS` says, on streams that refuse what is no text."""
    from advisor.cli.run import run

    kept, out, err = (sys.stdout, sys.stderr), io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(stream, "utf-8", "strict", write_through=True) for stream in (out, err)]
    sys.stdout, sys.stderr = streams
    begun = time.process_time()
    try:
        with stopped():
            code = run(arguments)
    except Hang:
        code = -signal.SIGALRM
        sys.stderr.write(traceback.format_exc().encode("ascii", "backslashreplace").decode())
    except BaseException:
        code = -1
        sys.stderr.write(traceback.format_exc().encode("ascii", "backslashreplace").decode())
    finally:
        spent = time.process_time() - begun
        sys.stdout, sys.stderr = kept
    said = [stream.getvalue().decode("utf-8", "backslashreplace") for stream in (out, err)]
    return Said(code, said[0], said[1], spent)


@contextmanager
def stopped() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, HANG_S), signal.ITIMER_REAL: (signal.SIGALRM, STILL_S)}
    for timer, (number, seconds) in timers.items():
        signal.signal(number, ring)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)


def faults(said: Said) -> list[str]:
    """What is wrong with an answer, each in a word or two and, of a traceback, with its site."""
    found = []
    if said.code not in VERDICTS:
        found.append(f"exit code {said.code} at {site(said.err)}")
    elif said.code == 2 and not said.err.startswith("error: "):
        found.append("an error without a line")
    if said.code in VERDICTS and said.err.count("\n") > 1:
        found.append("more than one line on stderr")
    if said.code in (0, 1, 3) and said.err:
        found.append(f"stderr of an answer: {said.err[:60]!r}")
    if said.code == 2 and said.out and "damaged" not in said.err:  # the runs that are whole are shown beside the word of the others
        found.append("an answer beside an error")
    if len(said.err) > 610 and said.code in VERDICTS:
        found.append("a line over 600 characters")
    if not (said.out + said.err).replace("\n", "").isprintable():
        found.append("characters that are not seen")
    if said.cpu_s > MOST_CPU_S and said.code in VERDICTS:
        found.append(SLOW)
    return found


def site(err: str) -> str:
    """The last line of ours in a traceback, and what was raised."""
    lines = err.splitlines()
    own = [line.strip() for line in lines if "/advisor/" in line and "line" in line]
    raised = next((line for line in reversed(lines) if line and not line.startswith((" ", "error: "))), "")
    return f"{own[-1].split('/advisor/')[-1] if own else '?'}: {raised[:100]}"


# ----------------------------------------------------------------------------------------------------------------- a child


def alone(folder: Path) -> None:
    """This process answers in the folder as on a core install, with nothing of this machine's user, and within limits."""
    own = {"FINETUNE_ADVISOR_DATA": folder / "data", "FINETUNE_ADVISOR_CACHE": folder / "cache", "HOME": folder}
    os.environ.update(
        {name: str(value) for name, value in own.items()}, HF_HUB_OFFLINE="1", COLUMNS="100", PYDANTIC_DISABLE_PLUGINS="__all__"
    )
    os.environ.pop("ADVISE_LEDGER", None)
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def quick() -> None:
    """Build the command line's parser once, and collect as the command itself does."""
    import typer.main

    import advisor.cli.run as cli
    from advisor.cli import GC_THRESHOLD
    from advisor.cli.app import app

    built = typer.main.get_command(app)
    setattr(cli, "get_command", lambda _: built)  # noqa: B010
    gc.set_threshold(GC_THRESHOLD)


def tried(seed: int, number: int, doors: Sequence[Door]) -> tuple[dict[str, Any], Path]:
    folder = Path(tempfile.mkdtemp(prefix="advise-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
    alone(folder)
    os.chdir(folder)
    door, arguments = asked(seed, number, folder, doors)
    said = answer(arguments)
    return {"number": number, "door": door, "arguments": arguments, "faults": faults(said), **said._asdict()}, folder


def a_chunk(seed: int, numbers: range, doors: Sequence[Door], keep: Path | None) -> None:
    """A child's work: a line for what is at fault, and one at the end."""
    counted: Counter[str] = Counter()
    quick()
    for number in numbers:
        faulthandler.dump_traceback_later(MOST_SILENT_S, exit=True)  # for a loop inside a library's own code, where no alarm is heard
        sys.stdout.write(f"{number}\n")
        row, folder = tried(seed, number, doors)
        os.chdir("/")
        counted[f"{row['door']} {row['code']}"] += 1
        if row["faults"]:
            row["out"], row["err"] = row["out"][:300], row["err"][-3000:]
            sys.stdout.write(json.dumps(row) + "\n")
            if keep is not None:
                shutil.copytree(folder, keep / f"{seed}-{number}", dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"done": counted, "peak_bytes": peak_bytes}) + "\n")


# ------------------------------------------------------------------------------------------------------------------- whole


def rows_of(seed: int, count: int, options: list[str]) -> Iterator[dict[str, Any]]:
    """Lines of the children, one after another. Where a child ends early, the input it was at is at fault; another goes on after it."""
    number = 0
    while number < count:
        last = min(count, number + CHUNK)
        command = [
            sys.executable,
            "-m",
            "benchmarks.fuzz",
            "--seed",
            str(seed),
            "--from",
            str(number),
            "--inputs",
            str(last - number),
            "--child",
        ]
        with subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            whole = False
            assert child.stdout is not None
            assert child.stderr is not None
            for line in child.stdout:
                if line[0].isdigit():
                    number = int(line)
                else:
                    row = json.loads(line)
                    whole |= "done" in row
                    yield row
            if not whole:
                said = child.stderr.read()[-1500:]
                yield {"number": number, "door": "?", "arguments": [], "faults": [f"the process ended at {site(said)}"], "err": said}
        number += 1


def kind_of(fault: str) -> str:
    return fault.split(" object at 0x")[0]


def report(seed: int, count: int, options: list[str]) -> int:
    kinds: dict[str, list[dict[str, Any]]] = {}
    counted: Counter[str] = Counter()
    peak_bytes, begun = 0, time.monotonic()
    for row in rows_of(seed, count, options):
        if "done" in row:
            counted.update(row["done"])
            peak_bytes = max(peak_bytes, row["peak_bytes"])
            sys.stderr.write(f"\r{sum(counted.values()):,} inputs, {len(kinds)} kinds of fault, {time.monotonic() - begun:.0f} s ")
            continue
        for fault in row["faults"]:
            known = kinds.setdefault(kind_of(fault), [])
            known.append(row)
            if len(known) == 1:
                sys.stdout.write(
                    f"{fault}\n  --seed {seed} --only {row['number']}: {row['door']}: advise {' '.join(row['arguments'])[:200]!r}\n"
                )
                sys.stdout.flush()
    sys.stderr.write("\n")
    sys.stdout.write(
        f"{sum(counted.values()):,} inputs of seed {seed} in {time.monotonic() - begun:.0f} s, at most {peak_bytes / 2**20:.0f} MiB\n"
    )
    for door in DOORS:
        codes = {name.split()[1]: n for name, n in counted.items() if name.split()[0] == door.__name__}
        sys.stdout.write(f"  {door.__name__}: {', '.join(f'{n:,} x {code}' for code, n in sorted(codes.items()))}\n")
    for fault, found in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        sys.stdout.write(f"{len(found):6} {fault} (numbers {', '.join(str(row['number']) for row in found[:4])})\n")
    wrong = set(kinds) - {SLOW}  # which a busy machine is, too: two threads of one core halve each other's time
    return int(bool(wrong) or peak_bytes > MOST_RESIDENT_BYTES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=datetime.date.today().toordinal())
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--doors", help="names, with commas")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    doors = [door for door in DOORS if not given.doors or door.__name__ in given.doors.split(",")]
    if given.only is not None:
        row, folder = tried(given.seed, given.only, doors)
        sys.stdout.write(
            f"{folder}\nadvise {row['arguments']}\n{row['out']}{row['err']}\n{row['code']}, {row['cpu_s']:.2f} s: {row['faults']}\n"
        )
        return int(bool(row["faults"]))
    keep = given.keep.resolve() if given.keep else None
    if given.child:
        a_chunk(given.seed, range(given.first, given.first + given.inputs), doors, keep)
        return 0
    options = [*(["--doors", given.doors] if given.doors else []), *(["--keep", str(keep)] if keep else [])]
    return report(given.seed, given.inputs, options)


if __name__ == "__main__":
    sys.exit(main())
