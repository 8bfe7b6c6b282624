"""Tell the formulas that a record was measured against from others: a digest of the code that predicts memory."""

from __future__ import annotations

from advisor import formulas

ROOMS = ("allocator", "architectures", "memory", "tape", "trace")
"""Rooms whose code makes the predicted bytes of a record: the model's shape, the closed form, the dry run and its replay."""


def digest() -> str:
    """It changes with every change of a formula, and with every release."""
    return formulas.digest(*ROOMS)
