"""One rung: a method's first plan, made to fit, stretched, and described."""

from __future__ import annotations

from typing import NamedTuple

from advisor.checkpoints import check_method, check_trainable, in_16_bit, packed, refusal
from advisor.errors import UnsupportedError
from advisor.ladder.fit import Case, Priced, largest_micro_batch
from advisor.ladder.knowledge import evidence, say
from advisor.ladder.moves import STEPS
from advisor.ladder.search import furthest, make_fit
from advisor.memory.params import known_trainable_params
from advisor.memory.replayed import RECORDS, NotRecorded
from advisor.speed import paid_for, relative_step_time, step_time
from advisor.stacks import default_plan
from advisor.values import DType, Fit, Method, Plan, Quantization, Request, Rung, StepTime

LADDER = (Method.LORA, Method.QLORA, Method.DORA, Method.QDORA, Method.FULL)
"""In the order of climbing."""

_OPTIONS = (*(step.option for step in STEPS), "seq_len")


def fixed_options(request: Request) -> frozenset[str]:
    """Options of the fitting steps that the user gave: they are not changed. Accumulation goes with the micro-batch."""
    given = {name for name in _OPTIONS if getattr(request, name) is not None}
    return frozenset(given | {"batch_size"} if request.grad_accum is not None else given)


class Climb(NamedTuple):
    """The rungs, and why some are missing."""

    rungs: tuple[Rung, ...]
    missing: tuple[str, ...]
    """One line for each rung of DoRA that the libraries cannot run, and for each rung whose changes were not all tried."""


def climb(case: Case, request: Request) -> Climb:
    """Every rung, lowest first, without the reasons against it: those need the verdict.

    Raises UnsupportedError where the libraries cannot run a rung of LoRA or full fine-tuning, or the one that was asked for; NotRecorded
    where a model without tables needs a recording first.
    """
    check_trainable(case.model)
    if request.method is not None:
        check_method(case.model, request.method)
    rungs, missing = [], []
    for method in LADDER:
        try:
            rung, untried = _climb(case, request, method)
        except NotRecorded:
            raise
        except UnsupportedError as error:
            if not method.is_dora or method is request.method:
                raise
            missing.append(f"without {method.label}: {error}")
            continue
        rungs.append(rung)
        if untried:
            missing.append(
                f"{method.label} without trying {', '.join(untried)}, which has no price here: no recording ({RECORDS}), or none runs"
            )
    return Climb(tuple(rungs), tuple(missing))


def _climb(case: Case, request: Request, method: Method) -> tuple[Rung, tuple[str, ...]]:
    """One rung, and changes that were not tried; where the checkpoint is not stored for it, as from the original weights."""
    if not refusal(case.model, method):
        priced = make_fit(case, default_plan(method, case.model, case.gpu, request), fixed_options(request))
        return rung_of(case, request, priced), priced.untried
    original = case._replace(model=in_16_bit(case.model))
    plain = request.model_copy(update={"quantization": None})
    priced = make_fit(original, default_plan(method, original.model, case.gpu, plain), fixed_options(request))
    return rung_of(original, plain, priced).model_copy(update={"fit": Fit.WOULD_NOT_START}), priced.untried


def rung_of(case: Case, request: Request, priced: Priced, stretch: bool = True) -> Rung:
    """The rung of a priced plan; how far it could be stretched is left out where nobody asks, as it takes many prices."""
    plan, model = priced.plan, case.model
    trained = known_trainable_params(model, plan, case.gpu)
    stretches = stretch and priced.fit is not Fit.DOES_NOT_FIT
    return Rung(
        plan=plan,
        memory=priced.memory,
        fit=priced.fit,
        headroom_bytes=case.gpu.usable_bytes - priced.memory.expected_bytes,
        changes=priced.changes,
        trainable_params=trained,
        trainable_share=None if trained is None else _share(trained, model.params, plan.method),
        base_precision=base_precision(plan),
        relative_step_time=relative_step_time(model, plan, case.gpu),
        step_time=_time(case, plan, request),
        quality=say(f"quality.{plan.method.value}"),
        quality_evidence=evidence(f"quality.{plan.method.value}"),
        adapter_bytes=trained * plan.adapter_dtype.size_bytes if trained is not None and plan.method.has_adapter else None,
        mergeable=say(f"merge.{plan.method.value}"),
        max_seq_len_tokens=furthest(case, plan, fixed_options(request)) if stretches else None,
        max_micro_batch_size=largest_micro_batch(case, plan) if stretches else None,
    )


def _time(case: Case, plan: Plan, request: Request) -> StepTime | None:
    """Of the data set over its epochs, at the price of all cards that were asked for."""
    epochs, price = request.epochs or 1.0, request.price
    time = step_time(case.model, plan, case.gpu, request.dataset_tokens, epochs=epochs, usd_per_gpu_hour=price)
    return paid_for(time, plan, request.gpus)


def _share(trained: int, params: int, method: Method) -> float:
    """The share that is trained; a new head is not among the model's own parameters, and full fine-tuning trains it too."""
    return trained / (params + trained if method.has_adapter else max(params, trained))


def base_precision(plan: Plan) -> str:
    """ "nf4 + DQ" (double quantisation, as QLoRA's paper shortens it), "bf16", "fp32, bf16 autocast"."""
    if plan.quantization is None:
        autocast = plan.autocast and plan.base_dtype is DType.FP32
        return f"fp32, {plan.autocast_dtype.value} autocast" if autocast else plan.base_dtype.value
    if packed(plan.quantization):
        return plan.quantization.value.upper()
    double = plan.double_quant and plan.quantization is not Quantization.INT8
    return f"{plan.quantization.value} + DQ" if double else plan.quantization.value
