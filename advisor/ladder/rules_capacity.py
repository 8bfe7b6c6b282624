"""Rules about rank and scale: whether the adapter is large enough for the data, and what a high rank does not do.

rho = LoRA parameters / unique training tokens (facts C1, C4, C17). Its thresholds are soft and say so in profiles/methods/.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.ladder.knowledge import threshold
from advisor.ladder.situation import Situation, params_per_rank
from advisor.units import format_count
from advisor.values import Finding, Level, Method, Task

ALPHA_SCALE_LOW = 0.5
"""alpha / rank under which high ranks learn no more than low ones at the same learning rate. Judgement, from facts S1 and S3."""


def rank_high(s: Situation) -> Iterator[Finding]:
    """A high rank is no dial for quality."""
    plan, trained = s.focus.plan, s.focus.trainable_params
    if not plan.method.has_adapter or plan.rank < threshold("rank_high") or plan.rank <= _asked_by_data(s):
        return
    yield Finding(
        id="rank-high",
        level=Level.WARNING,
        message=f"rank {plan.rank} is high: four times the rank gained 1.3 points from rank 32 on with the learning rate re-tuned, "
        "and nothing or less with it left alone",
        hint="halve the learning rate for each four times the rank; keep the rank only if it wins by two standard errors",
        numbers={"rank": plan.rank, **({"adapter_params": trained} if trained is not None else {})},
        evidence=("C8", "C10", "C11", "LR5"),
    )


def _asked_by_data(s: Situation) -> int:
    """The rank that the data ask for; 0 where they are not known."""
    tokens = s.request.dataset_tokens
    if tokens is None or s.request.task is Task.RL:
        return 0
    per_rank = params_per_rank(s.case, s.rung(Method.LORA).plan)
    return 0 if per_rank is None else rank_sized(tokens, per_rank, s.request.task)


def alpha_small(s: Situation) -> Iterator[Finding]:
    """alpha left behind as the rank grew: the update is scaled down."""
    plan = s.focus.plan
    scale = plan.alpha / plan.rank
    if not plan.method.has_adapter or plan.rank < threshold("rank_high") or scale >= ALPHA_SCALE_LOW:
        return
    yield Finding(
        id="alpha-small",
        level=Level.WARNING,
        message=f"alpha {plan.alpha:g} at rank {plan.rank} scales the update by {scale:.2g}: more rank then changes little",
        hint=f"--alpha {2 * plan.rank}, or sweep the learning rate upwards; not both",
        numbers={"alpha": plan.alpha, "rank": plan.rank, "scale": scale},
        evidence=("S1", "S5", "S6"),
    )


def capacity_ratio(s: Situation) -> Iterator[Finding]:
    """Adapter parameters against training tokens, where their number is known."""
    tokens, plan = s.request.dataset_tokens, s.focus.plan
    if tokens is None or s.request.task is Task.RL:
        return
    per_rank = params_per_rank(s.case, s.rung(Method.LORA).plan)
    if per_rank is None:
        return
    rho, largest_rank = plan.rank * per_rank / tokens, int(threshold("rho_cpt_rank"))
    rho_largest = largest_rank * per_rank / tokens
    sized = rank_sized(tokens, per_rank, s.request.task)
    numbers = {"rho": rho, "rho_at_256": rho_largest, "rank": plan.rank, "rank_sized_to_data": sized, "params_per_rank": per_rank}
    shown = f"{format_count(tokens)} tokens, {rho:.2g} LoRA parameters per token at rank {plan.rank}"
    if rho_largest < 1:
        deep = rho_largest < threshold("rho_deep_cpt")
        yield Finding(
            id="capacity-deep-cpt" if deep else "capacity-cpt",
            level=Level.WARNING,
            message=f"{shown}: the scale of continued pre-training, where even rank {largest_rank} has {rho_largest:.2g} per token",
            hint="expect less than full fine-tuning; probe rank 256 with its own learning rate, then full fine-tuning on a subset"
            if deep
            else "probe rank 256 with its own learning rate before thinking of full fine-tuning",
            numbers=numbers,
            evidence=("C4", "C5", "C6", "C16"),
        )
    elif rho < threshold("rho_suspect"):
        yield Finding(
            id="capacity-suspect",
            level=Level.WARNING,
            message=f"{shown}: below 1, the rank may be the limit",
            hint=f"--rank {sized} is sized to the data; halve the learning rate for each four times the rank",
            numbers=numbers,
            evidence=("C1", "C4", "C8", "C17"),
        )
    elif rho < threshold("rho_ample"):
        yield Finding(
            id="capacity-test",
            level=Level.INFO,
            message=f"{shown}: between 1 and 4, more rank may help a little",
            hint="tune the learning rate first; then one step to four times the rank, with its own learning rate, tells",
            numbers=numbers,
            evidence=("C4", "C17", "C20"),
        )
    else:
        yield Finding(
            id="capacity-ample",
            level=Level.INFO,
            message=f"{shown}: above 4, the rank is not the limit",
            hint="look at learning rate, targets and data first",
            numbers=numbers,
            evidence=("C4", "C17"),
        )


def reinforcement_learning(s: Situation) -> Iterator[Finding]:
    """RL absorbs about a bit per episode, and breaks at learning rates that suit SFT."""
    if s.request.task is not Task.RL:
        return
    low, high = threshold("lr_rl_low"), threshold("lr_rl_high")
    yield Finding(
        id="rl-rank-and-rate",
        level=Level.INFO,
        message=f"in reinforcement learning rank 1 matched full fine-tuning; learning rates above {high:g} broke runs",
        hint=f"rank 8 to 16 is ample; start at a learning rate of {low:g} to {high:g}, never at the one for SFT",
        numbers={"lr_low": low, "lr_high": high},
        evidence=("C15", "LR11"),
    )


def rank_sized(tokens: int, per_rank: int, task: Task | None) -> int:
    """Rank that brings rho to its target, as a power of two within the measured ranks."""
    target = threshold("rho_target_hard") if task in (Task.MATH, Task.CODE) else threshold("rho_suspect")
    needed = max(1, round(target * tokens / per_rank))
    power = 1 << (needed - 1).bit_length()
    return max(int(threshold("rank_sized_min")), min(power, int(threshold("rho_cpt_rank"))))
