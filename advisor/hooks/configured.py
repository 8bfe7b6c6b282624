"""Price a configuration of axolotl's as its own validation hands it over. It looks at a mapping and loads no library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.configs.files import card_of, model_of_name
from advisor.configs.report import report_on
from advisor.hooks.flight import PreflightOptions
from advisor.hooks.live import loaded_versions
from advisor.stacks import axolotl as room
from advisor.stacks.fields import Fields
from advisor.stacks.jobs import refuse_other_jobs
from advisor.stacks.keys import unread_remarks
from advisor.stacks.reading import Around, Launch
from advisor.stacks.versions import profile_of
from advisor.values import Stack
from advisor.values.check import CheckReport

WHERE = "axolotl's configuration"


def report_of(settings: Mapping[str, Any], options: PreflightOptions) -> CheckReport:
    """The report on a validated configuration. Raises an AdvisorError for what cannot be read or priced."""
    known = {name: value for name, value in settings.items() if value is not None and name != "advisor"}
    refuse_other_jobs(Stack.AXOLOTL, known, WHERE)
    fields = Fields(known, WHERE)
    model = model_of_name(room.model_of(fields), WHERE)
    gpu = card_of(options.gpu)
    profile = profile_of(Stack.AXOLOTL, installed=loaded_versions())
    world = known.get("world_size")
    launch = Launch(n_gpus=world if isinstance(world, int) and world > 0 else 1)
    reading = room.read(fields, Around(model, gpu, profile.defaults, launch, options.seq_len))
    left = (remark for remark in unread_remarks(Stack.AXOLOTL, fields) if remark.id == "not-priced")
    return report_on(WHERE, model, gpu, reading._replace(remarks=(*reading.remarks, *left)), profile)
