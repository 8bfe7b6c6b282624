"""A plugin for axolotl: one line in its YAML, and the check runs before the weights are loaded.

    plugins:
      - advisor.hooks.axolotl.AdvisorPlugin

    advisor:            # optional: the options of advisor.preflight
      on_misfit: raise
      gpu: 80GB

axolotl validates its configuration first, so that only what is not priced is remarked on here; `advise check` remarks on the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from advisor.guard import guarded
from advisor.hooks.configured import report_of
from advisor.hooks.flight import PreflightOptions, act
from advisor.ladder.request import options_as
from advisor.values.check import CheckReport


class AdvisorArgs(BaseModel):
    """What the plugin adds to axolotl's schema."""

    advisor: dict[str, Any] | None = None
    """Options of `advisor.preflight`, and `ledger`."""


class AdvisorPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is Any to the type check
    """Checks before the model is loaded; warns or stops as told; changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.report: CheckReport | None = None

    def get_input_args(self) -> str:
        return "advisor.hooks.axolotl.AdvisorArgs"

    @guarded("pre-flight")
    def pre_model_load(self, cfg: Any) -> None:
        options, _ = _options(cfg)
        self.report = report_of(plain(cfg), options)
        act(self.report, options.on_misfit, stacklevel=4)

    @guarded("comparison with what was measured", otherwise=())
    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """The same again with the live model, for the comparison at the end; what was found has been said."""
        from advisor.hooks.callback import AdvisorCallback

        options, ledger = _options(cfg)
        return [AdvisorCallback(ledger=ledger, **{**options.model_dump(exclude_none=True), "on_misfit": "ignore"})]


def _options(cfg: Any) -> tuple[PreflightOptions, Any]:
    stated = dict(plain(cfg.get("advisor") or {}))
    ledger = stated.pop("ledger", False)
    return options_as(PreflightOptions, stated, flags=False), ledger


def plain(value: Any) -> Any:
    """Convert axolotl's DictDefault, which returns None for missing keys, to a dict, so that `in` works."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
