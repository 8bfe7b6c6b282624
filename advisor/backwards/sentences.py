"""The answer in one sentence, with the number that decides it."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.backwards.cards import MOST_CARDS, Tried
from advisor.backwards.lengths import Stretch
from advisor.backwards.models import Known
from advisor.backwards.question import Question
from advisor.ladder.fit import Priced
from advisor.units import format_count, format_size
from advisor.values import Fit, GpuSpec, ModelSpec, Plan
from advisor.values.question import Candidate, Need, Unknown

_THING = {Unknown.SEQ_LEN: "tokens", Unknown.BATCH_SIZE: "sequences"}
_SUPERLATIVE = {Unknown.SEQ_LEN: "the longest sequence", Unknown.BATCH_SIZE: "the largest micro-batch"}


def of_number(model: ModelSpec, gpu: GpuSpec, question: Question, found: Stretch, shown: Priced, beyond: Need | None) -> str:
    best, thing = found.found.fits, _THING[question.unknown]
    run = f"{model.id} by {_how(shown.plan, question.unknown)} on {_on(gpu.name, shown.plan.n_gpus)}"
    if not best:
        unsure = found.found.may_fit
        told = f"up to {unsure:,} {thing} it cannot be told" if unsure else f"not even {_one(question.unknown)} fits"
        return f"{run}: {told}: {_needs(beyond)}." if beyond is not None else f"{run}: {told}."
    text = f"{run}: {best:,} {thing} are {_SUPERLATIVE[question.unknown]} that fits"
    if beyond is None:
        return f"{text}: {'the model has no more positions' if found.by_model else 'no more were tried'}."
    told = f", and up to {found.found.may_fit:,} it cannot be told" if found.found.may_fit > best else ""
    return f"{text}; {int(beyond.value):,} {_needs(beyond).removeprefix('it ').replace('needs', 'need', 1)}{told}."


def _one(unknown: Unknown) -> str:
    return "a sequence of one token" if unknown is Unknown.SEQ_LEN else "one sequence"


def _how(plan: Plan, unknown: Unknown) -> str:
    """The method, and what of the shape is not the unknown."""
    batch = "" if unknown is Unknown.BATCH_SIZE else f"micro-batch {plan.micro_batch_size}"
    length = "" if unknown is Unknown.SEQ_LEN else f"{plan.seq_len_tokens:,} tokens"
    return f"{plan.method.label} ({', '.join(filter(None, (length, batch)))})"


def _on(name: str, n_gpus: int) -> str:
    return name if n_gpus == 1 else f"{n_gpus} × {name}"


def _needs(need: Need) -> str:
    """ "it needs up to 80.2 GiB of 79.1 (backward: activations)"."""
    where = f"{need.phase.value.replace('_', ' ')}: {need.term.value.replace('_', ' ')}"
    return f"it needs up to {_gib(need.high_bytes, need.usable_bytes)} ({where})"


def _gib(high_bytes: int, usable_bytes: int) -> str:
    """With as many digits as tell the two apart."""
    digits = next((digits for digits in range(1, 9) if format_size(high_bytes, digits) != format_size(usable_bytes, digits)), 9)
    return f"{format_size(high_bytes, digits)} of {format_size(usable_bytes, digits)}"


def of_cards(model: ModelSpec, gpu: GpuSpec, question: Question, found: Sequence[Tried]) -> str:
    last = found[-1]
    if last.priced is None:
        return f"{model.id} on {gpu.name}: no number can be named: {last.candidate.reason}."
    run = f"{model.id} by {_how(last.priced.plan, question.unknown)}"
    if last.candidate.fit is not Fit.FITS:
        return f"{run}: no number of {gpu.name} up to {MOST_CARDS} surely fits; {last.candidate.n_gpus} need {_of(last.candidate)} each."
    if len(found) == 1:
        return f"{run}: one {gpu.name} is enough: {_of(last.candidate)}."
    before = found[-2].candidate
    few = f"{before.n_gpus} would need {_of(before)} each"
    return f"{run}: {last.candidate.n_gpus} × {gpu.name} are the fewest that fit ({_of(last.candidate)} each); {few}."


def _of(candidate: Candidate) -> str:
    if candidate.high_bytes is None or candidate.usable_bytes is None:
        return "what has no price"
    return f"up to {_gib(candidate.high_bytes, candidate.usable_bytes)}"


def of_cost(model: ModelSpec, question: Question, found: Sequence[Tried]) -> str:
    best = found[0] if found and found[0].candidate.fit is Fit.FITS else None
    if best is None or best.priced is None:
        unsure = sum(each.candidate.fit is Fit.UNCERTAIN for each in found)
        told = f"; of {unsure} it cannot be told" if unsure else ""
        return f"{model.id}: it surely fits none of the {len(found)} cards that have a recorded rent{told}."
    candidate = best.candidate
    run = f"{model.id} by {_how(best.priced.plan, question.unknown)}"
    rent = f"{candidate.usd_per_hour:.2f} USD an hour at the lowest recorded rent"
    usd = None if candidate.step_time is None else candidate.step_time.usd
    cost = "" if usd is None else f", {usd.low:.2g} to {usd.high:.2g} USD for {format_count(question.cost_tokens)} tokens"
    fitting = sum(each.candidate.fit is Fit.FITS for each in found)
    return f"{run} costs least on {_on(candidate.name, candidate.n_gpus)}: {rent}{cost}; {fitting} of {len(found)} cards fit."


def of_model(gpu: GpuSpec, question: Question, found: Sequence[Known], last: Known | None) -> str:
    on = _on(gpu.name, question.request.gpus or 1)
    if last is None or last.priced is None or last.model is None:
        return f"No known model surely fits {on} so."
    run = f"{last.model.id} ({format_count(last.model.params)} parameters) by {_how(last.priced.plan, question.unknown)}"
    skipped = [each for each in found if each.priced is None]
    unpriced = f"; {len(skipped)} that may be larger have no price so" if skipped else ""
    above = next((each for each in reversed(found) if each.priced is not None and each is not last), None)
    over = "" if above is None else f"; {above.candidate.name} needs {_of(above.candidate)}"
    return f"{run} is the largest known model that fits {on}: {_of(last.candidate)}{over}{unpriced}."
