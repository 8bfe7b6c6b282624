"""Answer what needs recordings of training steps that nobody has made yet, by making them on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from advisor.errors import AdvisorError, MissingExtraError, UnsupportedError

Answer = TypeVar("Answer")
Progress = Callable[[str], None]
"""Told in words what is under way; an empty text takes them away."""


def silent(_: str) -> None:
    """Tell nobody."""


@contextmanager
def telling(progress: Progress, text: str) -> Iterator[None]:
    """Tell what is under way, and take it back however it ends."""
    progress(text)
    try:
        yield
    finally:
        progress("")


def answered(ask: Callable[[], Answer], progress: Progress = silent, *, record: bool = True) -> Answer:
    """What `ask` answers; each training step that it misses is recorded, which `progress` is told of, and it is asked again.

    Without `record` nothing is recorded: what no recording at hand speaks for stays without a price, as where torch is not installed.
    Raises MissingExtraError where the libraries that run a step are not installed, and UnsupportedError where they cannot run it.
    """
    made = 0
    try:
        while True:
            try:
                return ask()
            except UnsupportedError as error:
                missing = error
            (_record if record else _go_without)(missing, progress, made)
            made += 1
    finally:
        _write_down()


def _write_down() -> None:
    """Keep the replays that were made, where tapes were looked at."""
    replays = sys.modules.get("advisor.tape.replays")
    if replays is not None:
        replays.write_down()


_MOST = 200
"""Recordings for one answer. Judgement: a whole ladder with its searches needs some twenty."""


def _record(missing: UnsupportedError, progress: Progress, made: int) -> None:
    """Record what is missing, or keep why it cannot be; raises the error itself where it is not that a recording is missing."""
    from advisor.dryrun import record_tape
    from advisor.memory.replayed import NotRecorded, remember_refusal

    if not isinstance(missing, NotRecorded) or made == _MOST:
        raise missing
    try:
        record_tape(missing.model, missing.plan, missing.gpu, progress=progress)
    except MissingExtraError as error:
        _go_without(missing, progress, made, error)
    except UnsupportedError as error:
        remember_refusal(missing, str(error))


def _go_without(missing: UnsupportedError, _: Progress, made: int, why: AdvisorError | None = None) -> None:
    """Leave a step without a price where other steps of its model have one; raises `why`, or else the error itself, where none has."""
    from advisor.memory.replayed import NotRecorded, remember_refusal
    from advisor.tape.shipped import has_tapes

    if not isinstance(missing, NotRecorded) or made == _MOST or not has_tapes(missing.model):
        raise why or missing
    remember_refusal(missing, str(missing))
