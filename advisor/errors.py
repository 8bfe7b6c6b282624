"""Everything the tool can refuse, as one small tree.

AdvisorError              one clear line; the command line exits with `exit_code`
├── InvalidInputError     a flag, a file or a value is wrong                  exit 2
│   └── UnknownNameError  no such model or GPU; carries the nearest candidates
├── UnsupportedError      understood, but outside what the tool can price     exit 2
├── MissingExtraError     an optional dependency is not installed             exit 2
└── DoesNotFitError       a pre-flight was told to stop what does not fit     exit 1
"""

from __future__ import annotations


class AdvisorError(Exception):
    """A mistake that the user can mend: the message says what is wrong and what to do."""

    exit_code = 2


class InvalidInputError(AdvisorError):
    """A value that was given cannot be used; the message names the field."""


class UnknownNameError(InvalidInputError):
    """A name that matches nothing, or several things. `candidates` are the nearest known names."""

    def __init__(self, message: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class UnsupportedError(AdvisorError):
    """A model, method or setting that is refused with its reason rather than guessed at."""


class MissingExtraError(AdvisorError):
    """An optional dependency is missing; the message is the install line."""


class DoesNotFitError(AdvisorError):
    """A training that does not fit, or would not start, stopped before its first step; the message holds the numbers."""

    exit_code = 1
