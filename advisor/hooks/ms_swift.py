"""ms-swift takes callbacks by name from its external plugins:

    swift sft ... --external_plugins "$(python -c 'import advisor.hooks.ms_swift as m; print(m.__file__)')" --callbacks advisor

Options come from the environment, as ms-swift has no place for them: ADVISOR_GPU, ADVISOR_ON_MISFIT (warn, raise, ignore),
ADVISOR_PRICE (estimate, trace), ADVISOR_SEQ_LEN, ADVISOR_LEDGER (a path, or 1 for the project's). The command itself can be checked
before it starts: advise check train.sh.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from advisor.errors import AdvisorError, MissingExtraError
from advisor.guard import say
from advisor.hooks.callback import AdvisorCallback

NAME = "advisor"
_OPTIONS = ("gpu", "on_misfit", "price", "seq_len")


def options_from_environment() -> dict[str, Any]:
    """The options that are set."""
    found = {name: os.environ.get(f"ADVISOR_{name.upper()}") for name in _OPTIONS}
    ledger = os.environ.get("ADVISOR_LEDGER")
    options: dict[str, Any] = {name: value for name, value in found.items() if value}
    return {**options, "ledger": True if ledger == "1" else ledger} if ledger else options


class SwiftCallback(AdvisorCallback):
    """The callback as ms-swift makes it: with the arguments and the trainer, of which only the model and the data set are looked at."""

    def __init__(self, args: Any, trainer: Any) -> None:
        try:
            super().__init__(**options_from_environment())
        except AdvisorError as error:  # a mistyped variable is no reason to end a training
            say(f"advisor: no pre-flight: {error}")
            super().__init__(on_misfit="ignore")
            self._looked = True
        self._trainer = trainer


def register() -> None:
    """Puts the callback into ms-swift's table of names."""
    try:
        from swift.callbacks.mapping import callbacks_map
    except ImportError as error:
        raise MissingExtraError("this plugin belongs to ms-swift 4: pip install ms-swift") from error
    callbacks_map[NAME] = SwiftCallback


if find_spec("swift") is not None:  # an external plugin works by being imported
    register()
