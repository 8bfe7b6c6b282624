"""A model on a card in a line: what the ladder would choose of its first rungs, without pricing the others."""

from __future__ import annotations

from advisor.checkpoints import check_trainable, refusal
from advisor.errors import UnsupportedError
from advisor.ladder.first_run import with_sized_rank
from advisor.ladder.fit import Case, Priced
from advisor.ladder.request import check_request, on_machine
from advisor.ladder.rungs import fixed_options
from advisor.ladder.search import furthest, make_fit
from advisor.ladder.verdict import FIRST_CHOICES, asked_seq_len
from advisor.speed import paid_for, step_time
from advisor.stacks import default_plan
from advisor.values import Fit, Request
from advisor.values.offer import Offer

COMPARED_TOKENS = 10_000_000
"""Size of the data set where none is given: hours and prices of cards compare at any. Judgement: a small instruction set once over."""


def offer(case: Case, request: Request) -> Offer:
    """Return what `advise` would choose of `case`, with its price; what comes nearest where nothing fits.

    Raises UnsupportedError where the model or the plan is not priced.
    """
    check_request(request)
    case = case._replace(gpu=on_machine(case.gpu, request))
    request = with_sized_rank(case.model, request)
    check_trainable(case.model)
    chosen, fixed = _chosen(case, request), fixed_options(request)
    plan, totals, gpu = chosen.plan, chosen.totals, case.gpu
    tokens, cards = request.dataset_tokens or COMPARED_TOKENS, request.gpus or 1
    price = min(gpu.prices, key=lambda price: price.usd_per_gpu_hour, default=None)
    return Offer(
        model=case.model.id,
        params=case.model.params,
        gpu=gpu,
        n_gpus=cards,
        method=plan.method,
        fit=chosen.fit,
        low_bytes=totals.low_bytes,
        expected_bytes=totals.expected_bytes,
        high_bytes=totals.high_bytes,
        changes=tuple(change.what for change in chosen.changes),
        seq_len_tokens=plan.seq_len_tokens,
        max_seq_len_tokens=None if chosen.fit is Fit.DOES_NOT_FIT else furthest(case, plan, fixed),
        dataset_tokens=tokens,
        step_time=paid_for(step_time(case.model, plan, gpu, tokens), plan, cards),
        usd_per_hour=None if price is None else price.usd_per_gpu_hour * cards,
        price_date="" if price is None else price.date,
    )


def _chosen(case: Case, request: Request) -> Priced:
    """As `verdict.decide` chooses: the first that fits whole, else the longest that fits, else the smallest."""
    asked = asked_seq_len(case, request)
    methods = FIRST_CHOICES if request.method is None else (request.method,)
    able = [method for method in methods if not refusal(case.model, method)]
    if not able:
        raise UnsupportedError(refusal(case.model, methods[0]))
    fitted: list[Priced] = []
    for method in able:
        priced = make_fit(case, default_plan(method, case.model, case.gpu, request), fixed_options(request))
        if priced.fit is Fit.FITS and priced.plan.seq_len_tokens == asked:
            return priced
        fitted.append(priced)
    fitting = [priced for priced in fitted if priced.fit is Fit.FITS]
    if fitting:
        return max(fitting, key=lambda priced: priced.plan.seq_len_tokens)
    return min(fitted, key=lambda priced: priced.totals.high_bytes)
