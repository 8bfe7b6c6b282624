"""`advise config`: the recommended plan as a framework's own file, which reads back as exactly that plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from advisor.check.files import CheckOptions, read_found
from advisor.checkpoints import expanded_by, in_16_bit
from advisor.devices import load_gpu
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.hub import load_model
from advisor.ladder import advise, request_from
from advisor.ladder.learning_rate import show, sweep
from advisor.ladder.snippet import snippet
from advisor.stacks.detect import open_text
from advisor.stacks.known import defaults_of
from advisor.stacks.reading import canonical
from advisor.stacks.write import STARTS, yaml_config
from advisor.trace import counted
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
    rate = show(sweep(model, plan.method, task).mid)
    text = yaml_config(plan, model, rate) if plan.stack in STARTS else snippet(model, plan, task)
    try:
        different = _differing(model, plan, text)
    except InvalidInputError as error:  # alpha 24.5 where the framework takes whole numbers
        raise UnsupportedError(f"{plan.stack.value} has no setting for this plan: {error}") from None
    if different:
        raise UnsupportedError(f"{plan.stack.value} has no setting for {', '.join(different)}; change it, or choose another --stack")
    return text


def _differing(model: ModelSpec, plan: Plan, text: str) -> list[str]:
    """Fields of the plan that do not survive being written and read."""
    loaded = in_16_bit(model) if expanded_by(model) and plan.quantization is not None else model  # the script writes a copy first
    read = canonical(read_text(loaded, plan.stack, text))
    wanted = canonical(plan)
    return [
        f"{name.removesuffix('_tokens').replace('_', ' ')} {_shown(getattr(wanted, name))}"
        for name in Plan.model_fields
        if getattr(wanted, name) != getattr(read, name)
    ]


def _shown(value: object) -> str:
    return str(getattr(value, "value", value)).lower()


def read_text(model: ModelSpec, stack: Stack, text: str) -> Plan:
    """The plan of a file's text, at the release that the defaults were read in."""
    path = Path("the written file.yaml" if stack in STARTS else "the written file.py")
    options = CheckOptions(stack=stack, stack_version=defaults_of(stack).version)
    return read_found(open_text(text, path, stack), path, None, options, model).reading.plan
