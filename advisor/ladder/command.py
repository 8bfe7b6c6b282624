"""The command that prices exactly one plan again: the fewest options of `advise estimate` under which its plan is that one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from advisor.devices import LOCAL
from advisor.errors import InvalidInputError
from advisor.ladder.request import of_machine, plan_from_request
from advisor.values import GpuSpec, ModelSpec, Plan, Request, Sharding
from advisor.values.request import Precision


def command_for(spec: ModelSpec, card: GpuSpec, plan: Plan, model: str | ModelSpec, gpu: str | GpuSpec | None, calibrated: bool) -> str:
    """Return a command line that prices `plan` for `spec` on `card`, which were asked for as `model` and `gpu` (None: the local card).

    Empty where no options describe the plan.
    """
    request = _fewest(spec, card, plan)
    if request is None:
        return ""
    names = [model if isinstance(model, str) else model.id, LOCAL if gpu is None else gpu if isinstance(gpu, str) else gpu.name]
    words = ["advise", "estimate", "--model", names[0], "--gpu", names[1], *_words(request)]
    return shlex.join(words if calibrated else [*words, "--no-calibration"])


def _fewest(model: ModelSpec, gpu: GpuSpec, plan: Plan) -> Request | None:
    """A request that gives the plan and needs each of its options, the method apart.

    First one with the options alone whose fields differ from the method's first plan, which is nearly always enough.
    """
    first = _planned(model, gpu, Request(method=plan.method))
    differing = [_differing(every, first, plan) for every in _described(plan)] if first is not None else []
    request = next((every for every in (*differing, *_described(plan)) if _planned(model, gpu, every) == plan), None)
    if request is None:
        return None
    for name in request.model_fields_set - {"method"}:
        fewer = request.model_copy(update={name: None})
        if getattr(request, name) is not None and _planned(model, gpu, fewer) == plan:
            request = fewer
    return request


_FIELDS = {
    "batch_size": "micro_batch_size",
    "seq_len": "seq_len_tokens",
    "grad_accum": "grad_accum_steps",
    "images": "images_per_row",
    "image_size": "image_size_pixels",
    "checkpointing": "gradient_checkpointing",
    "shard": "sharding",
    "reentrant": "use_reentrant",
    "gpus": "n_gpus",
}
"""Field of a plan that an option sets, where it is called otherwise."""


def _differing(every: Request, first: Plan, plan: Plan) -> Request:
    """The method, the precision, and the options whose fields differ between two plans."""
    kept = {"method", "precision"}
    others = {name: None for name in Request.model_fields if name not in kept and not _differs(_FIELDS.get(name, name), first, plan)}
    return every.model_copy(update=others)


def _differs(field: str, first: Plan, plan: Plan) -> bool:
    return bool(getattr(first, field, None) != getattr(plan, field, None))


def _planned(model: ModelSpec, gpu: GpuSpec, request: Request) -> Plan | None:
    """The plan of a request; None for an option that the model or the stack cannot take as it stands."""
    try:
        return plan_from_request(model, gpu, of_machine(request, gpu))
    except InvalidInputError:
        return None


def _described(plan: Plan) -> Iterator[Request]:
    """Every option as the plan has it, with each precision in turn: several fields of a plan follow from it."""
    adapter = {"rank": plan.rank, "alpha": plan.alpha, "lora_dropout": plan.lora_dropout, "target_modules": plan.target_modules}
    every = Request(
        method=plan.method,
        **(adapter if plan.method.has_adapter else {}),
        batch_size=plan.micro_batch_size,
        seq_len=plan.seq_len_tokens,
        grad_accum=plan.grad_accum_steps,
        images=plan.images_per_row or None,
        image_size=plan.image_size_pixels,
        optimizer=plan.optimizer,
        quantization=plan.quantization,
        double_quant=plan.double_quant if plan.quantization is not None else None,
        kbit_prepare=plan.kbit_prepare if plan.quantization is not None else None,
        checkpointing=plan.gradient_checkpointing,
        padding=plan.padding,
        attention=plan.attention,
        mixers=plan.mixers,
        head=plan.head,
        labels=plan.labels,
        loss=plan.loss,
        stack=plan.stack,
        shard=None if plan.sharding is Sharding.NONE else plan.sharding,
        offload=plan.offload or None,
        shard_group=plan.shard_group,
        sync_each_batch=plan.sync_each_batch,
        reentrant=plan.use_reentrant,
        gpus=plan.n_gpus,
    )
    for precision in (None, *Precision):
        yield every.model_copy(update={"precision": precision})


def _words(request: Request) -> Iterator[str]:
    """The options as they are typed."""
    for name, value in request.model_dump(mode="json", exclude_none=True).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield _typed(name, value)


def _typed(name: str, value: object) -> str:
    if isinstance(value, list):
        return ("x" if name == "image_size" else ",").join(map(str, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
