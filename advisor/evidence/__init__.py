"""From what was run and how it scored to the next step: gates over frozen facts, thresholds as data in profiles/methods/."""

from advisor.evidence.answer import next_step

__all__ = ["next_step"]
