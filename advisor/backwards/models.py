"""The largest known model that a plan fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.backwards.question import Question, priced
from advisor.errors import AdvisorError
from advisor.hub import ModelRow, profile_spec, search_models
from advisor.ladder.fit import Priced
from advisor.values import DType, Fit, GpuSpec, Method, ModelSpec
from advisor.values.question import Candidate

FEWEST_BITS = 2
"""Of a stored weight: GPTQ's smallest (GPT-QModel; advisor/checkpoints.py)."""
FOUR_BITS = 4
"""Of a weight that bitsandbytes quantises (advisor/memory/weights.py)."""
BITS_PER_BYTE = 8


class Known(NamedTuple):
    """A known model with its plan; nothing is priced where it cannot be."""

    candidate: Candidate
    model: ModelSpec | None = None
    priced: Priced | None = None


def by_size(gpu: GpuSpec, question: Question) -> tuple[Known, ...]:
    """Known models from the largest that might fit down to the first that surely does. Those whose weights alone are more than the cards
    hold are left out."""
    found = []
    for row in _down(gpu, question):
        found.append(_known(row, gpu, question))
        if found[-1].candidate.fit is Fit.FITS:
            break
    return tuple(found)


def _down(gpu: GpuSpec, question: Question) -> Iterator[ModelRow]:
    room_bytes = gpu.usable_bytes * (question.request.gpus or 1)
    rows = (row for row in search_models() if row.params is not None)
    for row in sorted(rows, key=lambda row: (-(row.params or 0), row.id)):
        if _least_bytes(row, question.request.method) <= room_bytes:
            yield row


def _least_bytes(row: ModelRow, method: Method | None) -> int:
    """No storage of the weights takes less: that of a checkpoint which is stored quantised is known once it is read."""
    params = row.params or 0
    if "quantization_config" in row.config:
        return params * FEWEST_BITS // BITS_PER_BYTE
    quantized = method is not None and method.is_quantized
    return params * FOUR_BITS // BITS_PER_BYTE if quantized else params * DType.BF16.size_bytes


def _known(row: ModelRow, gpu: GpuSpec, question: Question) -> Known:
    candidate = Candidate(name=row.id, n_gpus=question.request.gpus or 1, fit=None, usable_bytes=gpu.usable_bytes)
    try:
        model = profile_spec(row)
        found = priced(model, gpu, question.request)
    except AdvisorError as error:  # no recording is made for it: there are hundreds of models
        return Known(candidate.model_copy(update={"reason": str(error)}))
    return Known(candidate.model_copy(update={"fit": found.fit, "high_bytes": found.totals.high_bytes}), model, found)
