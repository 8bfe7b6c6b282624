"""What each training stack does when nobody says otherwise, and the plan that a practitioner would run first on it."""

from advisor.stacks.echo import echo_defaults
from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.first_plan import default_plan, first_attention, first_seq_len
from advisor.stacks.hf import HF
from advisor.stacks.known import defaults_of
from advisor.stacks.plain import PLAIN
from advisor.stacks.targets import check_rank, check_targets, stacked_targets, targets
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
    "stacked_targets",
    "targets",
]
