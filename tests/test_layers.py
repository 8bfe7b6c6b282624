"""The house rules that code can check: imports point strictly down, heavy libraries stay in their rooms, GiB in one file, sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "advisor"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room is a module or a package directly under advisor/. It may import rooms of a lower level, and itself.
LEVELS = {
    "errors": 0,
    "display": 0,
    "formulas": 0,
    "frames": 1,
    "python_words": 1,
    "refusals": 1,
    "bounded": 1,
    "shown": 1,
    "statistics": 1,
    "units": 1,
    "guard": 2,
    "user_files": 2,
    "values": 2,
    "names": 3,
    "tiers": 3,
    "json_files": 3,
    "allocator": 3,
    "yaml_files": 3,
    "profiles": 3,
    "checkpoints": 4,
    "images": 4,
    "config_files": 4,
    "architectures": 5,
    "host": 5,
    "tape": 5,
    "stacks": 5,
    "hub": 6,
    "devices": 6,
    "listings": 7,
    "memory": 7,
    "speed": 7,
    "ladder": 8,
    "explain": 9,
    "dryrun": 9,
    "adapters": 9,
    "accuracy": 10,
    "calibration": 10,
    "configs": 10,
    "ledger": 10,
    "on_demand": 10,
    "inputs": 11,
    "evidence": 11,
    "hooks": 11,
    "backwards": 12,
    "series": 12,
    "sweeps": 12,
    "schemas": 12,
    "api": 13,
    "comparing": 12,
    "render": 14,
    "page": 15,
    "cli": 16,
    "__main__": 17,
}
HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy", "scipy", "pyarrow"}
HEAVY_ROOMS = {"calibration", "dryrun", "adapters", "evidence", "hooks", "ledger", "sweeps"}
# Imported inside the function that needs them, so that a cold command does not wait for them.
LATE = {"yaml", "huggingface_hub", "pynvml", "platformdirs", "rich", "vl_convert", "uvicorn"}

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 300


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement loads. `from advisor import x` loads advisor.x; bare `advisor` is only its version."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def all_imports(path: Path) -> set[str]:
    return {name for node in ast.walk(tree_of(path)) for name in imported(node)}


def early_imports(body: list[ast.stmt]) -> Iterator[str]:
    """What loading the module loads: statements outside functions and outside `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from early_imports(node.orelse)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            yield from early_imports(node.body)
        else:
            yield from imported(node)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set(LEVELS)


def test_imports_point_strictly_down() -> None:
    assert [*_upward_imports()] == []


def _upward_imports() -> Iterator[str]:
    for path in MODULES:
        room = room_of(path)
        if room == "__init__":
            continue  # the public names of every room, loaded on first use
        for name in all_imports(path):
            parts = name.split(".")
            if parts[0] == "advisor" and parts[1] not in (room, "__version__") and LEVELS[parts[1]] >= LEVELS[room]:
                yield f"{name_of(path)} (level {LEVELS[room]}) imports {name} (level {LEVELS[parts[1]]})"


def test_heavy_libraries_stay_in_their_rooms() -> None:
    outside = [path for path in MODULES if room_of(path) not in HEAVY_ROOMS]
    assert [name_of(path) for path in outside if {name.split(".")[0] for name in all_imports(path)} & HEAVY] == []


def test_slow_libraries_are_imported_late() -> None:
    assert [name_of(path) for path in MODULES if {name.split(".")[0] for name in early_imports(tree_of(path).body)} & LATE] == []


def test_there_is_no_import_cycle_inside_a_room() -> None:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
    graph = {name: set() if name == "advisor" else _loads(path, name, names) for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def _loads(path: Path, own: str, names: dict[str, Path]) -> set[str]:
    """Modules of the package that loading `path` loads by name; its own package counts only where it is named."""
    loaded = set()
    for name in early_imports(tree_of(path).body):
        target = name if name in names else name.rpartition(".")[0]
        if target in names and target not in (own, "advisor"):
            loaded.add(target)
    return loaded


def test_only_units_knows_gibibytes() -> None:
    number = re.compile(r"1024\s*\*\*\s*3|2\s*\*\*\s*30|<<\s*30|1073741824")
    assert [name_of(path) for path in MODULES if number.search(path.read_text(encoding="utf-8"))] == ["units.py"]


def test_modules_stay_small() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_functions_stay_small() -> None:
    lines = {
        f"{name_of(path)}:{function.name}": (function.end_lineno or function.lineno) - function.lineno + 1
        for path in MODULES
        for function in functions(path)
    }
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


# Asking after, opening and parsing what others wrote is done in one place each.
_OF_PATHS = {"read_text", "read_bytes", "expanduser", "is_dir", "is_file", "exists", "iterdir", "glob", "rglob", "open", "stat", "resolve"}
_OF_MODULES = {
    ("json", "loads"),
    ("json", "load"),
    ("yaml", "safe_load"),
    ("yaml", "load"),
    ("yaml", "SafeLoader"),
    ("os", "stat"),
    ("ast", "parse"),
}
DOORS = {
    "bounded.py": "bytes, and what is asked of paths",
    "json_files.py": "JSON",
    "yaml_files.py": "YAML",
    "stacks/syntax.py": "Python",
    "page/app.py": "the page's own sheet and script",
    "profiles/__init__.py": "the package's own rows",
    "profiles/files.py": "the package's own rows",
    "schemas.py": "the package's own rows",
    "host.py": "the kernel's files",
    "calibration/limits.py": "the kernel's files",
    "calibration/backends.py": "the kernel's files",
    "formulas.py": "the package's own source",
    "calibration/job.py": "what a calibration's own worker has just written",
    "calibration/launch.py": "what a calibration's own worker has just written",
    "calibration/worker.py": "what a calibration's own launcher has just written",
    "user_files.py": "the user's folders' defaults, below the home folder",
    "accuracy/history.py": "histories that benchmarks/on_card.py wrote",
    "adapters/truncate.py": "the file that it writes",
    "adapters/patterns.py": "its own child's answer",
    "architectures/text_part.py": "the config.json that config_files has read",
    "checkpoints.py": "the config.json that config_files has read",
    "hooks/live.py": "a config that it has just written as JSON itself",
    "stacks/words.py": "the config.json that config_files has read",
    "sweeps/table.py": "the file that it writes",
    "tape/packing.py": "tapes, bounded",
    "tape/shipped.py": "the package's own tapes, and configs that config_files has read",
    "tape/store.py": "the config.json that config_files has read",
    "dryrun/families.py": "configs that it has just written as JSON itself",
    "dryrun/tapes.py": "the config.json that config_files has read",
    "dryrun/meta_model.py": "the config.json that config_files has read",
    "cli/run.py": "the null device",
}
"""Modules that read bytes, ask after paths or parse by themselves, and what. Everything else goes through the first four."""


def _past_the_doors(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id == "open":
            yield f"{name_of(path)}:{node.lineno} open"
        if not isinstance(called, ast.Attribute):
            continue
        owner = called.value.id if isinstance(called.value, ast.Name) else ""
        if (owner, called.attr) in _OF_MODULES or (called.attr in _OF_PATHS and owner not in ("bounded", "os")):
            yield f"{name_of(path)}:{node.lineno} {owner}.{called.attr}"


def test_what_others_wrote_comes_through_the_doors() -> None:
    assert [call for path in MODULES if name_of(path) not in DOORS for call in _past_the_doors(path)] == []


def test_every_door_of_its_own_is_still_one() -> None:
    assert {name for name in DOORS if not [*_past_the_doors(PACKAGE / name)]} == set()
