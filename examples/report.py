"""An answer as one page that needs no network, to send to whoever pays for the card: `python examples/report.py [FOLDER]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(folder: str = ".") -> None:
    page = Path(folder) / "report.html"
    question = ["llama-3.1-8b", "rtx 4090", "--dataset-tokens", "30M", "--html", str(page), "--quiet"]
    subprocess.run([sys.executable, "-m", "advisor", *question], check=True)
    print(f"{page.name}: {page.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
