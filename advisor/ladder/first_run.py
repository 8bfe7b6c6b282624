"""The first run, sized: rank and passes to the data, learning rates to the rank, pilots to what tells rates apart.

`advise` and `advise next` both say what stands here, so that they say the same of the same facts.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.ladder.knowledge import threshold
from advisor.ladder.learning_rate import Sweep, sweep
from advisor.ladder.rules_capacity import rank_sized
from advisor.memory.params import known_adapter_params
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_EFFECTIVE_BATCH, FIRST_RANK, FIRST_SEQ_LEN_TOKENS
from advisor.stacks.targets import smallest_wrapped
from advisor.values import ALL_LINEAR, Method, ModelSpec, Plan, Request, Task

SCHEDULE = "cosine"
"""Judgement: the published comparisons used constant and cosine schedules alike; a schedule that ends low needs no early stop."""
WARMUP = 0.03
"""Share of the steps: QLoRA's (artidoro/qlora, qlora.py `warmup_ratio`)."""


class FirstRun(NamedTuple):
    """What a practitioner would train first, as far as the data say."""

    rank: int
    alpha: float
    rates: Sweep
    epochs: float | None
    """Passes over the data; None where their size is not known."""
    share: float
    """Of the data, for the pilots of a sweep."""
    pilot_steps: int | None
    """Optimizer steps of one pilot; None where the size of the data is not known."""


def first_run(model: ModelSpec, method: Method, task: Task | None, tokens: int | None) -> FirstRun:
    """Return the first run of `method` on `tokens` unique training tokens.

    The rank brings the capacity ratio to its target (facts C1, C4), the rates fall with its root (facts LR5, S2), passes are one in the
    scale of continued pre-training and three below it (fact B11).
    """
    per_rank = known_adapter_params(model, Plan(rank=1, alpha=1, target_modules=(ALL_LINEAR,))) or None
    rank = FIRST_RANK
    if tokens is not None and per_rank is not None and task is not Task.RL and method.has_adapter:
        rank = min(rank_sized(tokens, per_rank, task), _largest(model))
    epochs = None
    if tokens is not None and task is not Task.RL:
        in_scale = per_rank is not None and threshold("rho_cpt_rank") * per_rank < tokens
        epochs = 1.0 if in_scale else threshold("epochs_enough")
    share = pilot_share(tokens, FIRST_EFFECTIVE_BATCH, FIRST_SEQ_LEN_TOKENS, epochs or 1.0)
    steps = None if tokens is None else max(1, round(share * tokens * (epochs or 1.0) / (FIRST_EFFECTIVE_BATCH * FIRST_SEQ_LEN_TOKENS)))
    return FirstRun(rank, ALPHA_PER_RANK * rank, sweep(model, method, task, rank), epochs, share, steps)


def with_sized_rank(model: ModelSpec, request: Request) -> Request:
    """The request with the rank that its data ask for; as it is where a rank was asked for, or the data are not known."""
    if request.rank is not None or request.dataset_tokens is None or model.tables is None or request.alpha is not None:
        return request
    first = first_run(model, request.method or Method.LORA, request.task, request.dataset_tokens)
    return request.model_copy(update={"rank": first.rank})


def _largest(model: ModelSpec) -> int:
    """The largest rank that every wrapped matrix carries."""
    smallest = smallest_wrapped(model, (ALL_LINEAR,))
    return int(threshold("rho_cpt_rank")) if smallest is None else smallest.limit


def pilot_share(tokens: int | None, batch: int, seq_len_tokens: float, epochs: float) -> float:
    """Return the share of the data that a pilot takes: a quarter, or less where that is more steps than a sweep needs to decide."""
    share = threshold("sweep_data_share")
    if tokens is None:
        return share
    most = threshold("sweep_steps") * batch * seq_len_tokens / (tokens * epochs)
    return min(share, float(f"{most:.1g}"))
