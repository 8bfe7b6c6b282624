"""A trainer's own configuration, or a live trainer, against a card: read, priced, and told what was noticed."""

from advisor.check.config import check
from advisor.check.emit import config

__all__ = ["check", "config"]
