"""`advise config`: the recommended plan as a framework's own file, which reads back as exactly that plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
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
from advisor.stacks.detect import Opened, open_file, open_text
from advisor.stacks.known import defaults_of
from advisor.stacks.reading import canonical
from advisor.stacks.rooms import model_named
from advisor.stacks.write import STARTS, yaml_config
from advisor.stacks.write_launch import launcher_files, start_script
from advisor.values import Advice, GpuSpec, ModelSpec, Plan, Stack, Task

WRITTEN = (Stack.TRL, Stack.HF, Stack.AXOLOTL, Stack.LLAMAFACTORY)
"""Frameworks whose files are written."""


class Named(NamedTuple):
    """Files of one folder."""

    training: str
    """The trainer's own."""
    script: str
    """What starts it."""


class Emitted(NamedTuple):
    """The file's text, empty where nothing fits, and the answer whose plan it is."""

    text: str
    advice: Advice
    files: Mapping[str, str] = {}
    """Text by name, of the trainer's file and its launcher's, where a script that starts it is asked for."""


def config(model: str | ModelSpec, gpu: str | GpuSpec | None = None, *, stack: str | Stack, **options: Any) -> str:
    """The plan that `advise` recommends, as the framework's YAML (trl, axolotl, llamafactory) or script (hf).

    The options are those of `advise`. Raises an AdvisorError where nothing fits, or where the framework has no setting for the plan.
    """
    written = emitted(model, gpu, stack, options)
    if written.advice.chosen is None:
        raise InvalidInputError(f"there is no plan to write: {written.advice.verdict.sentence}")
    return written.text


def emitted(
    model: str | ModelSpec, gpu: str | GpuSpec | None, stack: str | Stack, options: dict[str, Any], names: Named | None = None
) -> Emitted:
    """The recommended plan as a file or, with `names`, as those that a script starts."""
    card = gpu if isinstance(gpu, GpuSpec) else load_gpu(gpu)
    request = request_from({**options, "stack": stack}, card)
    spec, chosen = model if isinstance(model, ModelSpec) else counted(load_model(model)), request.stack
    if chosen not in WRITTEN or chosen is None:
        raise UnsupportedError(f"--stack {chosen.value if chosen else stack}: files are written for {', '.join(s.value for s in WRITTEN)}")
    answer = advise(spec, card, request)
    rung = answer.chosen
    if rung is None:
        return Emitted("", answer)
    if names is None:
        return Emitted(text_of(spec, rung.plan, request.task), answer)
    files = launched(spec, rung.plan, names, request.task)
    return Emitted(files[names.training], answer, files)


def text_of(model: ModelSpec, plan: Plan, task: Task | None = None) -> str:
    """The plan as its stack's file. It is read again before it is handed out: what comes back otherwise is refused by name."""
    text = _written(model, plan, task)
    _refuse_other(model, plan, lambda: (_opened(plan.stack, text), _path_of(plan.stack)))
    return text


def launched(model: ModelSpec, plan: Plan, names: Named, task: Task | None = None) -> dict[str, str]:
    """The plan as files of one folder, text by name: the trainer's own, accelerate's and DeepSpeed's, which say what the cards share, and
    the shell script that starts it.

    They are read again through the script before they are handed out: what comes back otherwise is refused by name.
    """
    texts = launcher_files(plan)
    texts |= {names.training: _written(model, plan, task, names.script), names.script: start_script(plan, names.training)}
    with TemporaryDirectory(prefix="advise-") as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        path = Path(folder, names.script)
        _refuse_other(model, plan, lambda: (open_file(path, None), path))
    return texts


def _written(model: ModelSpec, plan: Plan, task: Task | None, script: str = "") -> str:
    rate = show(sweep_of(model, plan, task).mid)
    return yaml_config(plan, model, rate, script) if plan.stack in STARTS else snippet(model, plan, task, script)


def _refuse_other(model: ModelSpec, plan: Plan, read: Callable[[], tuple[Opened, Path]]) -> None:
    """Raises UnsupportedError where what was written reads back as another plan."""
    try:
        different = _differing(model, plan, *read())
    except InvalidInputError as error:  # alpha 24.5 where the framework takes whole numbers
        raise UnsupportedError(f"{plan.stack.value} has no setting for this plan: {error}") from None
    if different:
        raise UnsupportedError(f"{plan.stack.value} has no setting for {', '.join(different)}; change it, or choose another --stack")


def _differing(model: ModelSpec, plan: Plan, opened: Opened, path: Path) -> list[str]:
    """Fields of the plan, and the model's name, that do not survive being written and read."""
    is_copied = expanded_by(model) and plan.quantization is not None  # the script writes a copy first
    loaded = in_16_bit(model) if is_copied else model
    read = canonical(_plan_of(loaded, opened, path))
    wanted = canonical(plan)
    named = model_named(opened, str(path))
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
    return _plan_of(model, _opened(stack, text), _path_of(stack))


def _path_of(stack: Stack) -> Path:
    return Path("the written file.yaml" if stack in STARTS else "the written file.py")


def _opened(stack: Stack, text: str) -> Opened:
    return open_text(text, _path_of(stack), stack)


def _plan_of(model: ModelSpec, opened: Opened, path: Path) -> Plan:
    options = CheckOptions(stack=opened.stack, stack_version=defaults_of(opened.stack).version)
    return read_found(opened, path, None, options, model).reading.plan
