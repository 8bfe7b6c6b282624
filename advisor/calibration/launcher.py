"""`accelerate launch`, run as `python -m advisor.calibration.launcher`, whose processes meet where nobody else can reach them."""

from __future__ import annotations

import os
from contextlib import suppress


def main() -> None:
    from accelerate.commands.launch import main as launch

    if os.name == "posix":  # torch takes a socket that is open already by its descriptor
        with suppress(ImportError):  # a torch without torch.distributed, which starts one process
            from advisor.calibration.rendezvous import install

            install()
    launch()


if __name__ == "__main__":
    main()
