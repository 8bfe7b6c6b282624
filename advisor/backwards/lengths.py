"""The longest sequence, and the largest micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.backwards.question import Question, priced
from advisor.backwards.search import Found, largest_fit
from advisor.ladder.fit import FAR_TOKENS, LARGEST_MICRO_BATCH, SEQ_GRID_TOKENS, Case, Priced, largest_micro_batch, longest_seq
from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH
from advisor.values import Fit, GpuSpec, ModelSpec, Request
from advisor.values.question import Unknown

MOST_SEQUENCES = 1 << 16
"""How far to search for micro-batches. Judgement: four times the largest effective batch that anybody fine-tunes with."""


class Stretch(NamedTuple):
    """How far a plan can be stretched, and what bounds the search."""

    found: Found
    limit: int
    by_model: bool
    """The limit is the model's positions."""
    step: int
    """Between two numbers that were told apart."""
    request: Request
    """In which the number is to be put."""


def stretch(model: ModelSpec, gpu: GpuSpec, question: Question) -> Stretch:
    """The largest number for which the plan fits. Exact in closed form; on the grid of `advisor.ladder.fit` for a model whose steps are
    recorded. Raises UnsupportedError where there is no price, NotRecorded where a recording is needed first."""
    if model.tables is None:
        return _of_recordings(model, gpu, question)
    by_model = question.unknown is Unknown.SEQ_LEN and model.max_position_tokens is not None
    limit = (model.max_position_tokens or FAR_TOKENS) if question.unknown is Unknown.SEQ_LEN else MOST_SEQUENCES

    def verdict(number: int) -> Fit:
        return priced(model, gpu, put(question.request, question.unknown, number)).fit

    return Stretch(largest_fit(verdict, limit, _kinks(model, question)), limit, by_model, 1, question.request)


def put(request: Request, unknown: Unknown, number: int) -> Request:
    return request.model_copy(update={unknown.value: number})


def at(model: ModelSpec, gpu: GpuSpec, question: Question, found: Stretch, number: int) -> Priced:
    """The plan with that number."""
    return priced(model, gpu, put(found.request, question.unknown, number))


def _kinks(model: ModelSpec, question: Question) -> Iterator[int]:
    """Where the plan may become one of another kind: sequences that reach a window, micro-batches that leave fewer to be accumulated."""
    if question.unknown is Unknown.SEQ_LEN:
        yield from (block.attention.window_tokens or 1 for block in model.shape.blocks)
    elif question.request.grad_accum is None:
        yield from range(2, FIRST_EFFECTIVE_BATCH + 1)


def _of_recordings(model: ModelSpec, gpu: GpuSpec, question: Question) -> Stretch:
    """With the accumulation of the first plan, whatever the micro-batch: it is the plan that is stretched."""
    first = priced(model, gpu, question.request).plan
    request = question.request.model_copy(update={"grad_accum": first.grad_accum_steps})
    case = Case(model, gpu)
    if question.unknown is Unknown.SEQ_LEN:
        limit = max(model.max_position_tokens or FAR_TOKENS, first.seq_len_tokens)
        found = longest_seq(case, first) or 0
        return Stretch(Found(found, found), limit, model.max_position_tokens is not None, SEQ_GRID_TOKENS, request)
    found = largest_micro_batch(case, first) or 0
    return Stretch(Found(found, found), LARGEST_MICRO_BATCH, False, 1, request)
