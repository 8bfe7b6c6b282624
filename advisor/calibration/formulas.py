"""Tell the formulas that a record was measured against from others: a digest of the code that predicts memory."""

from __future__ import annotations

from advisor import formulas

ROOMS = ("allocator", "architectures", "checkpoints", "images", "memory", "speed", "stacks", "tape", "dryrun", "values")
"""Rooms whose code makes the predicted bytes of a record, or the work that its rates are times of: the model's shape, what its
checkpoint holds, tokens of images, the closed form, the dry run, its replay, the engines' ways, step times, what a plan's fields mean."""


def digest() -> str:
    """It changes with every change of a formula, and with every release."""
    return formulas.digest(*ROOMS)
