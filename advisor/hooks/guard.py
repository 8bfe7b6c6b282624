"""Keep a hook from ending a training: nothing but a misfit that was asked to stop it may leave one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from advisor.errors import AdvisorError, DoesNotFitError

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
            except (DoesNotFitError, Warning):  # a warning that the user has made an error
                raise
            except Exception as error:
                if not speaks(args[1] if len(args) > 1 else None):
                    return otherwise
                bug = "" if isinstance(error, AdvisorError) else f"a bug of finetune-advisor, {type(error).__name__}: "
                warnings.warn(f"advisor: no {what}: {bug}{error}", UserWarning, stacklevel=3)
                return otherwise

        return run  # type: ignore[return-value]

    return decorate
