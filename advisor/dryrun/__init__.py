"""The dry run: exact memory of the real training step, without a GPU and without weights.

Importing this package loads no torch; calling it does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.checkpoints import check_plan
from advisor.errors import InvalidInputError, MissingExtraError, UnsupportedError
from advisor.memory.replayed import kind_on
from advisor.memory.sharding import check_engine
from advisor.memory.weights import kept_in_16_bit
from advisor.tape.store import keep
from advisor.tiers import Tier, refuse_unread
from advisor.values import GpuSpec, ModelSpec, Plan

if TYPE_CHECKING:
    from advisor.dryrun.dry_run import TimelineRow, Trace

_SAID_BY_THE_FILE = ("rank", "alpha", "target_modules")
INSTALL_LINE = "pip install 'finetune-advisor[torch]'"
OLDEST = {"torch": "2.4", "transformers": "4.48", "peft": "0.13", "bitsandbytes": "0.46"}
"""The oldest releases that can be dry-run, as in pyproject.toml: transformers 4.48 was the first with a table of attention functions
(modeling_utils.py, ALL_ATTENTION_FUNCTIONS), bitsandbytes 0.46 the first that knows the meta device."""


def _need_libraries(plan: Plan) -> None:
    needed = ["torch", "transformers"] + (["peft"] if plan.method.has_adapter else [])
    need(*needed, *(["bitsandbytes"] if plan.method.is_quantized else []))


def need(*needed: str) -> None:
    """Raise MissingExtraError where one of the libraries is not installed, and UnsupportedError where it is too old to be dry-run."""
    from importlib.util import find_spec

    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the dry run needs {', '.join(missing)}: {INSTALL_LINE}")
    for name in needed:
        refuse_older(name)


def refuse_older(library: str) -> None:
    """Raises UnsupportedError where the installed release is older than those that can be dry-run."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version(library)
    except PackageNotFoundError:  # run from a source tree: taken to be recent
        return
    if _release(installed) < _release(OLDEST[library]):
        raise UnsupportedError(
            f"the dry run needs {library} {OLDEST[library]} or newer, and {installed} is installed: pip install -U {library}; "
            "`advise estimate` answers without it"
        )


def _release(version: str) -> tuple[int, int]:
    """Major and minor number. Raises no error: what cannot be read counts as recent."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (9999, 0)


def trace(model: ModelSpec, plan: Plan, *, progress: Callable[[str], None] = lambda _: None, **options: Any) -> Trace:
    """Dry-run `plan` for `model` on meta tensors. Options are those of `dry_run.trace`; `progress` is told what is under way.

    Raises UnsupportedError for settings of a plan that a dry run does not run, DeepSpeed for one, and for a step that torch refuses on a
    card and not on meta tensors.
    """
    refuse_unread(Tier.TRACE, plan)
    check_engine(plan)
    _check_checkpoint(model, plan)
    _need_libraries(plan)
    progress("dry run: loading torch, transformers and peft …")
    try:
        with _quiet():
            from advisor.dryrun import dry_run

            progress(f"dry run: the training step of {model.id}, on meta tensors …")
            return dry_run.trace(model, plan, **options)
    finally:
        progress("")


def record_tape(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """Record the step of `plan` on a card like `gpu`, at a few shapes, and keep the tape, so that plans of its kind are answered from it.
    Nothing is recorded where a shipped tape speaks for the config as its class fills it in.

    Raises as `trace` does.
    """
    refuse_unread(Tier.TAPE, plan)
    _check_checkpoint(model, plan)
    _need_libraries(plan)
    progress("recording: loading torch, transformers and peft …")
    try:
        with _quiet():
            from advisor.dryrun import dry_run, families, tapes

            with dry_run.library_errors(model):
                tape = families.shipped_for(model, plan, gpu) or tapes.tape_of(model, plan, gpu, progress)
    finally:
        progress("")
    keep(kind_on(model, plan, gpu), tape)


def _check_checkpoint(model: ModelSpec, plan: Plan) -> None:
    """Raises UnsupportedError, one line, where the checkpoint is not stored for the plan, or as the dry run would quantise it."""
    check_plan(model, plan.method, plan.quantization)
    if any(kept_in_16_bit(model)):
        raise UnsupportedError(f"{model.id} leaves single layers in 16 bit, which the dry run would quantise; advise estimate prices them")


def counted(model: ModelSpec, progress: Callable[[str], None] = lambda _: None) -> ModelSpec:
    """The model with its parameters counted as transformers builds it, on meta tensors; as it is where they are known, or where the extra
    `torch` is not installed: `ModelSpec.params` then says what to install.

    Raises UnsupportedError, one line, where transformers cannot build it.
    """
    from importlib.util import find_spec

    if model.tables is not None or model.params_built is not None or any(find_spec(name) is None for name in ("torch", "transformers")):
        return model
    progress(f"counting the parameters of {model.id}, on meta tensors …")
    try:
        with _quiet():
            from advisor.dryrun.count import count

            return model.model_copy(update={"params_built": count(model)})
    finally:
        progress("")


@contextmanager
def _quiet() -> Iterator[None]:
    """On import bitsandbytes advises kernels for the CPU, on which nothing will run."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def read_peft_config(path: str | Path, plan: Plan, options: Mapping[str, object] | None = None) -> Any:
    """The peft config of an `adapter_config.json`, or of the directory that holds it, to run in place of the plan's own adapter.

    Raises InvalidInputError where the plan trains no adapter, or where `options` set what the file says.
    """
    said = [name for name in _SAID_BY_THE_FILE if (options or {}).get(name) is not None]
    if said:
        raise InvalidInputError(f"--peft-config {path}: the file sets --{said[0].replace('_', '-')}; leave that out")
    if not plan.method.has_adapter:
        raise InvalidInputError(f"--peft-config {path}: full fine-tuning trains no adapter; choose --method lora or qlora")
    _need_libraries(plan)
    with _quiet():
        from advisor.dryrun import adapters

        return adapters.read_peft_config(path)


def peft_config_of(content: Mapping[str, object], where: str) -> Any:
    """The peft config that an `adapter_config.json` with that content stands for; `where` names it in the error."""
    with _quiet():
        from advisor.dryrun import adapters

        return adapters.peft_config_of(content, where)


def timeline(traced: Trace, **options: Any) -> list[TimelineRow]:
    """Events of a trace one by one. Options are those of `dry_run.timeline`."""
    from advisor.dryrun import dry_run

    return dry_run.timeline(traced, **options)
