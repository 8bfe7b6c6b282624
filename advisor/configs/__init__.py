"""A trainer's own configuration, or a live trainer, against a card: read, priced, and told what was noticed."""

from advisor.configs.emit import config
from advisor.configs.files import check

__all__ = ["check", "config"]
