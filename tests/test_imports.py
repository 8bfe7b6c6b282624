"""What a fresh process loads: neither `import advisor` nor the main command may wait for torch and its kin."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "scipy", "pyarrow", "huggingface_hub", "pynvml")
MAIN_JOB = ["--model", "llama-70b", "--gpu", "80GB"]

FIT = ["fit", "--model", "llama-3.1-8b", "--method", "qlora", "--gpu", "24GB", "--seq-len", "max"]
IMPORT = "import advisor, sys"
EVERY_NAME = "import advisor, sys\nfor name in advisor.__all__: getattr(advisor, name)"
RUN = "import sys\nfrom advisor.cli import main\ntry: main()\nexcept SystemExit as end: print('exit', end.code)"
REPORT = "\nprint('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"


def fresh(code: str, *arguments: str) -> tuple[list[str], str]:
    """Top-level modules that a fresh interpreter holds after `code`, and all that it printed before."""
    done = subprocess.run([sys.executable, "-c", code + REPORT, *arguments], capture_output=True, text=True, check=True)
    shown, _, loaded = done.stdout.rpartition("loaded ")
    return loaded.split(), shown


def test_the_report_itself_would_notice() -> None:
    loaded, _ = fresh("import sys, zipapp")
    assert "zipapp" in loaded


@pytest.mark.parametrize("code", [IMPORT, EVERY_NAME], ids=["import advisor", "every public name"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    loaded, _ = fresh(code)
    assert "advisor" in loaded
    assert set(loaded) & set(HEAVY) == set()


def test_importing_alone_loads_not_even_pydantic() -> None:
    loaded, _ = fresh(IMPORT)
    assert {"pydantic", "typer", "rich"} & set(loaded) == set()


@pytest.mark.parametrize(
    "command",
    [MAIN_JOB, [*MAIN_JOB, "--json"], ["estimate", *MAIN_JOB, "--method", "qlora"], ["models"], ["gpus"], ["--help"], FIT],
    ids=" ".join,
)
def test_a_command_loads_nothing_heavy(command: list[str]) -> None:
    loaded, shown = fresh(RUN, *command)
    assert shown.rstrip().endswith("exit 0"), shown[-500:]
    assert set(loaded) & set(HEAVY) == set()
