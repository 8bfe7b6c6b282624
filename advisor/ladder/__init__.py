"""From a priced plan to advice: make it fit, decide, explain. Plain functions over frozen values."""

from advisor.ladder.answer import advise
from advisor.ladder.command import command_for
from advisor.ladder.fit import classify
from advisor.ladder.request import check_request, plan_from_request, request_from
from advisor.ladder.rungs import LADDER
from advisor.ladder.snippet import snippet

__all__ = ["LADDER", "advise", "check_request", "classify", "command_for", "plan_from_request", "request_from", "snippet"]
