"""What each training stack does when nobody says otherwise, and the plan that a practitioner would run first on it."""

from typing import TYPE_CHECKING

from advisor.stacks.echo import echo_defaults
from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.first_plan import default_plan, first_attention, first_seq_len
from advisor.stacks.hf import HF
from advisor.stacks.known import defaults_of
from advisor.stacks.targets import check_rank, check_targets, smallest_wrapped, stacked_targets, targets
from advisor.values.vocabulary import Stack

if TYPE_CHECKING:
    from advisor.stacks.plain import PLAIN
    from advisor.stacks.trl import TRL

__all__ = [
    "HF",
    "PLAIN",
    "TRL",
    "Default",
    "StackDefaults",
    "check_rank",
    "check_targets",
    "default_plan",
    "defaults_of",
    "echo_defaults",
    "first_attention",
    "first_seq_len",
    "smallest_wrapped",
    "stacked_targets",
    "targets",
]


def __getattr__(name: str) -> object:
    """The defaults of the other loops, loaded when they are asked for."""
    if name in ("PLAIN", "TRL"):
        return defaults_of(Stack[name])
    raise AttributeError(f"module 'advisor.stacks' has no attribute {name!r}")
