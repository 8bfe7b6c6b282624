"""The dry run: exact memory of the real training step, without a GPU and without weights.

Importing this package loads no torch; calling it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.errors import MissingExtraError
from advisor.values import ModelSpec, Plan

if TYPE_CHECKING:
    from advisor.trace.dry_run import TimelineRow, Trace

INSTALL_LINE = "pip install 'finetune-advisor[torch]'"


def _need_libraries(plan: Plan) -> None:
    from importlib.util import find_spec

    needed = ["torch", "transformers"] + (["peft"] if plan.method.has_adapter else [])
    needed += ["bitsandbytes"] if plan.method.is_quantized else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the dry run needs {', '.join(missing)}: {INSTALL_LINE}")


def trace(model: ModelSpec, plan: Plan, **options: Any) -> Trace:
    """Dry-run `plan` for `model` on meta tensors. Options are those of `dry_run.trace`."""
    _need_libraries(plan)
    from advisor.trace import dry_run

    return dry_run.trace(model, plan, **options)


def timeline(traced: Trace, **options: Any) -> list[TimelineRow]:
    """Events of a trace one by one. Options are those of `dry_run.timeline`."""
    from advisor.trace import dry_run

    return dry_run.timeline(traced, **options)
