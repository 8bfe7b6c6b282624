"""Which wrong changes of the formulas would no test notice? Cosmic Ray's mutants of four rooms, each against the tests that run its line.

    python -m benchmarks.mutants --record            once, and after changes of the tests: which test runs which line, and how long it takes
    python -m benchmarks.mutants --sample 200        goes on where it was interrupted; the same seed draws the same mutants
    python -m benchmarks.mutants --rooms tape        all mutants of a room, some thousands
    python -m benchmarks.mutants --survivors         what was tried and not noticed

Needs the packages cosmic-ray and coverage beside the tests' own. Nothing is written into the sources: a forked child loads the one mutated
module in place of its file. Where nothing is recorded, a mutant meets whole files: those that own its module (OWN). It is noticed where a
test fails, or where it takes a multiple of the tests' own time. What no test could notice is a row of EQUIVALENT, with the reason.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "build" / "mutants"

_PRICED = ("memory_goldens", "memory_laws", "known_values", "slack", "heads", "losses", "methods", "families")
TESTS = {
    "allocator": ("allocator", "other_sources", "snapshots"),
    "tape": ("tape_parts", "tape_arithmetic", "tapes", "families", "timeline", "allocator", "without_tables"),
    "memory": (
        *(
            "tape",
            "real_layers",
            "engines_by_hand",
            *_PRICED,
            "chance",
            "intervals",
            "sharding",
            "sharded_grid",
            "zero",
            "host_memory",
            "images",
            "mixers",
        ),
        *("quantised_checkpoints", "other_sources", "trace_grid", "calibrate"),
    ),
    "ladder": (
        "rule_edges",
        "moves",
        "requests",
        "ladder",
        "rules",
        "first_run",
        "snippet",
        "verdict",
        "summary",
        "fit",
        "command_lines",
        "emitted_names",
        "comparing",
        "quantised_checkpoints",
    ),
}
"""Files of the tests that own a room: tests/test_NAME.py."""

_CLOSED_FORM = "real_layers memory_goldens slack tape sharded_grid zero host_memory trace_grid other_sources"
OWN = {
    "memory": _CLOSED_FORM,
    "memory/calibrated": "calibrate",
    "memory/chance": "chance",
    "memory/conformal": "intervals",
    "memory/curves": "sweeps",
    "memory/evaluation": f"losses {_CLOSED_FORM}",
    "memory/fsdp": f"sharding {_CLOSED_FORM}",
    "memory/intervals": "intervals chance slack",
    "memory/pools": "intervals chance slack",
    "memory/kinds": "intervals",
    "memory/replayed": "families tapes without_tables",
    "memory/sharding": f"sharding {_CLOSED_FORM}",
    "memory/task_head": f"heads {_CLOSED_FORM}",
    "memory/units": f"sharding {_CLOSED_FORM}",
    "memory/weights": f"quantised_checkpoints {_CLOSED_FORM}",
    "tape": "tape_parts tape_arithmetic tapes families",
    "tape/breakdown": "timeline tapes snapshots without_tables",
    "tape/layout": "allocator tapes",
    "tape/stream": "allocator tapes",
    "tape/timeline": "timeline",
}
"""Of a room's modules, those of its files that own them, the quickest first: what a mutant meets where nothing is recorded."""

OPERATORS = tuple(
    f"core/{name}"
    for name in (
        *("ReplaceBinaryOperator_" + pair for pair in ("Add_Sub", "Sub_Add", "Mul_Add", "Mul_FloorDiv", "Div_Mul", "Mod_Add", "Pow_Mul")),
        *("ReplaceBinaryOperator_" + pair for pair in ("FloorDiv_Mul", "FloorDiv_Div")),
        *("ReplaceComparisonOperator_" + pair for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_Gt", "Gt_Lt", "LtE_GtE", "GtE_LtE")),
        *("ReplaceComparisonOperator_" + pair for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
        *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
        *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer"),
        *("RemoveDecorator", "ZeroIterationForLoop"),
    )
)
"""Those that a slip of the pen could make. Cosmic Ray's others swap an operator for one that nobody would write (a sum for a shift)."""

EQUIVALENT: tuple[tuple[str, str, str], ...] = (
    ("", "@cache", "a cache changes the time alone"),
    ("", "@lru_cache(maxsize=", "a cache changes the time alone"),
    ("", "if TYPE_CHECKING", "read by type checkers alone"),
    (
        "allocator/caching",
        "        self.reserved_bytes = 0",
        "the highest is taken of it and the allocator's own, which is nothing at least",
    ),
    ("tape/family", "    dimensions = len(scales[0])", "every recording has as many scales as the first"),
    ("tape/growth", "NEARLY = 1e-7", "a cheap look before the exact one, which decides"),
    *(
        (f"tape/{module}", "    sizes = list(zip(*(", "recordings whose births differ were refused before")
        for module in ("compile", "family")
    ),
    ("ladder/fit", "    first = largest(most,", "where to begin to look; the answer is the same from anywhere"),
    ("tape/dimensions", "    for prime, found in zip(primes, names, strict=True):", "both are made of the same groups, one each"),
    ("allocator/blocks", "def round_size(", "one division rounds as none does, in torch too"),
    ("allocator/expandable", "ADDRESS_SPACE_BYTES = 1 << 47", "any space that never fills"),
    ("", "@dataclass(frozen=True", "frozen values and slots keep us from slips; no answer depends on them"),
)
"""(module, text of the line, why no test can notice a change of it); no module: of any."""

STAGES = (10, 40, 400)
"""Tests that a mutant meets, the quickest ones first: so many, then up to so many."""
MOST_TEST_S = 25.0
"""Judgement: time of a mutant's tests, as recorded."""
SLOWER, LOADING_S = 3, 20
"""Judgement: a mutant that takes so many times its tests' time, beside that of loading them, does not end. Of the processor's time, as
another process beside it takes none of that, and of each stage by itself: one that never ends is seen by the quickest tests."""
WAITING = 4
"""Judgement: what waits for so many times that time, and takes none of it, waits for ever."""
MOST_MEMORY_BYTES = 4 << 30
"""Judgement: what tests take beside the libraries at most. A door that reads without end is closed here."""


class Mutant(NamedTuple):
    module: str
    """Its file, from the root of the repository."""
    operator: str
    occurrence: int
    first_line: int
    last_line: int


# -------------------------------------------------------------------------------------------------------------------- mutants


def modules(rooms: Sequence[str]) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / "advisor" / room).glob("*.py"))]


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module, but those that are equivalent."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    source = path.read_text(encoding="utf-8")
    nodes, lines, name = list(ast_nodes(get_ast(source))), source.splitlines(), str(path.relative_to(ROOT))
    for named in OPERATORS:
        operator = get_operator(named)()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, stop) in enumerate(places):
            mutant = Mutant(name, named, occurrence, start[0], stop[0])
            if not is_equivalent(mutant, lines):
                yield mutant


def is_equivalent(mutant: Mutant, lines: Sequence[str]) -> bool:
    line = lines[mutant.first_line - 1]
    return any(module in mutant.module and text in line for module, text, _ in EQUIVALENT)


def source_of(mutant: Mutant) -> str | None:
    """The module's text with the change; None where that is no Python."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text = mutate_code((ROOT / mutant.module).read_text(encoding="utf-8"), get_operator(mutant.operator)(), mutant.occurrence)
    try:
        compile(text, mutant.module, "exec")
    except (SyntaxError, TypeError):
        return None
    return str(text)


def change_of(mutant: Mutant) -> str:
    """The changed lines, before and after."""
    before, after = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines(), (source_of(mutant) or "").splitlines()
    lines = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:3] not in ("---", "+++") and line[:2] != "@@"]
    return "\n".join(f"    {line}" for line in lines)


# ------------------------------------------------------------------------------------------------------------- what runs what


class Timed:
    """Of a run of tests: which one it is at, and how much of the processor's time each took."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.seconds, self.begun_s = coverage, dict[str, float](), 0.0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.begun_s = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.coverage.switch_context("")
        self.seconds[nodeid] = time.process_time() - self.begun_s


def record(room: str) -> None:
    """Lines of the room by the tests that run them, and their seconds, into a file."""
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=[str(ROOT / "advisor" / room)], config_file=False)
    timed = Timed(measured)
    measured.start()
    code = pytest.main([*OPTIONS, *(str(path) for path in files(room))], plugins=[timed])
    measured.stop()
    assert code == 0, "the tests fail without any mutant"
    data, lines = measured.get_data(), dict[str, dict[int, list[str]]]()
    for path in data.measured_files():
        by_line = data.contexts_by_lineno(path)
        lines[str(Path(path).relative_to(ROOT))] = {line: sorted(name for name in names if name) for line, names in by_line.items()}
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{room}.json").write_text(json.dumps({"lines": lines, "seconds": timed.seconds}), encoding="utf-8")


OPTIONS = ("-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""The warning: libraries are loaded before pytest is."""


def files(room: str) -> list[Path]:
    return [path for name in TESTS[room] if (path := ROOT / "tests" / f"test_{name}.py").exists()]


UNKNOWN = "?"
"""Stands for every line of a module of which nothing is recorded."""
MOST_OF_A_FILE_S = 120.0
"""Judgement: what the slowest of the files takes, where nothing is recorded."""


class Runs(NamedTuple):
    """Of a room: which tests run a line of it, and how long each takes."""

    lines: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that run the mutant's lines or, of what is loaded but once, anything of its module: the quickest of each file first."""
        by_line = self.lines.get(mutant.module, {})
        if UNKNOWN in by_line:
            return by_line[UNKNOWN]
        numbers = range(mutant.first_line, mutant.last_line + 1)
        found = {name for number in numbers for name in by_line.get(str(number), ())}
        found = found or {name for names in by_line.values() for name in names}
        chosen, spent = list[str](), 0.0
        for name in self._quickest_of_each_file(found):
            spent += self.seconds.get(name, 0.0)
            if chosen and (spent > MOST_TEST_S or len(chosen) == STAGES[-1]):
                break
            chosen.append(name)
        return chosen

    def _quickest_of_each_file(self, names: set[str]) -> list[str]:
        by_file: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda name: (self.seconds.get(name, 0.0), name)):
            by_file.setdefault(name.partition("::")[0], []).append(name)
        ranked = [(rank, self.seconds.get(name, 0.0), name) for of_file in by_file.values() for rank, name in enumerate(of_file)]
        return [name for _, _, name in sorted(ranked)]


def runs_of(room: str) -> Runs:
    """As it was recorded; without a recording the files that own a module, for each of its lines."""
    path = KEPT / f"{room}.json"
    if path.exists():
        return Runs(**json.loads(path.read_text(encoding="utf-8")))
    sys.stderr.write(f"{room}: nothing is recorded, so each mutant meets the files of its module\n")
    return Runs({str(one.relative_to(ROOT)): {UNKNOWN: owners(room, one.stem)} for one in modules([room])}, {})


def owners(room: str, module: str) -> list[str]:
    """Paths of the files that own a module."""
    named = OWN.get(f"{room}/{module}") or OWN.get(room) or " ".join(TESTS[room])
    return [str(ROOT / "tests" / f"test_{name}.py") for name in named.split()]


# ------------------------------------------------------------------------------------------------------------------ one mutant


class Instead(SourceFileLoader):
    """Loads a module from another text than its file's."""

    text = ""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.text, self.path, "exec")
        return code


class Finder:
    """Finds the mutated module before Python's own finders do."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        loader = Instead(name, str(self.path))
        loader.text = self.text
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


class Stage(NamedTuple):
    """Tests that run together, and how much of the processor's time they may take."""

    tests: list[str]
    limit_s: float


def child(module: str, text: str, stages: list[Stage]) -> None:
    """Run the tests with the module's other text and end: 0 where they pass, 1 where one fails."""
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.meta_path.insert(0, Finder(ROOT / module, text))
    mapped_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + MOST_MEMORY_BYTES, resource.RLIM_INFINITY))
    code = 0
    for tests, limit_s in stages:
        signal.alarm(round(WAITING * limit_s))
        resource.setrlimit(resource.RLIMIT_CPU, (round(time.process_time() + limit_s), resource.RLIM_INFINITY))
        code = code or pytest.main(["-x", *OPTIONS, *tests])
    os._exit({0: 0, 1: 1, 2: 1, 4: 1}.get(code, 9))  # 2 and 4: the module, and so its tests, cannot be loaded


def stages_of(tests: Sequence[str], seconds: dict[str, float]) -> list[Stage]:
    """The tests in their order, few at first; whole files one by one where nothing is recorded."""
    if not seconds:
        return [Stage([name], LOADING_S + MOST_OF_A_FILE_S) for name in tests]
    cut = [list(tests[start:stop]) for start, stop in zip((0, *STAGES), STAGES, strict=False)]
    return [Stage(part, LOADING_S + SLOWER * sum(seconds.get(name, 0.0) for name in part)) for part in cut if part]


def outcome(mutant: Mutant, text: str, runs: Runs) -> str:
    """`killed`, `survived`, or `untested` where no test runs the line."""
    tests = runs.tests_of(mutant)
    if not tests:
        return "untested"
    stages = stages_of(tests, runs.seconds)
    pid = os.fork()
    if pid == 0:
        try:
            child(mutant.module, text, stages)
        finally:
            os._exit(1)  # what stops the tests from being loaded is noticed, too
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return "survived" if code == 0 else "killed" if code == 1 or code < 0 else f"failed with {code}"


def load_libraries() -> None:
    """What the tests load beside the rooms, once for all children."""
    sys.dont_write_bytecode = False  # or each child would compile everything anew
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HYPOTHESIS_PROFILE="unshrunk")
    for name in ("pytest", "hypothesis", "pydantic", "yaml", "rich", "typer", "numpy", "torch", "transformers", "peft"):
        importlib.import_module(name)


# ---------------------------------------------------------------------------------------------------------------------- whole


def kept() -> dict[str, dict[str, Any]]:
    path = KEPT / "outcomes.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {row["key"]: row for row in rows}


def key_of(mutant: Mutant, text: str) -> str:
    return f"{mutant.module}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def tried(mutants: Sequence[Mutant]) -> Iterator[dict[str, Any]]:
    """Outcome of each, from before or now."""
    names = {_room(mutant) for mutant in mutants}
    rooms = {name: runs_of(name) for name in names}
    known = kept()
    with (KEPT / "outcomes.jsonl").open("a", encoding="utf-8") as out:
        for mutant in mutants:
            text = source_of(mutant)
            if text is None:
                continue
            key, begun = key_of(mutant, text), time.monotonic()
            row = known.get(key)
            if row is None:
                row = {"key": key, "outcome": outcome(mutant, text, rooms[_room(mutant)]), "mutant": mutant}
                row["seconds"] = round(time.monotonic() - begun, 1)
                out.write(json.dumps(row) + "\n")
                out.flush()
            yield {**row, "mutant": mutant}


def _room(mutant: Mutant) -> str:
    return mutant.module.split("/")[1]


def report(mutants: Sequence[Mutant]) -> int:
    counted: dict[str, dict[str, int]] = {}
    for number, row in enumerate(tried(mutants), 1):
        of_room = counted.setdefault(_room(row["mutant"]), {})
        of_room[row["outcome"]] = of_room.get(row["outcome"], 0) + 1
        if row["outcome"] != "killed":
            mutant = row["mutant"]
            sys.stdout.write(f"{row['outcome']}: {mutant.module}:{mutant.first_line}\n{change_of(mutant)}\n")
            sys.stdout.flush()
        sys.stderr.write(f"\r{number} of {len(mutants)} ")
    sys.stderr.write("\n")
    for room, of_room in counted.items():
        whole = sum(of_room.values())
        said = ", ".join(f"{count} {name}" for name, count in sorted(of_room.items()))
        sys.stdout.write(f"{room}: {of_room.get('killed', 0) / whole:.1%} of {whole} noticed ({said})\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default=",".join(TESTS))
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--survivors", action="store_true", help="show what was not noticed, of the mutants as the files are now")
    given = parser.parse_args()
    rooms = given.rooms.split(",")
    load_libraries()
    if given.record:
        for room in rooms:
            if (pid := os.fork()) == 0:  # each from the start: a test is run by what it loads first, too
                record(room)
                os._exit(0)
            if os.waitpid(pid, 0)[1] != 0:
                return 1
        return 0
    mutants = [mutant for path in modules(rooms) for mutant in mutants_of(path)]
    sys.stderr.write(f"{len(mutants):,} mutants\n")
    if given.survivors:
        known = kept()
        mutants = [one for one in mutants if known.get(key_of(one, source_of(one) or ""), {}).get("outcome", "killed") != "killed"]
    elif given.sample is not None:
        mutants = random.Random(given.seed).sample(mutants, min(given.sample, len(mutants)))
    return report(mutants)


if __name__ == "__main__":
    sys.exit(main())
