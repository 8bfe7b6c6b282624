"""Read the rates of `profiles/rates/` off the timed runs of `profiles/times/`, and try each on runs that it was not read off.

    python benchmarks/fit_rates.py        writes cards.json, kernels.json, spread.json and left_out.json anew (a minute)

A family of cards has three shares of its peaks, and other kernels than eager ones two factors on them. They are those at which the runs'
times differ least from `advisor.speed`, in the mean of absolute logarithms, so that one odd run moves nothing; shares of a family with few
runs are held near those of all families. Runs that Python or a link may have held up say nothing of a card and are left out of the fit.
Cross-validation leaves out all runs of a source on a card at once: a rate is never judged by its own runs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from math import exp, log
from pathlib import Path
from typing import NamedTuple

from advisor import profiles
from advisor.accuracy.times import Timed, timed_runs
from advisor.profiles.rates import CardRates, KernelRates, Kernels, LeftOut, TimeSpread
from advisor.speed.card import CardShares, KernelFactors, Peaks, Spread, peaks_of, rates_of
from advisor.speed.exchange import Exchange, Link, exchange_of, slow_link, step_s, usual_link
from advisor.speed.roofline import Work, compute_s, dora_factors, launch_times_s, work_of
from advisor.speed.steptime import Times, rated_times

TARGET = Path(profiles.ROOT) / "rates"
GEFORCE, OTHER = "other GeForce", "other"
"""Rows of cards that no run is known of. GeForce cards stand apart: their data sheets' dense rate is the one with fp32 accumulation, of
which they reach nearly all and accelerators under four fifths."""
START = (0.7, 0.5, 0.6)
"""Shares to begin with: products, attention, bandwidth."""
MOST, MOST_FACTOR = 1.05, 2.5
"""Bounds of shares and of factors: GeForce cards clock a little above their data sheet; fused kernels move down to under half."""
NEAR = 0.01
"""Judgement: what a squared logarithm between a family's shares and those of all costs, against the mean absolute logarithm of errors."""
FIRST_STEP, LAST_STEP = 0.3, 0.015
INSIDE = 0.9
"""Share of the runs that a range is to hold."""
LEVELS = (0.8, 0.85, 0.9, 0.95, 0.99)
NO_SPREAD = Spread(1.0, 1.0)


class Case(NamedTuple):
    """A timed run with all of it that no rate changes."""

    timed: Timed
    family: str
    peaks: Peaks
    work: Work
    exchange: Exchange
    link: Link | None
    method: float
    held_up: bool
    """Python's launches or the links may have made its time."""

    @property
    def group(self) -> str:
        return self.timed.of.group


class Fit:
    """Shares by family and factors by kernels, as lists that the search moves."""

    def __init__(self, cases: Sequence[Case]) -> None:
        runs = Counter(case.family for case in cases)
        self.weights = {family: count**0.5 for family, count in runs.items()}
        self.families = {family: [*START] for family in runs}
        self.kernels = {case.timed.of.kernels: [1.0, 1.0] for case in cases}

    def slots(self) -> Iterator[tuple[list[float], int, float]]:
        """What may move, and up to where. Eager kernels are the unit; newer ones share one attention kernel."""
        for shares in self.families.values():
            yield from ((shares, index, MOST) for index in range(3))
        for kernels, factors in self.kernels.items():
            if kernels != "eager":
                yield from ((factors, index, MOST_FACTOR) for index in (range(2) if kernels == "older" else (1,)))

    def pooled(self, pool: str) -> list[float]:
        """Geometric means over families, each by the root of its runs: of products over those of a pool, of the others over all."""
        return [self._mean(0, pool), self._mean(1), self._mean(2)]

    def _mean(self, index: int, pool: str = "") -> float:
        mine = [family for family in self.families if not pool or pool_of(family) == pool]
        total = sum(self.weights[family] for family in mine)
        return exp(sum(self.weights[family] * log(self.families[family][index]) for family in mine) / total)

    def apart(self) -> float:
        """How far families lie from the cards most like them, in squared logarithms."""
        pools = {pool: self.pooled(pool) for pool in {pool_of(family) for family in self.families}}
        pairs = [(shares, pools[pool_of(family)]) for family, shares in self.families.items()]
        return sum(log(one / other) ** 2 for pair in pairs for one, other in zip(*pair, strict=True))

    def shares_of(self, family: str, groups: tuple[str, ...] = ()) -> CardShares:
        products, attention, bandwidth = self.families.get(family) or self.pooled(pool_of(family))
        return CardShares(family, products, attention, bandwidth, len(groups), groups)

    def factors_of(self, kernels: Kernels) -> KernelFactors:
        attention, bandwidth = self.kernels.get(kernels, [1.0, 1.0])
        return KernelFactors(attention, bandwidth)


def pool_of(family: str) -> str:
    """GeForce cards by their families' names in cards.json."""
    return GEFORCE if (family.startswith("RTX ") and family[4:].isdigit()) or family == GEFORCE else OTHER


def cases() -> Iterator[Case]:
    family_of = {name: row.family for row in profiles.rows("rates/cards", CardRates) for name in row.cards}
    _, _, slow_launch_s = launch_times_s()
    for timed in timed_runs():
        peaks = peaks_of(timed.plan, timed.gpu)
        if timed.of.apart or peaks is None:
            continue
        work, exchange = work_of(timed.model, timed.plan), exchange_of(timed.model, timed.plan)
        dora = dora_factors(timed.plan, work.shape)
        link, worst = usual_link(timed.gpu, timed.plan), slow_link(timed.gpu, timed.plan)
        exposed_s = step_s(timed.seconds, exchange, worst) - timed.seconds if timed.gpu.link == "pcie" else 0.0
        held_up = work.layer_passes * slow_launch_s > timed.seconds or exposed_s > 0.1 * timed.seconds
        family = family_of.get(timed.of.card, timed.of.card)
        yield Case(timed, family, peaks, work, exchange, link, (dora.low * dora.high) ** 0.5, held_up)


def computed_s(case: Case, fit: Fit, launch_s: float) -> float:
    rates = rates_of(case.peaks, fit.shares_of(case.family), fit.factors_of(case.timed.of.kernels))
    return step_s(compute_s(case.work, rates, launch_s) * case.method, case.exchange, case.link)


def fitted(all_cases: Sequence[Case]) -> Fit:
    """By coordinates: each share up and down by a step, which halves when none helps."""
    used = [case for case in all_cases if not case.held_up]
    alike = Counter((case.group, case.timed.of.kernels) for case in used)
    weights = [alike[(case.group, case.timed.of.kernels)] ** -0.5 for case in used]
    fit, (_, launch_s, _) = Fit(used), launch_times_s()

    def loss() -> float:
        errors = sum(
            weight * abs(log(computed_s(case, fit, launch_s) / case.timed.seconds)) for case, weight in zip(used, weights, strict=True)
        )
        return float(errors / sum(weights)) + NEAR * (
            fit.apart() + sum(log(factor) ** 2 for factors in fit.kernels.values() for factor in factors)
        )

    best, step = loss(), FIRST_STEP
    while step > LAST_STEP:
        moved = False
        for values, index, most in fit.slots():
            for ratio in (1 + step, 1 / (1 + step)):
                before = values[index]
                values[index] = min(most, before * ratio)
                new = loss()
                if new < best - 1e-7:
                    best, moved = new, True
                else:
                    values[index] = before
        step = step if moved else step / 2
    return fit


class Result(NamedTuple):
    """A run beside what others say of it."""

    case: Case
    fit: Fit
    shares: CardShares
    alike: str
    """The runs that were left out with it."""
    error: float
    """Logarithm of measured over expected."""


def left_out(all_cases: Sequence[Case]) -> Iterator[Result]:
    """Each run by all but its source on its card, where others ran its family; and by all but its family."""
    groups_of: dict[str, set[str]] = {case.family: set() for case in all_cases}
    for case in all_cases:
        if not case.held_up:
            groups_of[case.family].add(case.group)
    several = {case.group for case in all_cases if len(groups_of[case.family] - {case.group}) > 1}
    for group in sorted(several):
        yield from _without(all_cases, [case for case in all_cases if case.group == group], group)
    for family in groups_of:
        yield from _without(all_cases, [case for case in all_cases if case.family == family], family)


def _without(all_cases: Sequence[Case], mine: Sequence[Case], alike: str) -> Iterator[Result]:
    left_in = [case for case in all_cases if case not in mine]
    fit = fitted(left_in)
    print(f"without {alike}", file=sys.stderr)
    for case in mine:
        groups = tuple(dict.fromkeys(other.group for other in left_in if other.family == case.family and not other.held_up))
        shares = fit.shares_of(case.family, groups)
        error = log(case.timed.seconds / times_of(case, fit, shares, NO_SPREAD).expected_s)
        yield Result(case, fit, shares, alike, error)


def spread_from(results: Sequence[Result], level: float) -> Spread:
    """The ends that leave as much outside on either side. Runs that were left out together weigh as the root of their number.

    Of runs that Python or a link may have held up the ends of launches and links speak.
    """
    used = sorted((result for result in results if not result.case.held_up), key=lambda result: result.error)
    alike = Counter(result.alike for result in used)
    weights = [alike[result.alike] ** -0.5 for result in used]
    tail, passed = (1 - level) / 2 * sum(weights), [*accumulate(weights)]
    low = next(result.error for result, weight in zip(used, passed, strict=True) if weight >= tail)
    high = next(result.error for result, weight in zip(used, passed, strict=True) if weight >= sum(weights) - tail)
    return Spread(exp(low), exp(high))


def times_of(case: Case, fit: Fit, shares: CardShares, spread: Spread) -> Times:
    times = rated_times(case.timed.model, case.timed.plan, case.timed.gpu, shares, fit.factors_of(case.timed.of.kernels), spread)
    assert times is not None
    return times


def judged(results: Sequence[Result]) -> Iterator[tuple[TimeSpread, list[LeftOut]]]:
    """The spread of all errors for the product's own answers, and the ranges of the runs, each by the errors of runs left out without it.

    Few groups are a poor sample: the level is raised until as many of the runs left out lie inside as a range is to hold. A family that
    several sources timed is left out whole for the spread of cards without rows alone; it is judged by what is said of it.
    """
    known = {result.case.family for result in results if result.shares.sources == "several"}
    for sources in ("several", "one or none"):
        mine = [result for result in results if result.shares.sources == sources]
        told = [result for result in mine if sources == "several" or result.case.family not in known]
        alike = dict.fromkeys(result.alike for result in mine)
        for level in LEVELS:
            crossed = {one: spread_from([result for result in mine if result.alike != one], level) for one in alike}
            rows = [_left_out_row(result, crossed[result.alike]) for result in told]
            if sum(row.inside for row in rows) >= INSIDE * len(rows):
                break
        spread = spread_from(mine, level)
        yield TimeSpread(sources=sources, low=spread.low, high=spread.high, runs=len(mine), groups=len(alike)), rows


def _left_out_row(result: Result, spread: Spread) -> LeftOut:
    timed = result.case.timed
    times = times_of(result.case, result.fit, result.shares, spread)
    return LeftOut(
        id=timed.run.id,
        group=result.case.group,
        method=timed.plan.method.value,
        sources=result.shares.sources,
        measured_s=timed.seconds,
        low_s=times.low_s,
        expected_s=times.expected_s,
        high_s=times.high_s,
    )


def card_rows(all_cases: Sequence[Case], fit: Fit) -> Iterator[CardRates]:
    for row in profiles.rows("rates/cards", CardRates):
        mine = [case for case in all_cases if not case.held_up and case.family == row.family]
        shares = fit.shares_of(row.family)
        groups = tuple(dict.fromkeys(case.group for case in mine))
        yield CardRates(
            family=row.family,
            cards=row.cards,
            begins=row.begins,
            products_share=shares.products,
            attention_share=shares.attention,
            bandwidth_share=shares.bandwidth,
            runs=len(mine),
            groups=groups,
        )


def kernel_rows(all_cases: Sequence[Case], fit: Fit) -> Iterator[KernelRates]:
    for row in profiles.rows("rates/kernels", KernelRates):
        factors = fit.factors_of(row.kernels)
        runs = sum(case.timed.of.kernels == row.kernels and not case.held_up for case in all_cases)
        yield row.model_copy(update={"attention_factor": factors.attention, "bandwidth_factor": factors.bandwidth, "runs": runs})


def write(name: str, rows: Sequence[CardRates] | Sequence[KernelRates] | Sequence[LeftOut] | Sequence[TimeSpread]) -> None:
    lines = (json.dumps(_rounded(row.model_dump(mode="json")), ensure_ascii=False) for row in rows)
    (TARGET / f"{name}.json").write_text("[\n " + ",\n ".join(lines) + "\n]\n", encoding="utf-8")


def _rounded(row: dict[str, object]) -> dict[str, object]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    all_cases = [*cases()]
    fit = fitted(all_cases)
    spreads, rows = zip(*judged([*left_out(all_cases)]), strict=True)
    write("cards", [*card_rows(all_cases, fit)])
    write("kernels", [*kernel_rows(all_cases, fit)])
    write("spread", spreads)
    write("left_out", [*chain.from_iterable(rows)])


if __name__ == "__main__":
    main()
