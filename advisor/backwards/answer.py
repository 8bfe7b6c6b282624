"""Put an answer together: the best value that fits, what one step more would need, and what could be traded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from advisor.backwards import sentences
from advisor.backwards.cards import Tried, by_cost, by_number
from advisor.backwards.lengths import Stretch, at, put, stretch
from advisor.backwards.models import Known, by_size
from advisor.backwards.question import Question, need
from advisor.backwards.trades import Table, trades
from advisor.ladder.answer import summary_of
from advisor.ladder.fit import Case, Priced
from advisor.ladder.rungs import fixed_options
from advisor.stacks import echo_defaults
from advisor.values import Fit, GpuSpec, Method, ModelSpec, Request
from advisor.values.question import FitAnswer, Need, Trade


def about_numbers(model: ModelSpec, gpu: GpuSpec, question: Question) -> FitAnswer:
    """The longest sequence or the largest micro-batch. Raises UnsupportedError where the plan has no price."""
    found = stretch(model, gpu, question)
    best, uncertain = found.found.fits, max(found.found.may_fit, found.found.fits)
    shown = at(model, gpu, question, found, best or 1)
    beyond = _beyond(model, gpu, question, found, shown)
    request = put(found.request, question.unknown, best or 1)
    limited = "memory" if best < found.limit else "model" if found.by_model else "search"
    return _answer(
        question,
        _About(model, gpu, request, shown if best else None),
        value=str(best) if best else None,
        limited_by=limited,
        sentence=sentences.of_number(model, gpu, question, found, shown, beyond),
        beyond=beyond,
        uncertain_to=str(uncertain) if uncertain > best else "",
        uncertain=not best and uncertain > 0,
        trades=_trades(Case(model, gpu), request, question, shown),
    )


def _beyond(model: ModelSpec, gpu: GpuSpec, question: Question, found: Stretch, shown: Priced) -> Need | None:
    """One step more than the answer; the smallest number itself where that does not fit."""
    best = found.found.fits
    if not best:
        return need("1", shown, gpu.usable_bytes)
    if best >= found.limit:
        return None
    more = min(best + found.step, found.limit)
    return need(str(more), at(model, gpu, question, found, more), gpu.usable_bytes, shown.memory)


def about_number_of_cards(model: ModelSpec, gpu: GpuSpec, question: Question) -> FitAnswer:
    """The fewest cards."""
    found = by_number(model, gpu, question)
    last = found[-1]
    fits = last.candidate.fit is Fit.FITS
    unsure = next((each for each in found if each.candidate.fit is Fit.UNCERTAIN), None)
    before = found[-2] if fits and len(found) > 1 else last if not fits else None
    return _answer(
        question,
        _About(model, gpu, last.request, last.priced if fits else None),
        value=str(last.candidate.n_gpus) if fits else None,
        limited_by="memory" if fits and len(found) > 1 else "none" if fits else "search",
        sentence=sentences.of_cards(model, gpu, question, found),
        beyond=_needed(before),
        uncertain_to=str(unsure.candidate.n_gpus) if unsure is not None else "",
        uncertain=not fits and (unsure is not None or last.priced is None),
        candidates=tuple(each.candidate for each in found),
        trades=_trades(Case(model, gpu), last.request, question, last.priced),
    )


def about_cards(model: ModelSpec, cards: Iterable[GpuSpec], question: Question) -> FitAnswer:
    """The card on which the tokens cost least."""
    found = by_cost(model, cards, question)
    fitting = [each for each in found if each.candidate.fit is Fit.FITS]
    best = fitting[0] if fitting else None
    unsure = any(each.candidate.fit in (Fit.UNCERTAIN, None) for each in found)
    return _answer(
        question,
        _About(model, best.gpu, best.request, best.priced) if best else _About(model, None, question.request, None),
        value=best.candidate.name if best else None,
        limited_by="none" if best else "memory",
        sentence=sentences.of_cost(model, question, found),
        beyond=_needed(_cheaper_by_the_hour(found, best)),
        uncertain=best is None and unsure,
        candidates=tuple(each.candidate for each in found),
        trades=_trades(Case(model, best.gpu), best.request, question, best.priced) if best else (),
    )


def _cheaper_by_the_hour(found: Sequence[Tried], best: Tried | None) -> Tried | None:
    """The dearest by the hour of the cards that do not fit and rent for less: the nearest that memory rules out."""
    rent = None if best is None else best.candidate.usd_per_hour
    out = [each for each in found if each.priced is not None and each.candidate.fit is not Fit.FITS]
    cheaper = [each for each in out if rent is None or (each.candidate.usd_per_hour or 0) < rent]
    return max(cheaper, key=lambda each: each.candidate.usd_per_hour or 0, default=None)


def about_models(gpu: GpuSpec, question: Question) -> FitAnswer:
    """The largest known model."""
    found = by_size(gpu, question)
    last = found[-1] if found and found[-1].candidate.fit is Fit.FITS else None
    above = next((each for each in reversed(found) if each.priced is not None and each is not last), None)
    unsure = next((each for each in found if each.candidate.fit is Fit.UNCERTAIN), None)
    model, priced = (last.model, last.priced) if last is not None else (None, None)
    return _answer(
        question,
        _About(model, gpu, question.request, priced),
        value=last.candidate.name if last is not None else None,
        limited_by="memory" if above is not None else "model",
        sentence=sentences.of_model(gpu, question, found, last),
        beyond=_needed_by_model(above, gpu),
        uncertain_to=unsure.candidate.name if unsure is not None else "",
        uncertain=last is None and any(each.candidate.fit in (Fit.UNCERTAIN, None) for each in found),
        candidates=tuple(each.candidate for each in found),
        trades=_trades(Case(model, gpu), question.request, question, priced) if model is not None else (),
    )


def _needed(each: Tried | None) -> Need | None:
    if each is None or each.priced is None:
        return None
    cards = f"{each.candidate.n_gpus} × " if each.candidate.n_gpus > 1 else ""
    return need(f"{cards}{each.candidate.name}", each.priced, each.gpu.usable_bytes)


def _needed_by_model(each: Known | None, gpu: GpuSpec) -> Need | None:
    return None if each is None or each.priced is None else need(each.candidate.name, each.priced, gpu.usable_bytes)


def _trades(case: Case, request: Request, question: Question, priced: Priced | None) -> tuple[Trade, ...]:
    """Of a model whose steps are recorded none: each row would need a recording of its own."""
    if priced is None or case.model.tables is None:
        return ()
    fixed = fixed_options(question.request) | {name for name in ("loss", "quantization") if getattr(request, name) is not None}
    return trades(Table(case, request, fixed, question.cost_tokens), priced.plan)


class _About(NamedTuple):
    """What an answer is about; None where the unknown is not found."""

    model: ModelSpec | None
    gpu: GpuSpec | None
    request: Request
    priced: Priced | None


def _answer(question: Question, about: _About, **told: Any) -> FitAnswer:
    return FitAnswer(
        unknown=question.unknown,
        model=summary_of(about.model) if about.model is not None else None,
        gpu=about.gpu,
        plan=about.priced.plan if about.priced is not None else None,
        memory=about.priced.memory if about.priced is not None else None,
        cost_tokens=question.cost_tokens,
        assumptions=tuple(_assumptions(question, about)),
        **told,
    )


def _assumptions(question: Question, about: _About) -> Iterator[str]:
    model, gpu, request, _ = about
    if model is not None:
        yield from model.taken_as
    if gpu is not None and gpu.resolved_from:
        yield gpu.resolved_from
    if request.method is None:
        yield f"method: {Method.LORA.label}, as none was asked for (on a checkpoint that is stored in 4 bit {Method.QLORA.label})"
    if question.fewest and question.request.shard is None and (request.gpus or 1) > 1:
        yield "several GPUs: sharded by FSDP2, as replicas need as much on each"
    if model is not None:
        yield from echo_defaults(model, gpu, request)
