"""Tell in what two runs differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter

from advisor.evidence.identity import same_length
from advisor.stacks.spelling import same_rate
from advisor.values.evidence import RunFacts

SETUP = ("method", "rank", "alpha", "use_rslora", "init", "targets", "batch", "quantization", "precision")
"""What two runs must share for their learning rates to be one sweep."""
Setup = tuple[object, ...]


def setup(run: RunFacts) -> Setup:
    """Everything but the learning rate, the data, the length and the seed."""
    return tuple(getattr(run, name) for name in SETUP)


def same_but(first: RunFacts, second: RunFacts, *names: str) -> bool:
    """The set-ups differ in nothing but `names`."""
    of = _all_but(names)
    return bool(of(first) == of(second))


@cache
def _all_but(names: tuple[str, ...]) -> Callable[[RunFacts], object]:
    """What reads the whole set-up of a run but `names`."""
    return attrgetter(*(name for name in SETUP if name not in names))


def differ_only(first: RunFacts, second: RunFacts, *names: str) -> bool:
    """The runs differ in nothing but `names`, learning rate, share of the data and epochs included."""
    free = {
        "learning_rate": same_rate(first.learning_rate, second.learning_rate),
        "data_fraction": first.data_fraction == second.data_fraction,
        "epochs": same_length(first, second),
    }
    return same_but(first, second, *names) and all(same for name, same in free.items() if name not in names)
