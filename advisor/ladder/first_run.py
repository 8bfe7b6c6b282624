"""The first run, sized: rank and passes to the data, learning rates to the rank, pilots to what tells rates apart.

`advise` and `advise next` both say what stands here, so that they say the same of the same facts.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import Sweep, sweep
from advisor.ladder.rules_capacity import rank_sized
from advisor.memory.params import known_adapter_params
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_EFFECTIVE_BATCH, FIRST_RANK, FIRST_SEQ_LEN_TOKENS
from advisor.stacks.targets import smallest_wrapped
from advisor.statistics import items_needed_paired
from advisor.units import format_rough_share
from advisor.values import ALL_LINEAR, Method, ModelSpec, Plan, Request, Task

SCHEDULE = "cosine"
"""Judgement: the published comparisons used constant and cosine schedules alike; a schedule that ends low needs no early stop."""
WARMUP = 0.03
"""Share of the steps: QLoRA's (artidoro/qlora, qlora.py `warmup_ratio`)."""

WORTH_SEEING = 0.03
"""Gain, as a share, that a first evaluation should be able to show. Judgement: a sweep, targets and passes gain two to three points each
(facts LR6, T1, B11)."""
PILOTS = 3
"""Learning rates of a first sweep (fact LR21)."""


class FirstRun(NamedTuple):
    """What a practitioner would train first, as far as the data say."""

    rank: int
    alpha: float
    rates: Sweep
    epochs: float | None
    """Passes over the data; None where their size is not known."""
    share: float
    """Of the data, for the pilots of a sweep."""


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
    return FirstRun(rank, ALPHA_PER_RANK * rank, sweep(model, method, task, rank), epochs, share)


def pilot_steps(tokens: int, share: float, epochs: float | None) -> int:
    """Return the optimizer steps of one pilot on `share` of the data."""
    return max(1, round(share * tokens * (epochs or 1.0) / (FIRST_EFFECTIVE_BATCH * FIRST_SEQ_LEN_TOKENS)))


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


def items_words(n: int | None) -> str:
    """Say what a held-out set of `n` items can show, or how large it must be where nobody says: what follows "a held-out set"."""
    if n is None:
        needed = items_needed_paired(WORTH_SEEING, gate("discordant"))
        return f" of at least {needed:,} items, which show a gain of {100 * WORTH_SEEING:g} points"
    shown = (gate("compare_z") + gate("power_z")) * (gate("discordant") / n) ** 0.5
    return f" of {n:,} items, which show a gain of {100 * shown:.1f} points when they are compared one by one"


def within_budget(share: float, usd: float | None, budget_usd: float | None) -> tuple[float, str]:
    """Return the share of the data that the budget lets the pilots take, and what is said of it behind their length.

    usd: what the pilots on `share` of the data cost at most; None: not known.
    """
    if budget_usd is None:
        return share, ""
    if usd is None:
        return share, ", at a price that is not known, so that the budget was not held against it"
    if usd <= budget_usd:
        return share, ""
    paid_for = float(f"{share * budget_usd / usd:.1g}")
    return paid_for, f", as {budget_usd:g} USD pay for no more: up to {usd:,.0f} USD on {format_rough_share(share)}"
