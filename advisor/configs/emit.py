"""`advise config`: the recommended plan as a framework's own file, which reads back as exactly that plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from advisor.checkpoints import expanded_by, in_16_bit
from advisor.configs.files import CheckOptions, read_found
from advisor.devices import load_gpu
from advisor.dryrun import counted
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.hub import load_model
from advisor.ladder import advise, request_from
from advisor.ladder.learning_rate import show, sweep_of
from advisor.ladder.snippet import snippet
from advisor.shown import quoted
from advisor.stacks.detect import Opened, open_text
from advisor.stacks.known import defaults_of
from advisor.stacks.reading import canonical
from advisor.stacks.rooms import model_named
from advisor.stacks.write import STARTS, yaml_config
from advisor.values import Advice, GpuSpec, ModelSpec, Plan, Stack, Task

WRITTEN = (Stack.TRL, Stack.HF, Stack.AXOLOTL, Stack.LLAMAFACTORY)
"""Frameworks whose files are written."""


class Emitted(NamedTuple):
    """The file's text, empty where nothing fits, and the answer whose plan it is."""

    text: str
    advice: Advice


def config(model: str | ModelSpec, gpu: str | GpuSpec | None = None, *, stack: str | Stack, **options: Any) -> str:
    """The plan that `advise` recommends, as the framework's YAML (trl, axolotl, llamafactory) or script (hf).

    The options are those of `advise`. Raises an AdvisorError where nothing fits, or where the framework has no setting for the plan.
    """
    written = emitted(model, gpu, stack, options)
    if written.advice.chosen is None:
        raise InvalidInputError(f"there is no plan to write: {written.advice.verdict.sentence}")
    return written.text


def emitted(model: str | ModelSpec, gpu: str | GpuSpec | None, stack: str | Stack, options: dict[str, Any]) -> Emitted:
    card = gpu if isinstance(gpu, GpuSpec) else load_gpu(gpu)
    request = request_from({**options, "stack": stack}, card)
    spec, chosen = model if isinstance(model, ModelSpec) else counted(load_model(model)), request.stack
    if chosen not in WRITTEN or chosen is None:
        raise UnsupportedError(f"--stack {chosen.value if chosen else stack}: files are written for {', '.join(s.value for s in WRITTEN)}")
    answer = advise(spec, card, request)
    rung = answer.chosen
    return Emitted("" if rung is None else text_of(spec, rung.plan, request.task), answer)


def text_of(model: ModelSpec, plan: Plan, task: Task | None = None) -> str:
    """The plan as its stack's file. It is read again before it is handed out: what comes back otherwise is refused by name."""
    rate = show(sweep_of(model, plan, task).mid)
    text = yaml_config(plan, model, rate) if plan.stack in STARTS else snippet(model, plan, task)
    try:
        different = _differing(model, plan, text)
    except InvalidInputError as error:  # alpha 24.5 where the framework takes whole numbers
        raise UnsupportedError(f"{plan.stack.value} has no setting for this plan: {error}") from None
    if different:
        raise UnsupportedError(f"{plan.stack.value} has no setting for {', '.join(different)}; change it, or choose another --stack")
    return text


def _differing(model: ModelSpec, plan: Plan, text: str) -> list[str]:
    """Fields of the plan, and the model's name, that do not survive being written and read."""
    is_copied = expanded_by(model) and plan.quantization is not None  # the script writes a copy first
    loaded = in_16_bit(model) if is_copied else model
    opened = _opened(plan.stack, text)
    read = canonical(_plan_of(loaded, opened))
    wanted = canonical(plan)
    named = model_named(opened, str(_path_of(plan.stack)))
    other_name = [] if named == model.id or is_copied else [f"a model called {quoted(model.id)}"]
    return other_name + [
        f"{name.removesuffix('_tokens').replace('_', ' ')} {_shown(getattr(wanted, name))}"
        for name in Plan.model_fields
        if getattr(wanted, name) != getattr(read, name)
    ]


def _shown(value: object) -> str:
    return str(getattr(value, "value", value)).lower()


def read_text(model: ModelSpec, stack: Stack, text: str) -> Plan:
    """The plan of a file's text, at the release that the defaults were read in."""
    return _plan_of(model, _opened(stack, text))


def _path_of(stack: Stack) -> Path:
    return Path("the written file.yaml" if stack in STARTS else "the written file.py")


def _opened(stack: Stack, text: str) -> Opened:
    return open_text(text, _path_of(stack), stack)


def _plan_of(model: ModelSpec, opened: Opened) -> Plan:
    options = CheckOptions(stack=opened.stack, stack_version=defaults_of(opened.stack).version)
    return read_found(opened, _path_of(opened.stack), None, options, model).reading.plan
