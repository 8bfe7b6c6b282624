"""Keep a hook from ending a training: nothing but a misfit that was asked to stop it may leave one."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from advisor.errors import AdvisorError, DoesNotFitError
from advisor.shown import capped, shown

LONGEST_WARNING = 600
"""Characters of what an exception says, which may be pages. Judgement: five lines of a terminal."""

Hook = TypeVar("Hook", bound=Callable[..., Any])


def speaks(args: Any) -> bool:
    """Whether this process is the one of its node that warns, by the training arguments."""
    return int(getattr(args, "local_process_index", 0) or 0) == 0


def guarded(what: str, otherwise: Any = None) -> Callable[[Hook], Hook]:
    """Decorate a hook's method: whatever it raises besides DoesNotFitError becomes one warning that begins with `what` did not happen.

    The method then returns `otherwise`.
    """

    def decorate(method: Hook) -> Hook:
        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except DoesNotFitError:
                raise
            except Exception as error:
                with suppress(Exception):  # the arguments may be what is broken
                    _tell(what, error, args[1] if len(args) > 1 else None)
                return otherwise

        return run  # type: ignore[return-value]

    return decorate


def _tell(what: str, error: Exception, args: Any) -> None:
    if isinstance(error, Warning):  # the user has made warnings errors: what it says stands, and it ends nothing
        _print(str(error))
    elif speaks(args):
        bug = "" if isinstance(error, AdvisorError) else f"a bug of finetune-advisor, {type(error).__name__}: "
        said = capped(shown(" ".join(str(error).split())), LONGEST_WARNING)
        say(f"advisor: no {what}: {bug}{said}", stacklevel=5)


def say(text: str, stacklevel: int = 3) -> None:
    """Warn, by a line on stderr where the user has made warnings errors, which would end a training as well."""
    try:
        warnings.warn(text, UserWarning, stacklevel=stacklevel)
    except Exception:
        _print(text)


def _print(text: str) -> None:
    with suppress(Exception):  # no stderr, or a full one
        sys.stderr.write(f"{text}\n")
