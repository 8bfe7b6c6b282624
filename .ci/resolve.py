"""Resolve the README's installs for every Python that is promised, by pip's dry run: nothing is installed, no other interpreter is needed.

    python .ci/resolve.py [VERSION ...]

pip takes `--python-version` for wheels and for what they require of Python, but the markers of requirements and constraints
(`python_version >= "3.11"`) it evaluates for the interpreter that runs it. The copy of packaging inside it is therefore told the other
version. Whatever is resolved must be pinned in constraints.txt, which the numbers speak for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROMISED = ("3.10", "3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).parent.parent
INSTALLS = (".", ".[torch,dev]", ".[docs]")
"""Of the README: the main command and the tests; of `.ci/run`: the pages."""
FREE = ("cuda-", "nvidia-", "triton", "setuptools", "finetune-advisor")
"""What torch brings for its CUDA builds, which the tests do without, and what builds wheels."""

PIP_AS = """
import sys
from pip._vendor.packaging import markers
version, own = sys.argv.pop(1), markers.default_environment
markers.default_environment = lambda: {**own(), "python_version": version, "python_full_version": version + ".99"}
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
OPTIONS = "install --dry-run --ignore-installed --quiet --disable-pip-version-check --only-binary=:all: -c constraints.txt"


def started(version: str, install: str, report: Path) -> subprocess.Popen[str]:
    # Nothing is written to `--target`; pip before 23.3 takes another Python's version with it alone.
    elsewhere = ["--python-version", version, "--target", str(report.parent), "--report", str(report)]
    command = [sys.executable, "-c", PIP_AS, version, *OPTIONS.split(), *elsewhere, install]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def pinned() -> frozenset[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line)


def unpinned(report: Path) -> list[str]:
    """Names and versions that were resolved and that constraints.txt leaves open."""
    found = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    named = [(entry["name"].lower().replace("_", "-"), entry["version"]) for entry in found]
    return [f"{name} {version}" for name, version in named if name not in pinned() and not name.startswith(FREE)]


def main(versions: tuple[str, ...]) -> int:
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for install in INSTALLS:  # the versions side by side: most of the time is the network's
            reports = {version: Path(folder) / f"{version}.json" for version in versions}
            children = {version: started(version, install, report) for version, report in reports.items()}
            for version, child in children.items():
                said, _ = child.communicate()
                told = "; ".join(line for line in said.splitlines() if not line.startswith("WARNING"))
                problem = told if child.returncode else "; ".join(f"{one}: not pinned" for one in unpinned(reports[version]))
                sys.stdout.write(f"Python {version}, {install}: {problem or 'resolved'}\n")
                bad += bool(problem)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or PROMISED))
