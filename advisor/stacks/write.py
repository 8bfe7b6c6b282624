"""A plan as the YAML of a framework, line by line: no library, no surprises in quoting, and comments where a reader needs them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from advisor.checkpoints import expanded_by, packed
from advisor.errors import UnsupportedError
from advisor.shown import quoted
from advisor.stacks.known import defaults_of, room_of
from advisor.stacks.write_sharing import without_sharing
from advisor.values.model import ModelSpec
from advisor.values.plan import Plan
from advisor.values.vocabulary import Stack

Line = str

STARTS = {
    Stack.TRL: ("trl sft --config FILE", "accelerate launch --num_processes {n} trl/scripts/sft.py --config FILE"),
    Stack.AXOLOTL: ("axolotl train FILE", "axolotl train FILE --launcher accelerate -- --num_processes {n}"),
    Stack.LLAMAFACTORY: ("llamafactory-cli train FILE", "FORCE_TORCHRUN=1 NPROC_PER_NODE={n} llamafactory-cli train FILE"),
}
"""How a training starts from the file that is written, on one GPU and on several."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_MEANT_OTHERWISE = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"])


def yaml_config(plan: Plan, model: ModelSpec, learning_rate: str, script: str = "") -> str:
    """The plan as its stack's YAML; data and output are left to the user, everything that changes a byte is not.

    `script`: what starts the training; its launcher's files then say what the cards share.
    Raises UnsupportedError where the framework has no setting that loads the checkpoint as the plan wants it.
    """
    loading = tuple(_loading(plan, model))
    alone, several = STARTS[plan.stack]
    start = f"{several.format(n=min(plan.n_gpus, 8))} ({in_all(plan.n_gpus)})" if plan.has_engine else alone
    if script:
        start, plan = started_by(script, plan.n_gpus), without_sharing(plan)
    lines = room_of(plan.stack).write(plan, model.id, learning_rate, defaults_of(plan.stack))
    return "\n".join((f"# start with: {start}", *lines, *loading)) + "\n"


def started_by(script: str, n_gpus: int) -> str:
    return f"bash {script} ({in_all(n_gpus)})"


def in_all(n_gpus: int) -> str:
    return f"{n_gpus} GPU{'s' if n_gpus > 1 else ''} in all"


def _loading(plan: Plan, model: ModelSpec) -> Iterator[Line]:
    """How a quantised checkpoint is loaded, where the framework does not see to it by itself.

    LLaMA-Factory 0.9.5 does (model/model_utils/quantization.py: dequantize=True for MXFP4 and FP8); axolotl 0.19 is told by
    `model_quantization_config` (utils/schemas/model.py).
    """
    stored, stack, expander = model.checkpoint_format, plan.stack, expanded_by(model)
    if stored is None:
        return
    if expander and plan.quantization is not None:
        raise UnsupportedError(
            f"{model.id} is stored in {stored.label}, and bitsandbytes quantises 16-bit checkpoints only: "
            f"no file of {stack.value} loads it so; --stack hf writes a script that expands it first"
        )
    if expander and stack is Stack.AXOLOTL:
        yield from ("", setting("model_quantization_config", expander), "model_quantization_config_kwargs:", "  dequantize: true")
    elif (expander and stack is Stack.TRL) or (packed(plan.quantization) and stack is not Stack.LLAMAFACTORY):
        how = f"{expander}(dequantize=True)" if expander else "the trainable kernels of its layers (backend auto_trainable)"
        raise UnsupportedError(f"{model.id} is stored in {stored.label}: {stack.value} has no setting for {how}; use --stack hf")


def setting(name: str, value: bool | int | float | str | tuple[str, ...]) -> Line:
    return f"{name}: {written(value)}"


def rate_setting(learning_rate: str) -> Line:
    """The learning rate as it is shown, a number without quotes."""
    return f"learning_rate: {learning_rate}"


def written(value: bool | int | float | str | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str) and not _reads_as_itself(value):
        return quoted(value)
    return str(value)


def _reads_as_itself(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _MEANT_OTHERWISE


def number(value: float) -> int | float:
    """32 rather than 32.0, for readers that want whole numbers."""
    return int(value) if value == int(value) else value
