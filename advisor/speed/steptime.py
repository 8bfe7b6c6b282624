"""Seconds of a step, tokens a second, and what a pass over the data takes and costs."""

from __future__ import annotations

from typing import NamedTuple

from advisor.speed.card import CardShares, KernelFactors, Spread, factors_of, kernels_of, peaks_of, rates_of, said_of, shares_of, spread_of
from advisor.speed.exchange import Link, exchange_of, fast_link, slow_link, step_s, usual_link
from advisor.speed.measured import MARGIN_SHARE, step_seconds
from advisor.speed.roofline import compute_s, counted, dora_factors, launch_times_s, said_of_part, work_of
from advisor.tiers import Tier, refuse_unread
from advisor.values import GpuSpec, ModelSpec, Plan, Range, StepTime

SECONDS_PER_HOUR = 3600


class Times(NamedTuple):
    """Seconds of one optimizer step."""

    low_s: float
    expected_s: float
    high_s: float


def step_time(
    model: ModelSpec,
    plan: Plan,
    gpu: GpuSpec,
    dataset_tokens: int | None = None,
    *,
    epochs: float = 1.0,
    usd_per_gpu_hour: float | None = None,
) -> StepTime | None:
    """Time of one optimizer step, and of `epochs` passes over `dataset_tokens` with their price; None when the card's speeds are not
    known, or what is computed is not counted: of a model whose text part has no tables, and of images.

    Tokens are those that the card computes: padding counts. Loading data, evaluation and checkpoints come on top.
    Raises UnsupportedError for settings of a plan that have no time.
    """
    part = counted(model, plan)
    if part is None:
        return None
    refuse_unread(Tier.SPEED, plan)
    seconds = _measured(part, plan, gpu) or _rated(part, plan, gpu)
    if seconds is None:
        return None
    seconds = seconds.model_copy(update={"source": seconds.source + said_of_part(model)})
    tokens_per_s = Range(low=plan.tokens_per_step / seconds.high, high=plan.tokens_per_step / seconds.low, source=seconds.source)
    if dataset_tokens is None:
        return StepTime(seconds_per_step=seconds, tokens_per_s=tokens_per_s)
    hours = _hours(tokens_per_s, dataset_tokens, epochs)
    return StepTime(seconds_per_step=seconds, tokens_per_s=tokens_per_s, hours=hours, usd=_usd(hours, plan.n_gpus, gpu, usd_per_gpu_hour))


def paid_for(time: StepTime | None, plan: Plan, cards: int | None) -> StepTime | None:
    """`time` of a plan that leaves some of the `cards` idle, which are paid for, too; None for the cards: the plan's own."""
    if time is None or time.usd is None or cards is None:
        return time
    share = cards / plan.n_gpus
    usd = time.usd.model_copy(update={"low": time.usd.low * share, "high": time.usd.high * share})
    return time.model_copy(update={"usd": usd})


def _rated(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> Range | None:
    shares = shares_of(gpu.name)
    times = rated_times(model, plan, gpu, shares, factors_of(kernels_of(plan)), spread_of(shares))
    if times is None:
        return None
    source = said_of(shares) + ("" if plan.n_gpus == 1 else f", {plan.n_gpus} cards")
    return Range(low=times.low_s, high=times.high_s, source=source)


def rated_times(model: ModelSpec, plan: Plan, gpu: GpuSpec, shares: CardShares, factors: KernelFactors, spread: Spread) -> Times | None:
    """Time at those rates; None where the card's speeds are not known.

    An end is the further of two: measured times spread around what rates give, and hosts launch and links carry faster or slower. That
    both come together is rare, and the spread holds some of the second already.
    """
    peaks = peaks_of(plan, gpu)
    if peaks is None:
        return None
    work, exchange, rates = work_of(model, plan), exchange_of(model, plan), rates_of(peaks, shares, factors)
    dora, usual = dora_factors(plan, work.shape), usual_link(gpu, plan)
    fast_s, usual_s, slow_s = launch_times_s()

    def total_s(launch_s: float, method: float, link: Link | None, scale: float = 1.0) -> float:
        return step_s(compute_s(work, rates, launch_s, scale) * method, exchange, link)

    return Times(
        low_s=min(total_s(usual_s, dora.low, usual, spread.low), total_s(fast_s, dora.low, fast_link(gpu, plan))),
        expected_s=total_s(usual_s, (dora.low * dora.high) ** 0.5, usual),
        high_s=max(total_s(usual_s, dora.high, usual, spread.high), total_s(slow_s, dora.high, slow_link(gpu, plan))),
    )


def _measured(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> Range | None:
    """Seconds at the rates that a calibration on this card achieved with this model and such a plan, the newest first.

    Another model's layers are of another size, and a small matrix product is far from the speed of a large one.
    """
    like = gpu.calibrations_of(model.model_type, plan.kind)
    known = next((entry for entry in like if entry.model == model.id and entry.rates is not None), None)
    if known is None or known.rates is None:
        return None
    seconds, margin = step_seconds(model, plan, known.rates), 1 + max(MARGIN_SHARE, known.rates.error_share)
    source = f"rates achieved on this card on {known.created_at[:10]} with {known.shapes} shapes of {known.model}"
    return Range(low=seconds / margin, high=seconds * margin, source=source)


def _hours(tokens_per_s: Range, tokens: int, epochs: float) -> Range:
    passes = "one pass" if epochs == 1 else f"{epochs:g} passes"
    return Range(
        low=tokens * epochs / tokens_per_s.high / SECONDS_PER_HOUR,
        high=tokens * epochs / tokens_per_s.low / SECONDS_PER_HOUR,
        source=f"{passes} over {tokens:,} tokens",
    )


def _usd(hours: Range, n_gpus: int, gpu: GpuSpec, usd_per_gpu_hour: float | None) -> Range | None:
    """At the price given; else from the cheapest recorded price over the shortest time to the dearest over the longest."""
    if usd_per_gpu_hour is not None:
        a_gpu_hour, source = (usd_per_gpu_hour, usd_per_gpu_hour), f"{usd_per_gpu_hour:g} USD a card and hour (as given)"
    elif gpu.prices:
        ends = [end(gpu.prices, key=lambda price: price.usd_per_gpu_hour) for end in (min, max)]
        a_gpu_hour = (ends[0].usd_per_gpu_hour, ends[1].usd_per_gpu_hour)
        source = " to ".join(
            f"{price.usd_per_gpu_hour:g} USD a card and hour ({price.provider}, {price.date})" for price in dict.fromkeys(ends)
        )
    else:
        return None
    return Range(low=hours.low * n_gpus * a_gpu_hour[0], high=hours.high * n_gpus * a_gpu_hour[1], source=source)
