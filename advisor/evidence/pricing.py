"""What the next run takes: the estimator's memory and time for it, with the changes that it needs to fit."""

from __future__ import annotations

from advisor.checkpoints import in_16_bit, packed, refusal, trained_as
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.evidence.view import View
from advisor.ladder.fit import Case
from advisor.ladder.knowledge import gate
from advisor.ladder.request import plan_from_request
from advisor.ladder.search import make_fit
from advisor.memory import estimate_memory
from advisor.refusals import boundary
from advisor.speed import relative_step_time, step_time
from advisor.stacks.targets import available_targets, check_rank
from advisor.values import ALL_LINEAR, Fit, ModelSpec, Plan, Request
from advisor.values.next_step import NextRun, RunPrice


def price_of(view: View, run: NextRun) -> RunPrice | None:
    """Memory and time of the run; None where the model's shape is not known. So it is of a model without tables of which no recording is
    at hand, as to make one takes longer than this answer may."""
    model = view.facts.model
    if model is None:
        return None
    try:
        return _priced(view, run, model)
    except UnsupportedError:
        if model.tables is not None:
            raise
        return None


def _priced(view: View, run: NextRun, model: ModelSpec) -> RunPrice:
    model, gpu = _weights_of(run, model), view.facts.gpu
    plan = plan_of(view, run, model)
    if gpu is None:
        return RunPrice(plan=plan, memory=estimate_memory(model, plan), relative_step_time=relative_step_time(model, plan))
    priced = make_fit(Case(model, gpu), plan, _fixed(run))
    time = step_time(model, priced.plan, gpu, _tokens(view, run))
    return RunPrice(
        plan=priced.plan,
        memory=priced.memory,
        fit=priced.fit,
        hours=time.hours if time is not None else None,
        usd=time.usd if time is not None else None,
        relative_step_time=relative_step_time(model, priced.plan, gpu),
        changes=tuple(change.what for change in priced.changes),
    )


def fits_surely(view: View, run: NextRun) -> bool | None:
    """Whether the card holds the run at its sequence length; None where model or card is not known, or the estimate cannot tell."""
    price = price_of(view, run)
    if price is None or price.fit is None or price.fit is Fit.UNCERTAIN:
        return None
    asked = run.seq_len or price.plan.seq_len_tokens
    return price.fit is Fit.FITS and price.plan.seq_len_tokens >= min(asked, _first_length(view, run))


def fits_after_error(view: View, run: NextRun) -> bool | None:
    """As `fits_surely`, with room to spare: the card has just shown that something was underestimated. None: not known."""
    price, gpu = price_of(view, run), view.facts.gpu
    if price is None or gpu is None:
        return None
    return fits_surely(view, run) is True and price.memory.high_bytes <= gate("memory_share") * gpu.usable_bytes


def _first_length(view: View, run: NextRun) -> int:
    assert view.facts.model is not None
    return plan_of(view, run, view.facts.model).seq_len_tokens


def plan_of(view: View, run: NextRun, model: ModelSpec) -> Plan:
    """The run as a plan. Target names and ranks that the model does not have are left to the default: the run itself had them."""
    model = _weights_of(run, model)
    with boundary("the run that is priced"):
        request = _request_of(view, run, model)
    if request.rank is not None:
        request = _with_possible_rank(model, request)
    with boundary("the run that is priced"):
        return plan_from_request(model, view.facts.gpu, request)


def _request_of(view: View, run: NextRun, model: ModelSpec) -> Request:
    batch = run.batch or 0
    micro = run.micro_batch or 1
    return Request(
        method=run.method,
        rank=run.rank,
        alpha=run.alpha,
        lora_dropout=run.dropout,
        target_modules=_targets(run, model),
        batch_size=micro,
        grad_accum=max(1, batch // (micro * view.facts.n_gpus)) if batch else None,
        seq_len=run.seq_len,
        quantization=None if packed(run.quantization) and trained_as(model) is None else run.quantization,  # priced in nf4 then
        checkpointing=run.gradient_checkpointing,
        gpus=view.facts.n_gpus,
    )


def _weights_of(run: NextRun, model: ModelSpec) -> ModelSpec:
    """The checkpoint as it is stored where the run trains on that, else the original 16-bit weights."""
    fixed = trained_as(model)
    as_stored = fixed is not None and not refusal(model, run.method) and run.quantization in (None, fixed)
    return model if as_stored else in_16_bit(model)


def _targets(run: NextRun, model: ModelSpec) -> tuple[str, ...] | None:
    if run.targets is None or run.targets == (ALL_LINEAR,) or model.tables is None:
        return run.targets
    known = tuple(name for name in run.targets if name in available_targets(model))
    return known or None


def _with_possible_rank(model: ModelSpec, request: Request) -> Request:
    rank = request.rank or 1
    while rank > 1:
        try:
            check_rank(model, request.target_modules or (ALL_LINEAR,), rank)
        except InvalidInputError:
            rank //= 2
        else:
            break
    return request.model_copy(update={"rank": rank})


def _fixed(run: NextRun) -> frozenset[str]:
    """What the experiment is about is not changed to make it fit."""
    return frozenset() if run.seq_len is None else frozenset({"seq_len"})


def _tokens(view: View, run: NextRun) -> int | None:
    """Tokens of every run of the experiment together."""
    if view.tokens is None:
        return None
    return max(1, round(view.tokens * run.data_fraction * (run.epochs or 1) * run.runs))
