"""What can be installed: declared minima, the core without its extras, and what nobody promised for one system alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w-]+)==([\w.]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def declared(section: str) -> dict[str, str]:
    """Names and lowest releases of a list of pyproject.toml."""
    found = re.search(rf"^{section} = \[\n(.*?)^\]", PROJECT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return {name.lower().replace("_", "-"): lowest for name, lowest in re.findall(r'"([\w-]+)>=([\w.]+)', found[1])}


def test_the_core_is_tested_at_exactly_what_it_declares() -> None:
    held = pins("constraints-core-oldest.txt")
    lowest = declared("dependencies")
    assert held.keys() == lowest.keys()
    assert all(held[name] == version or held[name].startswith(f"{version}.") for name, version in lowest.items())


def test_the_extra_is_tested_at_what_it_declares() -> None:
    held, lowest = pins("constraints-oldest.txt"), declared("torch")
    for name in ("accelerate", "bitsandbytes", "peft", "transformers"):
        assert held[name].startswith(f"{lowest[name]}."), name


ONLY_WITH_DOCS = {
    *("backrefs", "griffelib", "markdown", "mkdocs-autorefs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"),
    *("pymdown-extensions", "watchdog"),
}


def test_pins_split_by_python_cover_all_of_it() -> None:
    """A pin for 3.11 and newer has one for older ones beside it, unless the package is not installed there."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    newer = {line.partition("==")[0] for line in lines if line.endswith('python_version >= "3.11"')}
    older = {line.partition("==")[0] for line in lines if line.endswith('python_version < "3.11"')}
    only_with_trl = {"datasets", "dill", "multiprocess", "pandas", "python-dateutil", "trl", "tzdata", "xxhash"}
    assert newer - older <= only_with_trl | ONLY_WITH_DOCS
    assert older - newer <= {"exceptiongroup", "tomli"}


# ------------------------------------------------------------------------------------------------------ without the extras

EXTRAS = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "numpy",
    "scipy",
    "pyarrow",
    "trl",
    "axolotl",
    "swift",
    "vl_convert",
    "starlette",
    "uvicorn",
    "jinja2",
)
TORCH = r"needs .*pip install 'finetune-advisor\[torch\]'"
ADAPTERS = r"needs numpy: pip install 'finetune-advisor\[adapters\]'"
# (command, exit code, what is said of what is missing)
COMMANDS = [
    ("--model llama-3.2-1b --gpu 24GB", 0, ""),
    ("--model llama-3.2-1b --gpu 24GB --trace", 2, f"^error: the dry run {TORCH}"),
    ("--model llama-3.2-1b --gpu cpu --calibrate", 3, "Not checked: a calibration needs torch, transformers, accelerate, peft: pip"),
    (
        "--model llama-3.2-1b --gpu 24GB --html answer.html",
        2,
        r"^error: a report's figures need vl-convert: pip install 'finetune-advisor\[report\]'",
    ),
    ("estimate --model llama-3.2-1b --method lora", 0, ""),
    ("estimate --model llama-3.2-1b --method lora --html answer.html", 0, ""),
    ("estimate --model llama-3.2-1b --method lora --versus-trace", 2, f"^error: the dry run {TORCH}"),
    ("estimate --model mamba.json --method lora", 2, f"^error: the dry run {TORCH}"),
    ("trace --model llama-3.2-1b --method lora", 2, f"^error: the dry run {TORCH}"),
    ("trace --model llama-3.2-1b --peft-config adapter", 2, f"^error: the dry run {TORCH}"),
    ("accuracy", 0, ""),
    ("accuracy --trace", 2, f"^error: the dry run {TORCH}"),
    ("calibrate --model llama-3.2-1b --device cpu", 2, f"^error: a calibration {TORCH}"),
    ("calibrate --list", 0, ""),
    ("inspect adapter", 2, f"^error: reading an adapter's weights {ADAPTERS}"),
    ("inspect adapter --truncate 2", 2, f"^error: reading an adapter's weights {ADAPTERS}"),
    ("record adapter", 0, "the adapter was not inspected: reading an adapter's weights"),
    ("runs", 0, ""),
    ("fit --model llama-3.2-1b --gpu 24GB --seq-len max", 0, ""),
    ("sweep sweep.yaml", 2, r"^error: a sweep needs numpy and pyarrow: pip install 'finetune-advisor\[sweep\]'"),
    ("next --model llama-3.2-1b", 0, ""),
    ("check trl.yaml --gpu 24GB", 0, ""),
    ("config --stack trl --model llama-3.2-1b --gpu 24GB", 0, ""),
    ("models", 0, ""),
    ("gpus", 0, ""),
    ("ui --no-browser", 2, r"^error: the page needs starlette, uvicorn, jinja2 and vl-convert: pip install 'finetune-advisor\[ui\]'"),
]
CHILD = """
import io, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # as if they were not installed
from contextlib import redirect_stderr, redirect_stdout
from advisor.cli.run import run
said = []
for command in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(command.split())
    said.append([code, out.getvalue(), err.getvalue()])
import advisor
for ask in ("advisor.AdvisorCallback", "advisor.record_callback()"):
    try:
        eval(ask)
    except Exception as error:
        said.append([2, "", f"{type(error).__name__}: {error}"])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Every command in one process that finds none of the extras' libraries."""
    from killing import adapter

    folder = tmp_path_factory.mktemp("core")
    adapter(folder / "adapter")
    mamba = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 96, "architectures": ["MambaForCausalLM"]}
    (folder / "mamba.json").write_text(json.dumps(mamba), encoding="utf-8")
    trl = {"model_name_or_path": "meta-llama/Llama-3.2-1B", "use_peft": True, "max_length": 512, "dataset_name": "x", "output_dir": "o"}
    (folder / "trl.yaml").write_text("\n".join(f"{name}: {json.dumps(value)}" for name, value in trl.items()), encoding="utf-8")
    commands = [command for command, *_ in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(EXTRAS), json.dumps(commands)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    return dict(zip([*commands, "AdvisorCallback", "record_callback"], map(tuple, said), strict=True))


@pytest.mark.parametrize(("command", "code", "words"), COMMANDS, ids=[command for command, *_ in COMMANDS])
def test_the_core_alone_answers_or_says_what_to_install(
    command: str, code: int, words: str, answers: dict[str, tuple[int, str, str]]
) -> None:
    found, out, err = answers[command]
    assert found == code, err
    assert re.search(words, err if code == 2 else " ".join(out.split()))
    assert err.count("\n") == (1 if code == 2 else 0)  # and nothing on stderr of a good answer


@pytest.mark.parametrize("name", ["AdvisorCallback", "record_callback"])
def test_a_callback_without_transformers_says_so(name: str, answers: dict[str, tuple[int, str, str]]) -> None:
    assert re.match(f"MissingExtraError: .*{TORCH}", answers[name][2])


# ------------------------------------------------------------------------------------------------------------ other systems

PACKAGE = ROOT / "advisor"
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
POSIX_NAMES = {
    *("chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "nice", "sched_getaffinity"),
    *("setsid", "sysconf", "wait", "waitpid", "SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "alarm", "setitimer", "pthread_sigmask"),
}
"""Of `os` and `signal`: not there on Windows (docs.python.org, "Availability")."""
WITH_A_FALLBACK = {
    "calibration/launch.py: os.killpg",  # hasattr; else the process alone
    "calibration/limits.py: os.sysconf",  # after a file of Linux' has been opened; else psutil
    "calibration/limits.py: resource",  # ImportError, or on Linux alone; else psutil, or no limit
    "host.py: os.sched_getaffinity",  # hasattr; else os.cpu_count
}
"""Places that were looked at: what happens where the name is missing."""


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        yield from ((name, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def posix_only(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr in POSIX_NAMES and ast.unparse(node.value) in ("os", "signal"):
        yield ast.unparse(node)
    if isinstance(node, ast.Import):
        yield from ({alias.name for alias in node.names} & POSIX_MODULES)
    if isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
        yield node.module


def test_what_windows_lacks_has_a_fallback() -> None:
    assert {f"{name}: {found}" for name, node in nodes() for found in posix_only(node)} == WITH_A_FALLBACK


def is_text_without_encoding(node: ast.AST) -> bool:
    """A file opened as text in the machine's own encoding, which is not UTF-8 on Windows."""
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func).rpartition(".")[2]
    given = {keyword.arg for keyword in node.keywords}
    if name in ("read_text", "write_text"):
        return "encoding" not in given and ast.unparse(node.func) not in ("read_text", "bounded.read_text")  # ours reads UTF-8
    opened = name == "open" and ast.unparse(node.func) not in ("os.open", "webbrowser.open")
    mode = next((one.value for one in node.args if isinstance(one, ast.Constant) and re.fullmatch("[rwxabt+]+", str(one.value))), "r")
    return opened and "b" not in str(mode) and "encoding" not in given


def test_every_text_names_its_encoding() -> None:
    assert [f"{name}:{node.lineno}" for name, node in nodes() if is_text_without_encoding(node)] == []  # type: ignore[attr-defined]


def test_nothing_names_a_folder_of_one_system() -> None:
    """But what Linux tells of itself in /proc and /sys, which is read where it is there."""
    named = {
        f"{name}: {node.value}"
        for name, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"/(tmp|home|var|usr|etc|dev|opt)/", node.value)
    }
    assert named == set()
