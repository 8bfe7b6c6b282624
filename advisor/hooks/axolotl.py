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

from advisor.check.files import card_of, model_of_name
from advisor.check.report import report_on
from advisor.hooks.flight import PreflightOptions, act
from advisor.hooks.guard import guarded
from advisor.hooks.live import loaded_versions
from advisor.ladder.request import options_as
from advisor.stacks import axolotl as room
from advisor.stacks.fields import Fields
from advisor.stacks.keys import unread_remarks
from advisor.stacks.reading import Around, Launch
from advisor.stacks.versions import profile_of
from advisor.values import Stack
from advisor.values.check import CheckReport

WHERE = "axolotl's configuration"


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


def report_of(settings: Mapping[str, Any], options: PreflightOptions) -> CheckReport:
    """The report on a validated configuration. Raises an AdvisorError for what cannot be read or priced."""
    known = {name: value for name, value in settings.items() if value is not None and name != "advisor"}
    fields = Fields(known, WHERE)
    model, taken = model_of_name(room.model_of(fields), WHERE)
    gpu = card_of(options.gpu)
    profile = profile_of(Stack.AXOLOTL, installed=loaded_versions())
    world = known.get("world_size")
    launch = Launch(n_gpus=world if isinstance(world, int) and world > 0 else 1)
    reading = room.read(fields, Around(model, gpu, profile.defaults, launch, options.seq_len))
    left = (remark for remark in unread_remarks(Stack.AXOLOTL, fields) if remark.id == "not-priced")
    return report_on(WHERE, model, gpu, reading._replace(remarks=(*reading.remarks, *left), taken=(*taken, *reading.taken)), profile)


def plain(value: Any) -> Any:
    """Convert axolotl's DictDefault, which returns None for missing keys, to a dict, so that `in` works."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
